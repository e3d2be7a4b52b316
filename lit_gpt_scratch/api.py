"""Python API: load a checkpoint and generate text with it."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lit_gpt_scratch.data.bpe import tokenizer_from_dict
from lit_gpt_scratch.data.tokenizers import Tokenizer, encode_prompt
from lit_gpt_scratch.generation.generate import SamplingOptions, generate_tokens
from lit_gpt_scratch.model.gpt import GPT, GPTConfig
from lit_gpt_scratch.training.checkpoint import find_checkpoint, read_checkpoint
from lit_gpt_scratch.training.hardware import device_kind


@dataclass(frozen=True)
class Model:
    """A trained model, in evaluation mode on the fastest available device."""

    gpt: GPT
    tokenizer: Tokenizer
    path: Path  # the checkpoint file
    step: int  # the checkpoint's optimizer step
    corpus: dict[str, Any] | None  # name, size and sha256 of the training text; None for imported weights

    @property
    def n_parameters(self) -> int:
        """Number of parameters; tied weights count once."""
        return self.gpt.n_parameters


def load(path: str | Path) -> Model:
    """Load a trained model.

    Args:
        path: A checkpoint file, or a run folder; best.ckpt in this folder is loaded, or last.ckpt if there is
            no best.ckpt.

    Raises:
        ValueError: There is no checkpoint, or the checkpoint is damaged.
    """
    file = find_checkpoint(path)
    checkpoint = read_checkpoint(file)
    names = {field.name for field in fields(GPTConfig)}
    settings = checkpoint["hyper_parameters"].items()
    gpt = GPT(GPTConfig(**{name: value for name, value in settings if name in names}))
    weights = {name.removeprefix("gpt."): weight for name, weight in checkpoint["state_dict"].items()}
    try:
        gpt.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{file} is damaged: its weights do not fit its model options") from error
    data = checkpoint["TextDataModule"]
    gpt = gpt.eval().requires_grad_(False).to(device_kind("auto"))
    return Model(gpt, tokenizer_from_dict(data["tokenizer"]), file, checkpoint["global_step"], data["corpus"])


def generate(model: Model, prompt: str = "", **options: Any) -> str:
    """Return a continuation of a prompt, without the prompt.

    Args:
        model: The model.
        prompt: Text to continue; an empty prompt is replaced by a newline.
        **options: Fields of `SamplingOptions`: max_new_tokens, temperature, top_k, top_p, min_p,
            repetition_penalty, banned_tokens, stop_tokens, seed.

    Raises:
        ValueError: An option does not exist or is out of range.
    """
    known = [field.name for field in fields(SamplingOptions)]
    if unknown := options.keys() - known:
        raise ValueError(f"no such option: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    ids = encode_prompt(model.tokenizer, prompt).tolist()
    result = generate_tokens(model.gpt, [ids], SamplingOptions(**options))
    return model.tokenizer.decode(result.continuations[0].tokens)
