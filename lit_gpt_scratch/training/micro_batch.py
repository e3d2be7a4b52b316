"""Search for the largest micro-batch that fits into GPU memory."""

from collections.abc import Callable
from functools import partial

import torch
from lightning.pytorch import Trainer

from lit_gpt_scratch.model.gpt import GPT
from lit_gpt_scratch.training.loss import next_token_loss


def find_micro_batch(trainer: Trainer, gpt: GPT, n_rows: int) -> int:
    """Return the largest micro-batch size in rows that fits into every GPU's memory.

    `largest_micro_batch` tries the sizes, starting with `n_rows`, the number of rows per GPU in a step.
    """
    with trainer.precision_plugin.forward_context():
        size = largest_micro_batch(n_rows, partial(step_fits, gpt))
    smallest = trainer.strategy.reduce(
        torch.tensor(size, device=trainer.strategy.root_device), reduce_op="min"
    )
    return int(smallest)


def largest_micro_batch(n_rows: int, fits: Callable[[int], bool]) -> int:
    """Return the first of n_rows, n_rows / 2, n_rows / 4, ... (rounded up) for which `fits` returns True.

    Raises:
        ValueError: One row does not fit.
    """
    size = n_rows
    while not fits(size):
        if size == 1:
            raise ValueError(
                "one sequence alone does not fit into the GPU's memory: choose a smaller model or "
                "model.block_size, or set model.activation_checkpointing"
            )
        size = -(-size // 2)
    return size


def step_fits(gpt: GPT, n_rows: int) -> bool:
    """Return whether a step with `n_rows` rows and AdamW's two moments per weight fit into GPU memory."""
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
