"""From logits to the next token."""

import torch
import torch.nn.functional as F
from torch import Tensor

TINY_TEMPERATURE = 1e-5  # dividing by less overflows


def sample(
    logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator | None
) -> Tensor:
    """Choose the next token of each row.

    Args:
        logits: (B, V).
        temperature: Divides the logits; 0, or next to it, takes the likeliest token.
        top_k: Only the k likeliest tokens may be drawn; None leaves all.
        generator: Source of randomness, on the logits' device; None is torch's global one.

    Returns:
        Token ids, (B,).
    """
    if temperature < TINY_TEMPERATURE:
        return logits.argmax(dim=-1)
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    return torch.multinomial(F.softmax(logits / temperature, dim=-1), 1, generator=generator).squeeze(1)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Set all but the k largest logits of each row to minus infinity; (B, V) -> (B, V)."""
    smallest_kept = logits.topk(min(k, logits.shape[-1]), dim=-1).values[:, -1:]
    return logits.masked_fill(logits < smallest_kept, float("-inf"))
