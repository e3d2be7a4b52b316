"""The command `import`: convert a Hugging Face folder to a checkpoint."""

import shutil
from importlib.metadata import version
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from lit_gpt_scratch import PROGRAM
from lit_gpt_scratch.hub.pretrained import read_config, read_state
from lit_gpt_scratch.hub.tokenizer import read_tokenizer
from lit_gpt_scratch.training.checkpoint import write_checkpoint
from lit_gpt_scratch.training.run_folder import CONFIG, create_run_folder, shell_path

# Small, because the weights are already trained; --model.learning_rate overrides it.
FINETUNE_LEARNING_RATE = 3e-5


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of `import`."""
    parser.add_argument(
        "--from", type=str, required=True, help="Folder with config.json, weights and tokenizer."
    )
    parser.add_argument(
        "--run_dir", type=str, required=True, help="Folder to create; if it is in use, a number is added."
    )


def run(options: Namespace) -> None:
    """Import a folder, and print the checkpoint's path and commands that use it."""
    created = import_folder(Path(options["from"]).expanduser(), Path(options.run_dir).expanduser())
    run_dir = shell_path(created)
    print(
        f"imported   {created / 'best.ckpt'}\n"
        f"generate   {PROGRAM} predict --ckpt_path {run_dir}\n"
        f"validate   {PROGRAM} validate --ckpt_path {run_dir} --data.corpus my.txt\n"
        f"fine-tune  {PROGRAM} fit --init_from {run_dir} --data.corpus my.txt"
    )


def import_folder(folder: Path, run_dir: Path) -> Path:
    """Write the weights and the tokenizer of a Hugging Face folder as `best.ckpt` of a new run folder.

    Returns:
        The run folder: `run_dir`, or if that is in use, the same name with a number.

    Raises:
        ValueError: The folder is damaged or incomplete, or its model or tokenizer is not supported.
    """
    _, options = read_config(folder)
    checkpoint = {
        "TextDataModule": {"tokenizer": read_tokenizer(folder, options["vocab_size"]), "corpus": None},
        "state_dict": {f"gpt.{name}": tensor for name, tensor in read_state(folder).items()},
        "hyper_parameters": {
            **options,
            "learning_rate": FINETUNE_LEARNING_RATE,
            "min_learning_rate": FINETUNE_LEARNING_RATE / 10,
        },
        "datamodule_hyper_parameters": {},
        "evaluation": {},
        "best_evaluation": {},
        "init_from": str(folder),
        "global_step": 0,
        "n_tokens": 0,
        "epoch": 0,
        "callbacks": {},
        "pytorch-lightning_version": version("lightning"),
    }
    created = create_run_folder(run_dir)
    try:
        write_checkpoint(checkpoint, created / "best.ckpt")
        (created / CONFIG).unlink()  # the empty file of create_run_folder; an import has no run options
    except BaseException:
        shutil.rmtree(created, ignore_errors=True)
        raise
    return created
