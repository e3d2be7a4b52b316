"""The largest micro-batch that a GPU has room for."""

from collections.abc import Callable

import torch
from torch import nn


def largest_micro_batch(n_rows: int, takes: Callable[[int], bool]) -> int:
    """Halve the micro-batch until it fits, so that as few as possible make up a step.

    Args:
        n_rows: Rows of a step on this device.
        takes: Whether a micro-batch of so many rows fits.

    Raises:
        ValueError: Not even one row fits.
    """
    size = n_rows
    while not takes(size):
        if size == 1:
            raise ValueError(
                "one sequence alone does not fit into the GPU's memory: choose a smaller model or "
                "model.block_size, or set model.activation_checkpointing"
            )
        size = -(-size // 2)
    return size


def fits(step: Callable[[], None], parameters: list[nn.Parameter]) -> bool:
    """Try a step's forward and backward pass, beside room for an optimizer's two numbers a parameter."""
    try:
        room = [torch.empty_like(p) for p in parameters for _ in range(2)]
        step()
        del room
    except torch.OutOfMemoryError:
        return False
    finally:
        for p in parameters:
            p.grad = None
        torch.cuda.empty_cache()
    return True
