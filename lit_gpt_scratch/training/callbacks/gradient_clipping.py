"""Gradient clipping, and the gradient's norm."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, get_total_norm
from torch.optim import Optimizer

from lit_gpt_scratch.training.metrics import log_scalars
from lit_gpt_scratch.training.parts import is_log_step


class GradientClipping(Callback):
    """Scales the gradient down to a largest norm, and logs the one that it had (`train/grad_norm`)."""

    def __init__(self, max_norm: float | None = 1.0) -> None:
        """Remember the norm.

        Args:
            max_norm: Largest L2 norm of the gradient over all parameters; null only logs it.

        Raises:
            ValueError: The norm is not positive.
        """
        if max_norm is not None and max_norm <= 0:
            raise ValueError(
                f"gradient_clipping.max_norm must be above 0, not {max_norm}; null turns clipping off"
            )
        self.max_norm = max_norm
        self.norm: Tensor | None = None

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Clip between the backward pass and the optimizer's step."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if self.max_norm is not None:
            self.norm = clip_grad_norm_(parameters, self.max_norm)
        else:
            self.norm = get_total_norm([p.grad for p in parameters if p.grad is not None])

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Log the norm of every n-th step."""
        if is_log_step(trainer) and isinstance(self.norm, torch.Tensor):
            log_scalars(trainer, {"train/grad_norm": self.norm.item()})
