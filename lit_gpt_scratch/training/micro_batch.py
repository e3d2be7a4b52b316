"""The largest micro-batch that a GPU has room for."""

from collections.abc import Callable
from functools import partial

import torch
from lightning.pytorch import Trainer

from lit_gpt_scratch.model.gpt import GPT
from lit_gpt_scratch.training.loss import next_token_loss


def find_micro_batch(trainer: Trainer, gpt: GPT, n_rows: int) -> int:
    """Return the largest micro-batch of a GPU's share of a batch that fits into the memory of every GPU."""
    with trainer.precision_plugin.forward_context():
        size = largest_micro_batch(n_rows, partial(step_fits, gpt))
    return trainer.strategy.broadcast(size)


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


def step_fits(gpt: GPT, n_rows: int) -> bool:
    """Return whether a step of so many rows fits into GPU memory, beside AdamW's two numbers a weight."""
    parameters = list(gpt.parameters())
    idx = torch.zeros(n_rows, gpt.config.block_size, dtype=torch.int64, device=parameters[0].device)
    try:
        optimizer_state = [torch.empty_like(p) for p in parameters for _ in range(2)]
        next_token_loss(gpt, idx, idx).backward()
        del optimizer_state
    except torch.OutOfMemoryError:
        return False
    finally:
        for p in parameters:
            p.grad = None
        torch.cuda.empty_cache()
    return True
