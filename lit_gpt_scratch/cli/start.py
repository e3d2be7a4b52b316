"""Initial state of a command: checkpoint (``--ckpt_path``), weights (``--init_from``) or random weights."""

import argparse
import json
import pkgutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # no stubs among the dependencies

from lit_gpt_scratch.cli.config_files import find_config
from lit_gpt_scratch.cli.errors import LINKED_OPTIONS
from lit_gpt_scratch.training.checkpoint import LAST_FIRST, find_checkpoint, read_checkpoint
from lit_gpt_scratch.training.run_folder import CONFIG


@dataclass(frozen=True)
class Start:
    """Checkpoint or weights that a command starts with.

    Args:
        path: Checkpoint, or Hugging Face folder; None for random weights.
        checkpoint: Contents of the checkpoint without its weights; None if there is no checkpoint.
        is_resume: True if training continues from the checkpoint's step, with its optimizer state.
        run_dir: Run folder in which a resumed run continues; None for a run in a new folder.
        options: Values of options in the checkpoint or the Hugging Face folder, by option name; the class
            paths of model and data are not among them.
        config_file: config.yaml of the resumed run; None if there is none.
    """

    path: Path | None = None
    checkpoint: dict[str, Any] | None = None
    is_resume: bool = False
    run_dir: Path | None = None
    options: dict[str, Any] = field(default_factory=dict)
    config_file: Path | None = None

    @property
    def step(self) -> int:
        """Number of optimizer steps that a resumed run has already taken; 0 for other runs."""
        return int(self.checkpoint["global_step"]) if self.checkpoint and self.is_resume else 0


