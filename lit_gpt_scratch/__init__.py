"""Train a GPT from scratch on any text with PyTorch Lightning, and generate text with it.

From Python, `load` reads a checkpoint, `generate` generates text with it, and `evaluate` scores it on a text;
`LitGPT` and `TextDataModule` train with Lightning's own `Trainer`.
"""

import importlib
import time
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from lit_gpt_scratch.api import generate, load
    from lit_gpt_scratch.data.datamodule import TextDataModule
    from lit_gpt_scratch.evaluation.evaluate import evaluate
    from lit_gpt_scratch.training.module import LitGPT

__all__ = ["LitGPT", "TextDataModule", "evaluate", "generate", "load"]
PUBLIC_MODULES = {  # where each public name is defined
    "LitGPT": "training.module",
    "TextDataModule": "data.datamodule",
    "evaluate": "evaluation.evaluate",
    "generate": "api",
    "load": "api",
}

START_TIME = time.perf_counter()  # approximate start of the program
__version__ = "0.1.0"

PROGRAM = "python -m lit_gpt_scratch"


class Command(NamedTuple):
    """A subcommand of the command line."""

    summary: str
    module: str  # defines a function named like the command, or `add_arguments` and `run`
    prints_result: bool = False  # True if the result goes to standard output


COMMANDS = {
    "fit": Command("train a model on a text, or resume a run (--ckpt_path RUN_FOLDER)", "cli.commands"),
    "validate": Command(
        "measure loss, perplexity and bits per byte of a checkpoint on its validation text",
        "cli.commands",
        True,
    ),
    "test": Command("like validate, but on data.test_corpus if that is set", "cli.commands", True),
    "predict": Command("generate text with a checkpoint", "cli.commands", True),
    "plan": Command("estimate the time, memory and final loss of a run with fit's options", "cli.plan", True),
    "evaluate": Command(
        "measure loss, perplexity and bits per byte of checkpoints on any text, and the loss of each token",
        "evaluation.command",
        True,
    ),
    "scale": Command(
        "train a grid of small models, fit a scaling law, and predict the loss of larger ones",
        "scaling.scale",
    ),
    "import": Command(
        "convert a Hugging Face folder with a GPT-2 or Qwen3 model to a checkpoint", "hub.import_folder"
    ),
    "export": Command(
        "convert a checkpoint to a folder that Hugging Face's transformers loads", "hub.export_folder"
    ),
    "verify-resume": Command(
        "check that a killed and resumed run is bit-identical to an uninterrupted one", "tools.verify_resume"
    ),
}


def __getattr__(name: str) -> Any:
    """Import a public name on first access, so that `--version` works without torch."""
    if name not in PUBLIC_MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"lit_gpt_scratch.{PUBLIC_MODULES[name]}"), name)
