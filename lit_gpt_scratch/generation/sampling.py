"""Sample tokens from logits: penalties, top-k, top-p, min-p and inversion sampling, as pure functions."""

import torch
import torch.nn.functional as F
from torch import Tensor

MINUS_INFINITY = float("-inf")


def penalize_repeats(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Reduce the probability of tokens that a row already contains (Keskar et al. 2019, "CTRL").

    Args:
        logits: (B, V).
        seen: Mask of the tokens that each row contains, (B, V) of bool.
        penalty: Divisor of positive logits and factor of negative logits of these tokens; 1 has no effect.

    Returns:
        The logits after the penalty, (B, V).
    """
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def ban(logits: Tensor, tokens: list[int]) -> Tensor:
    """Exclude tokens: set their logits in each row to minus infinity; (B, V) -> (B, V)."""
    return logits.index_fill(1, torch.tensor(tokens, device=logits.device), MINUS_INFINITY)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k most probable tokens, and tokens as probable as the k-th token; (B, V) -> (B, V)."""
    smallest_kept = logits.topk(min(k, logits.shape[-1]), dim=-1).values[:, -1:]
    return logits.masked_fill(logits < smallest_kept, MINUS_INFINITY)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the smallest set of most probable tokens with total probability of at least p; (B, V) -> (B, V).

    Holtzman et al. 2019, "The Curious Case of Neural Text Degeneration".
    """
    values, order = logits.sort(dim=-1)  # ascending
    improbable = values.softmax(dim=-1).cumsum(dim=-1) <= 1 - p
    improbable[:, -1] = False
    return logits.masked_fill(improbable.scatter(1, order, improbable), MINUS_INFINITY)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Keep tokens at least p times as probable as the most probable one; (B, V) -> (B, V).

    Nguyen et al. 2024, "Turning Up the Heat: Min-p Sampling".
    """
    probabilities = logits.softmax(dim=-1)
    return logits.masked_fill(probabilities < p * probabilities.amax(dim=-1, keepdim=True), MINUS_INFINITY)


def sample(logits: Tensor, uniforms: Tensor) -> Tensor:
    """Sample a token from each row's softmax, by inversion of its cumulative distribution.

    Args:
        logits: (B, V).
        uniforms: Uniform random numbers from [0, 1), one for each row, (B,) of float64; thus, a row's token
            does not depend on the other rows. The cumulative distributions are computed on the device of
            `uniforms`.

    Returns:
        Token ids, (B,); a token whose logit is minus infinity is never sampled.
    """
    cumulative = F.softmax(logits, dim=-1).to(uniforms.device).cumsum(dim=-1, dtype=torch.float64)
    ids = torch.searchsorted(cumulative, uniforms[:, None] * cumulative[:, -1:], right=True)
    return ids.squeeze(1).to(logits.device)
