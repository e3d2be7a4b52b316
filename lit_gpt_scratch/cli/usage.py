"""A user's mistakes in one line: the parser's errors reworded, and the line printed."""

import re
import sys
from contextlib import suppress
from difflib import get_close_matches

# Options that this program does not have, and what replaces them: most are of Lightning's Trainer.
REPLACED = {
    "accumulate_grad_batches": "data.micro_batch_size",
    "barebones": "callbacks",
    "check_val_every_n_epoch": "eval_every",
    "default_root_dir": "run_dir",
    "finetune": "--init_from",
    "fork": "--run_dir beside --ckpt_path",
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
LINKED = {"model.vocab_size", "data.block_size", "data.seed"}  # follow from other options


def explain_usage(message: str, config_files: list[str], known: list[str]) -> str:
    """The parser's word on a wrong option, with the file's name and the right option in it."""
    files = " or ".join(config_files) or "the config file"
    message = message.replace('"<unicode string>"', files)
    message = re.sub(r"a <class '(\w+)'>", r"\1", message)
    message = re.sub(
        r"Unexpected config:.*", f"{files} is not a mapping of options", message, flags=re.DOTALL
    )
    message = re.sub(
        r"Not of type \w+: (\S+) does not conform to restriction v([<>=]+)(\S+)",
        r"must be \2 \3, not \1",
        message,
    )
    union = r'Parser key "([\w.]+)":.*Subtypes: \[(.*?)\] Errors:.*Given value: (.*)'
    if found := re.search(union, " ".join(message.split())):
        kinds = re.sub(r"<class '(\w+)'>|typing.Literal\[(.*?)\]", r"\1\2", found[2])
        kinds = kinds.replace("NoneType", "null").replace(", ", " or ")
        message = f"{found[1]} takes {kinds}, not {found[3]!r}"
    for option in re.findall(r"(?:arguments: --|option ')([\w.]+)", message):
        if instead := REPLACED.get(option.removeprefix("trainer.")):
            message += f"; here {instead} does that"
        elif near := get_close_matches(option, [*{*known} - LINKED], n=1):
            message += f"; did you mean {near[0]}?"
    return message


def fail(code: int, message: str) -> int:
    """Print an error, if there is a place for it, and return the exit code."""
    with suppress(OSError):
        # In one piece: print may write its newline apart, and another device's line comes between.
        sys.stderr.write(f"error: {message}\n")
    return code
