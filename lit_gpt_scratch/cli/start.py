"""Where a command begins: with a checkpoint (``--ckpt_path``), given weights (``--init_from``), or anew."""

import argparse
import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # no stubs among the dependencies

from lit_gpt_scratch.cli.usage import LINKED
from lit_gpt_scratch.training.checkpoint import LAST_FIRST, find_checkpoint, read_checkpoint
from lit_gpt_scratch.training.run_folder import CONFIG


@dataclass(frozen=True)
class Start:
    """Where a command begins.

    Args:
        path: Checkpoint, or Hugging Face folder; None for random weights.
        checkpoint: Contents of the checkpoint without its weights; None if there is no checkpoint.
        is_resume: Whether training goes on from the checkpoint's step, with its optimizer.
        run_dir: Run folder of the checkpoint, in which a resumed run stays; None for a run in a new folder.
        options: Values of options that the start brings; they come after the command line and ``--config``.
        config_file: Settings of the run that is resumed.
    """

    path: Path | None = None
    checkpoint: dict[str, Any] | None = None
    is_resume: bool = False
    run_dir: Path | None = None
    options: dict[str, Any] = field(default_factory=dict)
    config_file: Path | None = None

    @property
    def step(self) -> int:
        """Number of optimizer steps already taken."""
        return int(self.checkpoint["global_step"]) if self.checkpoint and self.is_resume else 0


def read_start(command: str, args: list[str]) -> Start:
    """Read the checkpoint or the Hugging Face folder that the arguments name.

    Args:
        command: Name of the command.
        args: Its arguments; only those that say where to begin are read.

    Raises:
        ValueError: There is no such checkpoint or folder, or it cannot be used for this command.
    """
    given = _given(args)
    if given.ckpt_path is not None and given.init_from is not None:
        raise ValueError("--ckpt_path goes on with a run, --init_from begins a new one: give one of them")
    if given.ckpt_path is None and given.init_from is None:  # the command line comes before config files
        given.ckpt_path = _from_configs(given.config, "ckpt_path")
        given.init_from = _from_configs(given.config, "init_from")
    if command != "fit":
        return _checkpoint_start(find_checkpoint(given.ckpt_path)) if given.ckpt_path is not None else Start()
    if given.ckpt_path is not None:
        return _resume(find_checkpoint(given.ckpt_path, LAST_FIRST), given.run_dir)
    if given.init_from is None:
        return Start()
    path = Path(given.init_from).expanduser()
    if path.is_file() or any(path.glob("*.ckpt")):
        return _checkpoint_start(find_checkpoint(path, LAST_FIRST))
    if not path.is_dir():
        raise ValueError(f"no such checkpoint or folder: {given.init_from}")
    return _hub_start(path, has_tokenizer=given.tokenizer is not None)


def _given(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("ckpt_path", "init_from", "run_dir"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--data.tokenizer", dest="tokenizer")
    parser.add_argument("-c", "--config", action="append", default=[])
    try:
        given = parser.parse_known_args(args)[0]
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error
    for name in ("ckpt_path", "init_from"):
        if getattr(given, name) == "null":
            setattr(given, name, None)
    return given


def _from_configs(files: list[str], name: str) -> str | None:
    """Return an option's value in the last config file that has it; the parser reports unreadable files."""
    value: str | None = None
    for file in files:
        with suppress(OSError, ValueError, yaml.YAMLError):
            content = yaml.safe_load(Path(file).expanduser().read_text(encoding="utf-8"))
            if isinstance(content, dict) and name in content:
                value = content[name] if isinstance(content[name], str) else None
    return value


def _checkpoint_start(path: Path) -> Start:
    checkpoint = read_checkpoint(path, mmap=True)
    parts = {name: part for name, part in checkpoint.items() if name != "state_dict"}
    return Start(path, parts, options=checkpoint_options(parts))


def _hub_start(folder: Path, has_tokenizer: bool) -> Start:
    from lit_gpt_scratch.hub.pretrained import read_options  # transformers is an extra

    model = read_options(folder, has_tokenizer)
    data = {"data.tokenizer": json.dumps(model.pop("tokenizer"))} if "tokenizer" in model else {}
    options = {f"model.{name}": value for name, value in model.items()} | data
    return Start(folder, options={name: value for name, value in options.items() if name not in LINKED})


def _resume(path: Path, run_dir: str | None) -> Start:
    """Go on from a checkpoint: in its own run folder, or in another where `run_dir` names one."""
    start = _checkpoint_start(path)
    assert start.checkpoint is not None
    if "optimizer_states" not in start.checkpoint:
        raise ValueError(f"{path} holds weights and no optimizer: begin a new run from them with --init_from")
    own = path.parent
    is_run_folder = (own / CONFIG).is_file() and path.name.startswith(("last", "best"))
    config_file = own / CONFIG if is_run_folder else None
    stays = is_run_folder and (run_dir is None or Path(run_dir).expanduser().resolve() == own.resolve())
    last = own / "last.ckpt"
    if stays and last.is_file() and not last.samefile(path):
        step = reached = start.checkpoint["global_step"]
        with suppress(ValueError):  # a damaged one may be replaced
            reached = read_checkpoint(last, mmap=True)["global_step"]
        if step < reached:
            raise ValueError(
                f"{path} is of step {step}, and its run has reached step {reached}: "
                f"give {own} to go on from there, or another folder as --run_dir to go on from {path.name}"
            )
    options = start.options | {
        "seed_everything": start.checkpoint["datamodule_hyper_parameters"]["seed"],
        "callbacks.ema": "averaging_state" in start.checkpoint,
    }
    return Start(path, start.checkpoint, True, own if stays else None, options, config_file)


def checkpoint_options(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the options that a checkpoint was trained with.

    The texts are those that were really read, for which nothing may stand in.
    """
    options = {f"model.{name}": value for name, value in checkpoint["hyper_parameters"].items()}
    options |= {f"data.{name}": value for name, value in checkpoint["datamodule_hyper_parameters"].items()}
    state = checkpoint["TextDataModule"]
    if state["corpus"] is not None:  # weights that came from elsewhere have no text
        options |= {"data.corpus": state["corpus"]["name"], "data.offline_corpus": None}
        validated_on = state.get("val", {}).get("corpus")
        options["data.val_corpus"] = validated_on and validated_on["name"]
    options["data.tokenizer"] = json.dumps(state["tokenizer"])
    return {name: value for name, value in options.items() if name not in LINKED}
