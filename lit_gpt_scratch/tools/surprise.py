"""How much each token of a text surprises a model, and how sure the mean of that is."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.special import stdtrit  # quantiles of Student's t

from lit_gpt_scratch.data.tokenizer import TokenArray
from lit_gpt_scratch.model.gpt import GPT
from lit_gpt_scratch.training.loss import logits_at_once

Floats = npt.NDArray[np.float32]

TOKENS_AT_ONCE = 2**14
BLOCK_TOKENS = 256  # tokens near each other are alike, blocks of so many hardly
FEWEST_BLOCKS = 10
FEWEST_BLOCK_TOKENS = 16


@dataclass(frozen=True)
class Window:
    """Tokens `begin` to `end` of a text, which are read to score those from `first` on."""

    begin: int
    first: int
    end: int

    @property
    def shape(self) -> tuple[int, int]:
        """Tokens that are read, and those that are scored."""
        return self.end - self.begin, self.end - self.first


@dataclass(frozen=True)
class Surprise:
    """What a model made of a text of n + 1 tokens, the first of which has nothing before it.

    Args:
        losses: Nats of each token, (n,).
        guesses: The likeliest tokens in its place, the likeliest first, (n, n_guesses).
        probabilities: Theirs, (n, n_guesses).
    """

    losses: Floats
    guesses: npt.NDArray[np.int32]
    probabilities: Floats


def strided_windows(n_tokens: int, block_size: int, stride: int) -> Iterator[Window]:
    """Windows that score each token but the first once, most of them with much before them.

    Each is `stride` tokens on from the one before, and scores what that one has not: with as many as
    block_size - stride tokens of context and more. They are transformers' own, of its guide to perplexity.
    """
    scored = 1
    for begin in range(0, n_tokens, stride):
        end = min(begin + block_size, n_tokens)
        yield Window(begin, scored, end)
        if end == n_tokens:
            return
        scored = end


@torch.inference_mode()
def measure(
    gpt: GPT,
    ids: TokenArray,
    stride: int,
    n_guesses: int = 0,
    advance: Callable[[int], object] = lambda n_tokens: None,
) -> Surprise:
    """Score a text.

    Args:
        gpt: The model, for evaluation.
        ids: The text, (n + 1,).
        stride: Tokens between two windows, 1 to block_size - 1: the fewer, the more context, and the slower.
        n_guesses: Of the likeliest tokens, how many to keep.
        advance: Called with each number of tokens that is done.

    Raises:
        ValueError: There is nothing to score.
    """
    block_size, vocab_size = gpt.config.block_size, gpt.config.vocab_size
    if len(ids) < 2:
        raise ValueError(f"the text has {len(ids)} token: there is nothing to predict")
    device = gpt.wte.weight.device
    n_guesses = min(n_guesses, vocab_size)
    losses = np.empty(len(ids) - 1, dtype=np.float32)
    guesses = np.empty((len(losses), n_guesses), dtype=np.int32)
    probabilities = np.empty((len(losses), n_guesses), dtype=np.float32)
    for (n_read, n_scored), alike in itertools.groupby(
        strided_windows(len(ids), block_size, stride), key=lambda window: window.shape
    ):
        room = min(TOKENS_AT_ONCE // n_read, logits_at_once(device) // (n_scored * vocab_size))
        while batch := list(itertools.islice(alike, max(1, room))):
            rows = np.stack([ids[window.begin : window.end] for window in batch]).astype(np.int64)
            tokens = torch.from_numpy(rows).to(device)  # (B, n_read)
            features = gpt.features(tokens[:, :-1])[:, -n_scored:]
            logits = gpt.lm_head(features).float()  # (B, n_scored, V)
            wanted = tokens[:, -n_scored:]
            nats = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none")
            places = np.concatenate([np.arange(window.first, window.end) - 1 for window in batch])
            losses[places] = nats.cpu().numpy()
            if n_guesses:
                likeliest = logits.softmax(dim=-1).topk(n_guesses)
                guesses[places] = likeliest.indices.flatten(0, 1).cpu().numpy()
                probabilities[places] = likeliest.values.flatten(0, 1).cpu().numpy()
            advance(len(places))
    return Surprise(losses, guesses, probabilities)


@dataclass(frozen=True)
class Estimate:
    """A number, and between what it lies with a confidence of 95 %; None for a text too short to say."""

    value: float
    low: float | None
    high: float | None

    def through(self, function: Callable[[float], float]) -> "Estimate":
        """The same of a number that rises with this one."""
        low, high = (None if bound is None else function(bound) for bound in (self.low, self.high))
        return Estimate(function(self.value), low, high)


def mean_per_unit(amounts: Floats, units: npt.NDArray[np.int64]) -> Estimate:
    """The sum of amounts per unit of what they are of, such as nats per byte.

    Tokens depend on those before them, so that they are taken in blocks, whose sums hardly do (the method of
    batch means, Conway 1963); the interval is that of a ratio of two sums, with Student's t.

    Args:
        amounts: Of each token, (n,).
        units: Of each token, (n,).
    """
    total = float(units.sum())
    ratio = float(amounts.sum(dtype=np.float64)) / total
    n_blocks = len(amounts) // BLOCK_TOKENS
    if n_blocks < FEWEST_BLOCKS:
        n_blocks = FEWEST_BLOCKS
        if len(amounts) < n_blocks * FEWEST_BLOCK_TOKENS:
            return Estimate(ratio, None, None)
    starts = np.linspace(0, len(amounts), n_blocks, endpoint=False).astype(np.int64)
    sums = np.add.reduceat(amounts.astype(np.float64), starts)
    residuals = sums - ratio * np.add.reduceat(units, starts)
    deviation = math.sqrt(n_blocks / (n_blocks - 1) * float((residuals**2).sum())) / total
    half = float(stdtrit(n_blocks - 1, 0.975)) * deviation
    return Estimate(ratio, ratio - half, ratio + half)
