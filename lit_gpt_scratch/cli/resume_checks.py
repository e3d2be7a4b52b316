"""Checks of a resumed or initialized run: its options and data against its checkpoint or weights."""

import logging
from dataclasses import fields

from jsonargparse import Namespace

from lit_gpt_scratch.cli.start import Start
from lit_gpt_scratch.data.datamodule import TextDataModule
from lit_gpt_scratch.model.gpt import GPTConfig

log = logging.getLogger(__name__)


def check_class(model_class: type, start: Start) -> None:
    """Raise ValueError if the checkpoint that training starts from was trained with another model class."""
    trained = (start.checkpoint or {}).get("class_path")
    if trained not in (None, f"{model_class.__module__}.{model_class.__qualname__}"):
        raise ValueError(f"the checkpoint was trained with --model.class_path {trained}: give it again")


def check_architecture(options: Namespace, start: Start) -> None:
    """Check that a model's architecture options match the weights that the model starts with.

    The option dropout may differ, because dropout has no weights. If the weights are from a Hugging Face
    model, block_size may be smaller than in that model.

    Raises:
        ValueError: An architecture option differs in any other way.
    """
    for name in [field.name for field in fields(GPTConfig) if field.name != "dropout"]:
        value = options.get(name)
        trained = start.options.get(f"model.{name}", value)
        is_shorter = name == "block_size" and start.checkpoint is None and value < trained
        if value != trained and not is_shorter:
            source = "the checkpoint" if start.checkpoint else start.path
            raise ValueError(f"{source}'s model.{name} is {trained}, not {value}: leave the architecture out")


def check_data(data: TextDataModule, start: Start, command: str) -> None:
    """Compare the loaded data with the data that the checkpoint was trained on.

    If training uses only the checkpoint's weights (``--init_from``), only the tokenizers are compared. A
    different text is an error if a resumed run keeps its folder, because all evaluations in a folder must be
    comparable; otherwise, a different text is a warning.

    Raises:
        ValueError: The tokenizer differs; or the run keeps its folder, and a text or its validation part
            differs.
    """
    if start.checkpoint is None:
        if command != "fit":
            log.warning("no --ckpt_path: this model is untrained, its weights are random")
        return
    state = start.checkpoint["TextDataModule"]
    if state["tokenizer"] != data.tokenizer.to_dict():
        raise ValueError(
            f"the checkpoint's tokenizer is not the one made from {data.source} ({data.vocab_size} tokens); "
            "leave data.tokenizer and data.corpus as they were"
        )
    if command == "fit" and not start.is_resume:
        return
    texts = [("trained", state["corpus"], data.corpora.get("train"))]
    if data.val_source is not None:
        texts.append(("validated", state.get("val", {}).get("corpus"), data.corpora.get("val")))
    for verb, before, now in texts:
        if before is None or now is None or before["sha256"] == now.sha256:
            continue
        difference = (
            f"this is not the text that the checkpoint was {verb} on ({before['name']}, "
            f"{before['n_chars']:,} characters, sha256 {before['sha256'][:12]}), but {now.name}, "
            f"{now.n_chars:,} characters, sha256 {now.sha256[:12]}"
        )
        if start.run_dir is not None:
            raise ValueError(f"{difference}: to train on another text, give another --run_dir")
        log.warning("%s", difference)
    if start.run_dir is None:
        return
    validation = {
        "data.val_fraction": data.val_fraction,
        "data.max_val_tokens": data.max_val_tokens,
        "data.val_corpus": data.val_source and data.corpora["val"].name,
    }
    for name, value in validation.items():
        if value != (before := start.options.get(name, value)):
            raise ValueError(f"{name} was {before}, not {value}: to change it, give another --run_dir")
