"""Gradient clipping, and the gradient's norm."""

from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.nn.utils import clip_grads_with_norm_
from torch.optim import Optimizer

from lit_gpt_scratch.training.event_logger import log_scalars
from lit_gpt_scratch.training.gradients import gradient_norm, trained_parameters
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

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Clip between the backward pass and the optimizer's step."""
        norm = gradient_norm(pl_module, optimizer)
        if self.max_norm is not None:
            clip_grads_with_norm_(trained_parameters(optimizer), self.max_norm, norm)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Log the norm of every n-th step."""
        if is_log_step(trainer):
            log_scalars(trainer, {"train/grad_norm": float(cast(Any, pl_module).grad_norm)})