def parse_known(args: list[str], *options: str) -> tuple[argparse.Namespace, list[str]]:
    """Parse a few options before the parser of all options exists.

    Args:
        args: The arguments of a command.
        *options: Names of the options to parse, without dashes. Each takes one value, except ``config``,
            whose value is the list of all files given with ``--config``.

    Returns:
        The values by option name (None for an option that is not given), and the remaining arguments.

    Raises:
        ValueError: A value is missing.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in options:
        if name == "config":
            parser.add_argument("-c", "--config", action="append", default=[], type=find_config)
        else:
            parser.add_argument(f"--{name}", dest=name)
    try:
        return parser.parse_known_args(args)
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error


def pop_class(args: list[str], part: str, base: type) -> tuple[type, list[str]]:
    """Return the class that ``--<part>.class_path`` names (default: `base`), and the remaining arguments.

    Raises:
        ValueError: The class does not exist, or is not a subclass of `base`.
    """
    option = f"{part}.class_path"
    try:
        given, others = parse_known(args, option)
        path = getattr(given, option)
        found = base if path is None else pkgutil.resolve_name(path)
    except (ValueError, ImportError, AttributeError) as error:
        raise ValueError(f"--{option} must be MODULE.CLASS: {error}") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ValueError(f"--{option} must name a subclass of {base.__name__}, not {path}")
    return found, others


def read_start(command: str, args: list[str]) -> Start:
    """Read the checkpoint or the Hugging Face folder that the arguments or their config files name, if any.

    Raises:
        ValueError: The checkpoint or folder does not exist, or cannot be used for this command.
    """
    given, _ = parse_known(args, "ckpt_path", "init_from", "run_dir", "data.tokenizer", "config")
    ckpt_path, init_from = (None if path == "null" else path for path in (given.ckpt_path, given.init_from))
    if ckpt_path is not None and init_from is not None:
        raise ValueError("--ckpt_path resumes a run, --init_from starts a new one: give only one of them")
    if ckpt_path is None and init_from is None:  # the command line takes precedence over --config
        ckpt_path = _value_in_configs(given.config, "ckpt_path")
        init_from = _value_in_configs(given.config, "init_from")
    if command != "fit":
        return Start() if ckpt_path is None else _checkpoint_start(find_checkpoint(ckpt_path))
    if ckpt_path is not None:
        return _resume_start(find_checkpoint(ckpt_path, LAST_FIRST), given.run_dir)
    if init_from is None:
        return Start()
    path = Path(init_from).expanduser()
    if path.is_file() or any(path.glob("*.ckpt")):
        return _checkpoint_start(find_checkpoint(path, LAST_FIRST))
    if not path.is_dir():
        raise ValueError(f"no such checkpoint or folder: {init_from}")
    tokenizer = getattr(given, "data.tokenizer") or _value_in_configs(given.config, "data.tokenizer")
    return _hub_start(path, has_tokenizer=tokenizer is not None)


def _value_in_configs(files: list[str], name: str) -> str | None:
    """Return the value of an option in the last config file that sets the option; skip unreadable files.

    The result is None if no file sets the option, or if the value is not a string.
    """
    values = values_in_configs(files, name)
    return values[-1] if values and isinstance(values[-1], str) else None


def values_in_configs(files: list[str], name: str) -> list[Any]:
    """Return the values of an option in the config files that set the option, in the order of the files.

    Unreadable files are skipped here, because the parser reports them later.
    """
    values = []
    for file in files:
        with suppress(OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
            content = yaml.safe_load(Path(file).expanduser().read_text(encoding="utf-8"))
            for key in name.split("."):
                content = content[key]
            values.append(content)
    return values


def _checkpoint_start(path: Path) -> Start:
    checkpoint = read_checkpoint(path, mmap=True)
    parts = {name: part for name, part in checkpoint.items() if name != "state_dict"}
    return Start(path, parts, options=checkpoint_options(parts))


def _hub_start(folder: Path, has_tokenizer: bool) -> Start:
    from lit_gpt_scratch.hub.pretrained import read_config  # transformers is an extra
    from lit_gpt_scratch.hub.tokenizer import read_tokenizer

    _, model = read_config(folder)
    options = {f"model.{name}": value for name, value in model.items()}
    if not has_tokenizer:
        options["data.tokenizer"] = json.dumps(read_tokenizer(folder, model["vocab_size"]))
    return Start(folder, options=_without_linked(options))


def _resume_start(path: Path, run_dir: str | None) -> Start:
    """Return the `Start` of a run that is resumed from a checkpoint.

    If the checkpoint is a run folder's last or best checkpoint, and `run_dir` is None or that folder, the run
    continues in that folder; otherwise, the run gets a new folder.
    """
    start = _checkpoint_start(path)
    assert start.checkpoint is not None
    if "optimizer_states" not in start.checkpoint:
        raise ValueError(f"{path} has weights and no optimizer: start a new run from it with --init_from")
    folder = path.parent
    is_run_folder = (folder / CONFIG).is_file() and path.name.startswith(("last", "best"))
    keeps_folder = is_run_folder and (
        run_dir is None or Path(run_dir).expanduser().resolve() == folder.resolve()
    )
    if keeps_folder:
        _check_newest(path, start.checkpoint["global_step"])
    options = start.options | {
        "seed_everything": start.checkpoint["datamodule_hyper_parameters"]["seed"],
        "callbacks.ema": "averaging_state" in start.checkpoint,
    }
    return Start(
        path,
        start.checkpoint,
        is_resume=True,
        run_dir=folder if keeps_folder else None,
        options=options,
        config_file=folder / CONFIG if is_run_folder else None,
    )


def _check_newest(path: Path, step: int) -> None:
    """Raise ValueError if ``last.ckpt`` in the folder of `path` is of a later step than `step`."""
    last = path.with_name("last.ckpt")
    last_step = step
    if last.is_file() and not last.samefile(path):
        with suppress(ValueError):  # a damaged last checkpoint may be overwritten
            last_step = read_checkpoint(last, mmap=True)["global_step"]
    if last_step > step:
        raise ValueError(
            f"{path} is of step {step}, and its run has reached step {last_step}: give {path.parent} to "
            f"resume from there, or another folder as --run_dir to resume from {path.name}"
        )


def checkpoint_options(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the options that a checkpoint was trained with, by option name.

    data.corpus and data.val_corpus name the texts that were read; data.corpus may therefore be the run's
    data.offline_corpus. data.tokenizer is the tokenizer itself, as JSON.
    """
    options = {f"model.{name}": value for name, value in checkpoint["hyper_parameters"].items()}
    options |= {f"data.{name}": value for name, value in checkpoint["datamodule_hyper_parameters"].items()}
    state = checkpoint["TextDataModule"]
    if state["corpus"] is not None:  # None in an imported checkpoint
        options |= {"data.corpus": state["corpus"]["name"], "data.offline_corpus": None}
        val_corpus = state.get("val", {}).get("corpus")
        options["data.val_corpus"] = val_corpus and val_corpus["name"]
    options["data.tokenizer"] = json.dumps(state["tokenizer"])
    return _without_linked(options)


def _without_linked(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in LINKED_OPTIONS}
