"""What options mean beyond their parsing: what a checkpoint brings, and what a wrong one was meant to be."""

import re
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from jsonargparse import Namespace

from lit_gpt_scratch.model.gpt import GPTConfig

# Options of Lightning's Trainer that a run of optimizer steps has no use for, and what serves instead.
REPLACED = {
    "accumulate_grad_batches": "data.micro_batch_size",
    "barebones": "callbacks",
    "check_val_every_n_epoch": "eval_every",
    "default_root_dir": "run_dir",
    "enable_checkpointing": "save_every",
    "enable_model_summary": "callbacks.summary",
    "enable_progress_bar": "callbacks.progress",
    "gradient_clip_algorithm": "gradient_clipping.max_norm",
    "gradient_clip_val": "gradient_clipping.max_norm",
    "limit_predict_batches": "num_samples",
    "limit_train_batches": "trainer.max_steps",
    "max_epochs": "trainer.max_steps",
    "min_epochs": "trainer.min_steps",
    "num_sanity_val_steps": "eval_every",
    "overfit_batches": "configs/debug.yaml",
    "reload_dataloaders_every_n_epochs": "data",
    "use_distributed_sampler": "data",
    "val_check_interval": "eval_every",
}
LINKED = {"model.vocab_size", "data.block_size", "data.seed"}  # follow from other options


def checkpoint_settings(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The options that a checkpoint was trained with, as defaults.

    Its text is the one really trained on, for which nothing may stand in.
    """
    settings = {f"model.{name}": value for name, value in checkpoint["hyper_parameters"].items()}
    settings |= {f"data.{name}": value for name, value in checkpoint["datamodule_hyper_parameters"].items()}
    state = checkpoint["TextDataModule"]
    if state["corpus"] is not None:  # weights that came from elsewhere have no text
        settings |= {"data.corpus": state["corpus"]["name"], "data.offline_corpus": None}
        settings["data.val_corpus"] = state.get("val", {}).get("corpus")
    settings["data.tokenizer"] = state["tokenizer"]
    return {name: value for name, value in settings.items() if name not in LINKED}


def check_resume(args: list[str], given: Namespace) -> None:
    """Look for options that --resume cannot go with.

    Raises:
        ValueError: There is one.
    """
    if args[0] != "fit":
        raise ValueError(f"--resume is for fit; {args[0]} takes --ckpt_path")
    if given.ckpt_path is not None:
        raise ValueError("--resume goes on with a run, --ckpt_path begins another: give one of them")
    if any(arg.split("=")[0] == "--run_dir" for arg in args):
        raise ValueError("--resume goes on in the run's own folder: leave --run_dir out, or use --ckpt_path")


def check_architecture(asked: Namespace, trained: dict[str, Any]) -> None:
    """Compare the architecture that options ask for with a checkpoint's.

    Raises:
        ValueError: They differ in anything but dropout, which has no weights.
    """
    names = [field.name for field in fields(GPTConfig) if field.name not in ("dropout", "vocab_size")]
    differing = [name for name in names if name in trained and trained[name] != asked[name]]
    if differing:
        wrong = "; its ".join(f"model.{name} is {trained[name]}, not {asked[name]}" for name in differing)
        raise ValueError(f"the checkpoint's {wrong}: leave the architecture to the checkpoint")


def explain_usage(message: str, config_files: list[str], known: list[str]) -> str:
    """The parser's word on a wrong option, with the file's name and the right option in it."""
    files = " or ".join(config_files) or "the config file"
    message = message.replace('"<unicode string>"', files)
    message = re.sub(r"a <class '(\w+)'>", r"\1", message)
    message = re.sub(
        r"Unexpected config:.*", f"{files} is not a mapping of options", message, flags=re.DOTALL
    )
    for option in re.findall(r"(?:arguments: --|option ')([\w.]+)", message):
        if instead := REPLACED.get(option.removeprefix("trainer.")):
            message += f"; here {instead} does that"
        elif near := get_close_matches(option, [*{*known} - LINKED], n=1):
            message += f"; did you mean {near[0]}?"
    return message
