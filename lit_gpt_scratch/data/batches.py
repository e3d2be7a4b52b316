"""Windows of a token sequence: random ones for training, fixed ones for evaluation."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lit_gpt_scratch.data.token_files import Tokens
from lit_gpt_scratch.data.tokenizers import TokenArray, Tokenizer

IGNORE = -100  # cross_entropy's ignore_index: a target that is not counted

Batch = tuple[Tensor, Tensor]  # inputs and targets, each (B, T) int64


def random_starts(
    n_tokens: int, block_size: int, batch_size: int, seed: int, step: int
) -> npt.NDArray[np.int64]:
    """Draw the start positions of a training step's windows uniformly; seed and step determine the draw.

    Returns:
        Positions from 0 to n_tokens - block_size - 1, (batch_size,); each window is thus followed by at least
        one token, its last target.
    """
    return np.random.default_rng((seed, step)).integers(n_tokens - block_size, size=batch_size)


def gather(tokens: TokenArray, starts: npt.NDArray[np.int64], block_size: int) -> Batch:
    """Return the windows at `starts` and their targets, shifted by one token; each (B, T)."""
    windows = np.lib.stride_tricks.sliding_window_view(tokens, block_size + 1)[starts]  # (B, T + 1)
    ids = torch.from_numpy(windows.astype(np.int64))
    return ids[:, :-1], ids[:, 1:]


@dataclass(eq=False)
class TrainBatches:
    """Batches of a training run; each item is the data of one optimizer step.

    An item is the list of micro-batches that make up this rank's share of the step's global batch. Iteration
    begins at `first_step`. The length is the number of steps of the whole run, because a resumed Trainer
    compares the length with a batch count that includes the steps before the resume.
    """

    tokens: TokenArray
    block_size: int
    batch_size: int
    micro_batch_size: int
    seed: int
    first_step: int
    n_steps: int
    rank: int = 0
    world_size: int = 1
    pin_memory: bool = False  # copies to a GPU are then asynchronous

    def __len__(self) -> int:
        return self.n_steps

    def __iter__(self) -> Iterator[list[Batch]]:
        for step in range(self.first_step, self.n_steps):
            yield self.micro_batches(step)

    def micro_batches(self, step: int) -> list[Batch]:
        """Return this rank's micro-batches of a step; the global batch is divided among the ranks."""
        starts = random_starts(len(self.tokens), self.block_size, self.batch_size, self.seed, step)
        own = np.array_split(starts, self.world_size)[self.rank]
        cuts = range(self.micro_batch_size, len(own), self.micro_batch_size)
        batches = [gather(self.tokens, rows, self.block_size) for rows in np.split(own, list(cuts))]
        return [(x.pin_memory(), y.pin_memory()) for x, y in batches] if self.pin_memory else batches


@dataclass(frozen=True)
class EvalSet:
    """Fixed windows of a text, on which models are evaluated.

    Args:
        tokens: Tokens of the text.
        starts: Start positions of the windows in `tokens`, (n_windows,).
        block_size: Length of a window in tokens.
        bytes_per_token: UTF-8 bytes of documents (not of separators) per target token; NaN if not computed.
        is_full_pass: True if every token of the text but the first is a target exactly once.
    """

    tokens: Tokens
    starts: npt.NDArray[np.int64]
    block_size: int
    bytes_per_token: float = math.nan
    is_full_pass: bool = False

    @classmethod
    def from_tokens(
        cls,
        tokens: Tokens,
        block_size: int,
        tokenizer: Tokenizer,
        max_tokens: int | None = None,
    ) -> "EvalSet":
        """Return windows of the whole text or, if it has over `max_tokens` targets, evenly spread windows."""
        n_tokens, block_size = len(tokens), min(block_size, len(tokens) - 1)
        if max_tokens is None or n_tokens - 1 <= max_tokens:
            n_target_bytes = tokens.n_bytes - int(tokenizer.token_n_bytes[tokens.ids[0]])
            starts = full_pass_starts(n_tokens, block_size)
            return cls(tokens, starts, block_size, n_target_bytes / (n_tokens - 1), is_full_pass=True)
        starts = spread_starts(n_tokens, block_size, max_tokens // block_size)
        _, targets = gather(tokens.ids, starts, block_size)
        n_token_bytes = float(tokenizer.token_n_bytes[targets.numpy()].mean())
        return cls(tokens, starts, block_size, n_token_bytes * document_share(tokens, tokenizer))

    @property
    def n_tokens(self) -> int:
        """Number of tokens that are evaluated."""
        return len(self.tokens) if self.is_full_pass else len(self.starts) * self.block_size


class EvalBatches:
    """Batches of the windows of an `EvalSet`, in fixed order; each rank has its share of the windows."""

    def __init__(self, eval_set: EvalSet, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.ids = eval_set.tokens.ids
        self.block_size = eval_set.block_size
        self.starts = eval_set.starts[rank::world_size]
        # All ranks have the same number of batches: under FSDP, they gather the weights together for each.
        max_windows, min_windows = -(-len(eval_set.starts) // world_size), len(eval_set.starts) // world_size
        self.n_batches = min(-(-max_windows // batch_size), min_windows)

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[Batch]:
        for starts in np.array_split(self.starts, self.n_batches):
            # The last window of a full pass is moved back to fit; its targets that also belong to the window
            # before it are masked.
            last = len(self.ids) - self.block_size - 1
            inputs, targets = gather(self.ids, np.minimum(starts, last), self.block_size)
            if starts[-1] > last:
                targets = targets.clone()
                targets[-1, : starts[-1] - last] = IGNORE
            yield inputs, targets


def document_share(tokens: Tokens, tokenizer: Tokenizer) -> float:
    """Return the fraction of the UTF-8 bytes of all tokens that belong to documents, not to separators."""
    if not tokens.n_separators:
        return 1.0
    return tokens.n_bytes / (tokens.n_bytes + tokens.n_separators * tokenizer.separator_n_bytes)


def full_pass_starts(n_tokens: int, block_size: int) -> npt.NDArray[np.int64]:
    """Return the start positions of adjacent windows in which each token but the first is a target once.

    The last window may extend beyond the sequence: `EvalBatches` moves such a window back.
    """
    return np.arange(0, n_tokens - 1, block_size)


def spread_starts(n_tokens: int, block_size: int, n_windows: int) -> npt.NDArray[np.int64]:
    """Return the starts of `n_windows` windows spread evenly over a sequence."""
    return np.linspace(0, n_tokens - block_size - 1, n_windows).astype(np.int64)
