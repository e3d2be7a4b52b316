"""Checks of a run's options against the checkpoint or the weights that it begins with."""

import logging
from dataclasses import fields
from typing import Any

from jsonargparse import Namespace

from lit_gpt_scratch.cli.start import Start
from lit_gpt_scratch.data.datamodule import TextDataModule
from lit_gpt_scratch.model.gpt import GPTConfig

log = logging.getLogger(__name__)


def check_architecture(asked: Namespace, start: Start) -> None:
    """Compare the architecture that options ask for with that of the weights to begin with.

    Raises:
        ValueError: They differ in anything but dropout, which has no weights, or a shorter block of a Hugging
            Face model.
    """
    for field in fields(GPTConfig):
        option = f"model.{field.name}"
        if option not in start.options or field.name == "dropout":
            continue
        now, trained = asked[field.name], start.options[option]
        is_shorter = field.name == "block_size" and start.checkpoint is None and now < trained
        if now != trained and not is_shorter:
            whose = "the checkpoint" if start.checkpoint else start.path
            raise ValueError(f"{whose}'s {option} is {trained}, not {now}: leave the architecture out")


def check_data(data: TextDataModule, start: Start, command: str) -> None:
    """Compare the data of a command with those that the checkpoint's model was trained on.

    Raises:
        ValueError: The tokenizer differs, or the text of a run that goes on in its folder.
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
    if start.is_resume or command != "fit":  # other weights are for another text
        check_corpus(data, state, must_match=start.run_dir is not None)
    if start.run_dir is not None:
        check_validation(data, start.options)


def check_corpus(data: TextDataModule, state: dict[str, Any], must_match: bool) -> None:
    """Warn if a text that has been read is not the one of a checkpoint's training.

    Args:
        data: The data.
        state: The data's part of the checkpoint.
        must_match: Raise an error in place of the warning.

    Raises:
        ValueError: The texts differ, and must not.
    """
    pairs = [("trained", state["corpus"], data.corpora.get("train"))]
    if data.val_source is not None:
        pairs.append(("validated", state.get("val", {}).get("corpus"), data.corpora.get("val")))
    for verb, was, is_now in pairs:
        if was is None or is_now is None or was["sha256"] == is_now.sha256:
            continue
        difference = (
            f"this is not the text that the checkpoint was {verb} on ({was['name']}, "
            f"{was['n_chars']:,} characters, sha256 {was['sha256'][:12]}), but {is_now.name}, "
            f"{is_now.n_chars:,} characters, sha256 {is_now.sha256[:12]}"
        )
        if must_match:
            raise ValueError(f"{difference}: to go on with another text, name another --run_dir")
        log.warning("%s", difference)


def check_validation(data: TextDataModule, options: dict[str, Any]) -> None:
    """Check that a run that goes on in its folder is evaluated as before: it compares its evaluations.

    Raises:
        ValueError: It is not.
    """
    now = {
        "data.val_fraction": data.val_fraction,
        "data.max_val_tokens": data.max_val_tokens,
        "data.val_corpus": data.val_source and data.corpora["val"].name,
    }
    for name, value in now.items():
        if value != options.get(name, value):
            raise ValueError(
                f"{name} was {options[name]}, not {value}: to evaluate in another way, name another --run_dir"
            )


def check_steps_left(start: Start, max_steps: int) -> None:
    """Check that the last step of a resumed run lies ahead.

    Raises:
        ValueError: It has been reached.
    """
    if 0 < max_steps <= start.step:
        raise ValueError(
            f"step {start.step} is reached and trainer.max_steps is {max_steps}: give a larger one"
        )
