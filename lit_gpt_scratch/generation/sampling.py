"""From logits to the next token: each a pure function on the logits of one token a row, (B, V)."""

import torch
import torch.nn.functional as F
from torch import Tensor

NEVER = float("-inf")


def penalize_repeats(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make what a row has read or written already less likely (Keskar et al. 2019, "CTRL").

    Args:
        logits: (B, V).
        seen: Which tokens, (B, V) of bool.
        penalty: Divides logits above 0 and multiplies those below; 1 leaves them as they are.

    Returns:
        (B, V).
    """
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def ban(logits: Tensor, tokens: list[int]) -> Tensor:
    """Never choose these tokens; (B, V) -> (B, V)."""
    return logits.index_fill(1, torch.tensor(tokens, device=logits.device), NEVER)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Leave only the k likeliest tokens, and what is as likely as the last of them; (B, V) -> (B, V)."""
    smallest_kept = logits.topk(min(k, logits.shape[-1]), dim=-1).values[:, -1:]
    return logits.masked_fill(logits < smallest_kept, NEVER)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Leave only the likeliest tokens that together reach probability p; (B, V) -> (B, V).

    Holtzman et al. 2019, "The Curious Case of Neural Text Degeneration".
    """
    values, order = logits.sort(dim=-1)  # the least likely first
    improbable = values.softmax(dim=-1).cumsum(dim=-1) <= 1 - p
    improbable[:, -1] = False
    return logits.masked_fill(improbable.scatter(1, order, improbable), NEVER)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Leave only tokens at least p times as likely as the likeliest; (B, V) -> (B, V).

    Nguyen et al. 2024, "Turning Up the Heat: Min-p Sampling".
    """
    probabilities = logits.softmax(dim=-1)
    return logits.masked_fill(probabilities < p * probabilities.amax(dim=-1, keepdim=True), NEVER)


def sample(logits: Tensor, uniforms: Tensor) -> Tensor:
    """Sample a token from each row's softmax, by inversion of its cumulative distribution.

    Args:
        logits: (B, V).
        uniforms: A uniform number for each row, (B,) of float64, 0 to below 1, so that a row's token does not
            depend on the other rows. The distributions are computed on its device.

    Returns:
        Token ids, (B,); none whose logit is minus infinity.
    """
    cumulative = F.softmax(logits, dim=-1).to(uniforms.device).cumsum(dim=-1, dtype=torch.float64)
    ids = torch.searchsorted(cumulative, uniforms[:, None] * cumulative[:, -1:], right=True)
    return ids.squeeze(1).to(logits.device)
