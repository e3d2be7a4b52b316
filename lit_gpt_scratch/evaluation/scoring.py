"""Per-token loss of a model on a text, from strided windows."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from lit_gpt_scratch.data.tokenizers import TokenArray
from lit_gpt_scratch.model.gpt import GPT
from lit_gpt_scratch.training.loss import max_logits

MAX_BATCH_TOKENS = 2**14


@dataclass(frozen=True)
class TokenScores:
    """Scores of n tokens: all tokens of a text except the first token, which has no context."""

    targets: TokenArray  # (n,)
    losses: npt.NDArray[np.float32]  # nats, (n,)
    guesses: npt.NDArray[np.int32]  # most probable tokens, in descending order, (n, n_guesses)
    probabilities: npt.NDArray[np.float32]  # of the guesses, (n, n_guesses)


def strided_windows(
    n_tokens: int, block_size: int, stride: int, batch_size: int
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]]:
    """Yield batches of windows of a text, in which each token except the first is scored once.

    Each window begins `stride` tokens after the previous window. In each window after the first, only the
    tokens that are not in the previous window are scored, with at least block_size - stride tokens of
    context, as in transformers' guide to perplexity.

    Yields:
        The position in the text of each token in each window, (B, T), and a mask of the positions to score,
        (B, T) of bool. The last window may extend beyond the end of the text.
    """
    length = min(block_size, n_tokens)
    begins = np.arange(0, n_tokens - length + stride, stride)
    for begin in np.split(begins, range(batch_size, len(begins), batch_size)):
        first_new = np.where(begin == 0, 1, begin + length - stride)
        positions = begin[:, None] + np.arange(length)
        yield positions, (positions >= first_new[:, None]) & (positions < n_tokens)


@torch.inference_mode()
def score_tokens(
    gpt: GPT,
    ids: TokenArray,
    stride: int,
    n_guesses: int = 0,
    advance: Callable[[int], object] = lambda n_tokens: None,
) -> TokenScores:
    """Compute the loss of each token of a text except the first, and the most probable tokens in its place.

    Args:
        gpt: The model, in evaluation mode.
        ids: The text's tokens, (n + 1,).
        stride: Number of tokens from the start of one window to the start of the next, 1 to block_size - 1.
        n_guesses: Number of most probable tokens to return for each token.
        advance: Function that is called with the number of tokens scored since its last call.

    Raises:
        ValueError: The text has fewer than two tokens.
    """
    if len(ids) < 2:
        raise ValueError(f"the text has {len(ids)} token: there is nothing to predict")
    device, config = gpt.wte.weight.device, gpt.config
    batch_tokens = min(MAX_BATCH_TOKENS, max_logits(device) // config.vocab_size)
    batch_size = max(1, batch_tokens // config.block_size)
    scored = []
    for positions, is_scored in strided_windows(len(ids), config.block_size, stride, batch_size):
        rows = ids[positions.clip(max=len(ids) - 1)].astype(np.int64)
        tokens = torch.from_numpy(rows).to(device)  # (B, T)
        mask = torch.from_numpy(is_scored[:, 1:]).to(device)
        features = gpt.features(tokens[:, :-1])[mask]  # (N, C)
        logprobs = gpt.lm_head(features).float().log_softmax(dim=-1)  # (N, V)
        losses = F.nll_loss(logprobs, tokens[:, 1:][mask], reduction="none")
        top = logprobs.topk(min(n_guesses, config.vocab_size))
        scored.append([part.cpu() for part in (losses, top.indices.int(), top.values.exp())])
        advance(len(losses))
    return TokenScores(ids[1:], *(torch.cat(parts).numpy() for parts in zip(*scored, strict=True)))
