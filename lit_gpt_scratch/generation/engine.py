"""Autoregressive generation: token ids in, token ids out."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lit_gpt_scratch.generation.sampling import sample
from lit_gpt_scratch.model.gpt import GPT


@dataclass(frozen=True)
class SamplingOptions:
    """How text is drawn from a model.

    Args:
        max_new_tokens: Tokens to write after the prompt.
        temperature: 0 takes the likeliest token each time; lower is safer, higher is wilder.
        top_k: Draw from the k likeliest tokens only; null draws from all.
        seed: The same seed gives the same text; null gives another each time.

    Raises:
        ValueError: A number is out of range.
    """

    max_new_tokens: int = 300
    temperature: float = 0.8
    top_k: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be 0 (greedy) or above, not {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(
                f"top_k must be at least 1, not {self.top_k}; leave it out to draw from all tokens"
            )


@torch.inference_mode()
def generate(gpt: GPT, ids: Tensor, options: SamplingOptions) -> Tensor:
    """Continue each row of `ids`; only its last block_size tokens are looked at.

    Args:
        gpt: The model; it is run in eval mode and left in the mode it was in.
        ids: Prompts, (B, T) with T at least 1, on the model's device.
        options: How to draw.

    Returns:
        Prompts and continuations, (B, T + max_new_tokens).
    """
    generator = torch.Generator(ids.device)
    if options.seed is None:
        generator.seed()
    else:
        generator.manual_seed(options.seed)
    was_training = gpt.training
    gpt.eval()
    with torch.compiler.set_stance("force_eager"):  # each length would be compiled anew
        for _ in range(options.max_new_tokens):
            logits = gpt(ids[:, -gpt.config.block_size :])[:, -1]  # (B, V)
            next_ids = sample(logits.float(), options.temperature, options.top_k, generator)
            ids = torch.cat([ids, next_ids[:, None]], dim=1)
    gpt.train(was_training)
    return ids
