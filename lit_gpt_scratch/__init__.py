"""Train a GPT from scratch on any text with PyTorch Lightning, watch it learn, let it speak."""

__version__ = "0.1.0"

PROGRAM = "python -m lit_gpt_scratch"

# The one list of subcommands: `__main__` shows it without importing torch, `cli` builds the parsers from it.
RUN_COMMANDS = {
    "fit": "train a model on a text, or go on with a run (--resume RUN_FOLDER)",
    "validate": "loss, perplexity and bits per byte of a checkpoint on its validation text",
    "test": "the same on data.test_corpus, or on the validation text where there is none",
    "predict": "write text with a checkpoint",
}
TOOL_COMMANDS = {
    "import": "make a checkpoint of a Hugging Face folder with a GPT-2",
    "export": "make a folder that Hugging Face's transformers loads of a checkpoint",
    "verify-resume": "prove on this machine that a killed and resumed run loses not a bit",
}
COMMANDS = RUN_COMMANDS | TOOL_COMMANDS
