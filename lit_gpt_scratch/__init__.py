"""Train a GPT from scratch on any text with PyTorch Lightning, watch it learn, let it speak.

From Python, `load` reads a checkpoint, `generate` writes text with it, and `evaluate` measures it on a text;
`LitGPT` and `TextDataModule` train with Lightning's own `Trainer`.
"""

import importlib
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_gpt_scratch.api import generate, load
    from lit_gpt_scratch.data.datamodule import TextDataModule
    from lit_gpt_scratch.evaluation.evaluate import evaluate
    from lit_gpt_scratch.training.module import LitGPT

__all__ = ["LitGPT", "TextDataModule", "evaluate", "generate", "load"]
HOMES = {
    "LitGPT": "training.module",
    "TextDataModule": "data.datamodule",
    "evaluate": "evaluation.evaluate",
    "generate": "api",
    "load": "api",
}

STARTED_SECONDS = time.perf_counter()  # when the program began, near enough
__version__ = "0.1.0"

PROGRAM = "python -m lit_gpt_scratch"

# The one list of subcommands: `__main__` shows it without importing torch, `cli` builds the parsers from it.
RUN_COMMANDS = {
    "fit": "train a model on a text, or resume a run (--ckpt_path RUN_FOLDER)",
    "validate": "loss, perplexity and bits per byte of a checkpoint on its validation text",
    "test": "the same on data.test_corpus, or on the validation text where there is none",
    "predict": "write text with a checkpoint",
}
TOOL_COMMANDS = {
    "plan": "estimate the time, memory and final loss of a run with fit's options",
    "evaluate": "loss, perplexity and bits per byte of checkpoints on any text, and the loss of each token",
    "scale": "train a grid of small models, fit a scaling law, and predict the loss of larger ones",
    "import": "make a checkpoint of a Hugging Face folder with a GPT-2 or a Qwen3",
    "export": "make a folder that Hugging Face's transformers loads of a checkpoint",
    "verify-resume": "check that a killed and resumed run is bit-identical to an uninterrupted one",
}
COMMANDS = RUN_COMMANDS | TOOL_COMMANDS
PRINTING_COMMANDS = ("predict", "validate", "test", "evaluate", "plan")  # the result is standard output


def __getattr__(name: str) -> Any:
    """Import what works with models only when it is asked for: `--version` does without torch."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    importlib.import_module("lit_gpt_scratch.__main__")  # sets the environment, as for the command line
    return getattr(importlib.import_module(f"lit_gpt_scratch.{HOMES[name]}"), name)
