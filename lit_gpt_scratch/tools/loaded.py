"""A checkpoint as what it is for: a model that reads and writes text."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from lit_gpt_scratch.data.subwords import tokenizer_from_dict
from lit_gpt_scratch.data.tokenizer import Tokenizer, encode_prompt
from lit_gpt_scratch.generation.generate import SamplingOptions
from lit_gpt_scratch.generation.generate import generate as write
from lit_gpt_scratch.model.gpt import GPT, GPTConfig
from lit_gpt_scratch.training.checkpoint_io import find_checkpoint, read_checkpoint
from lit_gpt_scratch.training.hardware import device_kind


@dataclass(frozen=True)
class Model:
    """A trained model.

    Args:
        gpt: The network, for evaluation, on the quickest device that there is.
        tokenizer: What it reads and writes in.
        path: The checkpoint's file.
        step: The optimizer step that the checkpoint is of.
        corpus: Name, size and sha256 of the text that it was trained on; None for imported weights.
    """

    gpt: GPT
    tokenizer: Tokenizer
    path: Path
    step: int
    corpus: dict[str, Any] | None

    @property
    def n_parameters(self) -> int:
        """Its parameters, each counted once."""
        return self.gpt.n_parameters


def load(path: str | Path) -> Model:
    """Load a trained model.

    Args:
        path: A checkpoint's file, or a run folder for its best one.

    Raises:
        ValueError: There is no checkpoint, or it is damaged.
    """
    file = find_checkpoint(path)
    checkpoint = read_checkpoint(file)
    gpt = GPT(config_of(checkpoint))
    weights = {name.removeprefix("gpt."): tensor for name, tensor in checkpoint["state_dict"].items()}
    try:
        gpt.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{file} is damaged: its weights do not fit") from error
    text = checkpoint["TextDataModule"]
    tokenizer = tokenizer_from_dict(text["tokenizer"])
    gpt = gpt.eval().requires_grad_(False).to(torch.device(device_kind("auto")))
    return Model(gpt, tokenizer, file, checkpoint["global_step"], text["corpus"])


def config_of(checkpoint: dict[str, Any]) -> GPTConfig:
    """The shape of a checkpoint's model."""
    names = {field.name for field in fields(GPTConfig)}
    settings = checkpoint["hyper_parameters"].items()
    return GPTConfig(**{name: value for name, value in settings if name in names})


def generate(model: Model, prompt: str = "", **options: Any) -> str:
    """Let a model write.

    Args:
        model: The model.
        prompt: What it continues; nothing at all stands for a newline.
        **options: The fields of `SamplingOptions`: max_new_tokens, temperature, top_k, top_p, min_p,
            repetition_penalty, banned_tokens, stop_tokens, seed.

    Returns:
        What it wrote after the prompt.

    Raises:
        ValueError: An option is out of range, or there is no such.
    """
    known = [field.name for field in fields(SamplingOptions)]
    if unknown := options.keys() - known:
        raise ValueError(f"no such option: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    ids = encode_prompt(model.tokenizer, prompt).tolist()
    made = write(model.gpt, [ids], SamplingOptions(**options))
    return model.tokenizer.decode(made.continuations[0].tokens)
