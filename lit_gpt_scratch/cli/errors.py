"""Error messages of the command line, each one line, with hints at the right option."""

import re
import sys
from argparse import ArgumentError
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from typing import Any

# Replacements for options that do not exist here; most are options of Lightning's Trainer.
REPLACEMENTS = {
    "accumulate_grad_batches": "data.micro_batch_size",
    "barebones": "callbacks",
    "check_val_every_n_epoch": "eval_every",
    "default_root_dir": "run_dir",
    "finetune": "--init_from",
    "fork": "--run_dir with --ckpt_path",
    "model.init_from": "--init_from",
    "resume": "--ckpt_path RUN_FOLDER",
    "enable_checkpointing": "save_every",
    "enable_model_summary": "callbacks.summary",
    "enable_progress_bar": "callbacks.progress",
    "gradient_clip_algorithm": "step_control.max_norm",
    "gradient_clip_val": "step_control.max_norm",
    "limit_predict_batches": "num_samples",
    "limit_train_batches": "trainer.max_steps",
    "max_epochs": "trainer.max_steps",
    "min_epochs": "trainer.min_steps",
    "num_sanity_val_steps": "eval_every",
    "overfit_batches": "configs/debug.yaml",
    "precision": "precision",
    "reload_dataloaders_every_n_epochs": "data",
    "use_distributed_sampler": "data",
    "val_check_interval": "eval_every",
}
RENAMED_CONFIGS = {"day20.yaml": "tutorial_char.yaml", "gpt2-1024.yaml": "gpt2_1024.yaml"}
LINKED_OPTIONS = {  # options that are computed from others, and those others
    "model.vocab_size": "data.tokenizer and data.vocab_size",
    "data.block_size": "model.block_size",
    "data.seed": "seed_everything",
}


@contextmanager
def clear_parser_errors(parser: Any, config_files: list[str]) -> Iterator[None]:
    """Convert jsonargparse's errors in the ``with`` block to ValueErrors with a one-line message.

    Args:
        parser: The parser of the command; its options are suggested in place of an unknown option.
        config_files: Names of the config files, for the message.
    """
    files = " or ".join(config_files) or "the config file"
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(f"{files} is not a text file") from error
    except ArgumentError as error:
        known_options = {action.dest for action in parser._actions} - LINKED_OPTIONS.keys()
        raise ValueError(clear_message(str(error), files, known_options)) from error


def clear_message(message: str, files: str, known_options: set[str]) -> str:
    """Return an error message of jsonargparse in plain words, with a hint at the right option.

    Args:
        message: The error message of jsonargparse.
        files: Names of the config files, joined by "or".
        known_options: Names of the options that the hint may suggest.
    """
    message = message.replace('"<unicode string>"', files)
    message = re.sub(r"a <class '(\w+)'>", r"\1", message)
    message = re.sub(r"(?s)Unexpected config:.*", f"{files} is not a mapping of options", message)
    restriction = r"Not of type \w+: (\S+) does not conform to restriction v([<>=]+)(\S+)"
    message = re.sub(restriction, r"must be \2 \3, not \1", message)
    union = r'Parser key "([\w.]+)":.*Subtypes: \[(.*?)\] Errors:.*Given value: (.*)'
    if found := re.search(union, " ".join(message.split())):
        kinds = re.sub(r"<class '(\w+)'>|typing.Literal\[(.*?)\]", r"\1\2", found[2])
        kinds = kinds.replace("NoneType", "null").replace(", ", " or ")
        message = f"{found[1]} takes {kinds}, not {found[3]!r}"
    for old, new in RENAMED_CONFIGS.items():
        if old in message and "does not exist" in message:
            message += f"; its name is now {new}"
    for option in re.findall(r"(?:arguments: --|option ')([\w.]+)", message):
        if replacement := REPLACEMENTS.get(option.removeprefix("trainer.")) or LINKED_OPTIONS.get(option):
            message += f"; use {replacement} instead"
        elif near := get_close_matches(option, known_options, n=1):
            message += f"; did you mean {near[0]}?"
    return message


def print_error(code: int, message: str) -> int:
    """Print an error message to standard error, and return `code`; a failed write is ignored."""
    with suppress(OSError):
        # One write: print may write the newline separately, after a line of another process.
        sys.stderr.write(f"error: {message}\n")
    return code
