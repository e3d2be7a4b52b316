"""Block windows of a token sequence: random ones to train on, fixed ones to evaluate on."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lit_gpt_scratch.data.tokenizer import TokenArray

IGNORE = -100  # cross_entropy's ignore_index: a target that is not counted

Batch = tuple[Tensor, Tensor]  # inputs and targets, each (B, T) int64


def random_starts(
    n_tokens: int, block_size: int, batch_size: int, seed: int, step: int
) -> npt.NDArray[np.int64]:
    """Where the windows of a training step begin: uniform, and a pure function of (seed, step).

    Returns:
        (batch_size,) of positions 0 .. n_tokens - block_size - 1, so that each window has its shifted target.
    """
    return np.random.default_rng((seed, step)).integers(n_tokens - block_size, size=batch_size)


def gather(tokens: TokenArray, starts: npt.NDArray[np.int64], block_size: int) -> Batch:
    """The windows at `starts` and their targets, one token on, in one indexing operation; each (B, T)."""
    windows = np.lib.stride_tricks.sliding_window_view(tokens, block_size + 1)[starts]  # (B, T + 1)
    ids = torch.from_numpy(windows.astype(np.int64))
    return ids[:, :-1], ids[:, 1:]


class TrainBatches:
    """The batches of a training run, one item an optimizer step.

    An item is the list of micro-batches that make up this rank's share of the step's global batch. Iteration
    begins at `first_step` while the length counts from step 0: that is how a resumed Trainer counts.
    """

    def __init__(
        self,
        tokens: TokenArray,
        block_size: int,
        batch_size: int,
        micro_batch_size: int,
        seed: int,
        first_step: int,
        n_steps: int,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool = False,
    ) -> None:
        self.tokens = tokens
        self.block_size = block_size
        self.batch_size = batch_size
        self.pin_memory = pin_memory  # a GPU fetches from pinned memory while the program goes on
        self.micro_batch_size = micro_batch_size
        self.seed = seed
        self.first_step = first_step
        self.n_steps = n_steps
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return self.n_steps

    def __iter__(self) -> Iterator[list[Batch]]:
        for step in range(self.first_step, self.n_steps):
            yield self.micro_batches(step)

    def micro_batches(self, step: int) -> list[Batch]:
        """This rank's micro-batches of one step; over all ranks they are its global batch, row for row."""
        starts = random_starts(len(self.tokens), self.block_size, self.batch_size, self.seed, step)
        own = np.array_split(starts, self.world_size)[self.rank]
        cuts = range(self.micro_batch_size, len(own), self.micro_batch_size)
        batches = [gather(self.tokens, rows, self.block_size) for rows in np.split(own, list(cuts))]
        return [(x.pin_memory(), y.pin_memory()) for x, y in batches] if self.pin_memory else batches


class EvalBatches:
    """Fixed windows in fixed order, shared out over the ranks."""

    def __init__(
        self,
        tokens: TokenArray,
        starts: npt.NDArray[np.int64],
        block_size: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.tokens = tokens
        self.starts = starts[rank::world_size]
        self.block_size = block_size
        # The same on all ranks, which may have to put the model's weights together for each.
        most, fewest = -(-len(starts) // world_size), len(starts) // world_size
        self.n_batches = min(-(-most // batch_size), fewest)

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[Batch]:
        for starts in np.array_split(self.starts, self.n_batches):
            # A full pass's last window is moved back to fit; what the one before it has counted is masked.
            last = len(self.tokens) - self.block_size - 1
            inputs, targets = gather(self.tokens, np.minimum(starts, last), self.block_size)
            if starts[-1] > last:
                targets = targets.clone()
                targets[-1, : starts[-1] - last] = IGNORE
            yield inputs, targets


def full_pass_starts(n_tokens: int, block_size: int) -> npt.NDArray[np.int64]:
    """Windows side by side over a whole sequence, so that every token but the first is a target once."""
    return np.arange(0, n_tokens - 1, block_size)


def spread_starts(n_tokens: int, block_size: int, n_windows: int) -> npt.NDArray[np.int64]:
    """`n_windows` windows spread evenly over a sequence."""
    return np.linspace(0, n_tokens - block_size - 1, n_windows).astype(np.int64)
