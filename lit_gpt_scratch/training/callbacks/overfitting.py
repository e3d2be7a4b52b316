"""When a model begins to learn its text by heart."""

import logging
import math
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_gpt_scratch.training.parts import is_training

log = logging.getLogger(__name__)


class Overfitting(Callback):
    """Says in one line that the validation loss rises while the training loss falls."""

    def __init__(self, patience: int = 3) -> None:
        """Remember how long to wait.

        Args:
            patience: Evaluations in a row that must be worse than the best before it is said.

        Raises:
            ValueError: patience is not positive.
        """
        if patience < 1:
            raise ValueError(f"overfitting.patience must be at least 1, not {patience}")
        self.patience = patience
        self.best: dict[str, float] = {"val/loss": math.inf}  # the best evaluation so far
        self.n_worse = 0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare with the best evaluation."""
        if not is_training(trainer):
            return
        now = cast(dict[str, float], pl_module.evaluation)
        if now["val/loss"] < self.best["val/loss"]:
            self.best, self.n_worse = dict(now), 0
            return
        self.n_worse += 1
        if self.n_worse == self.patience and now["train/eval_loss"] < self.best["train/eval_loss"]:
            log.warning(
                "overfitting: since step %s the validation loss has risen from %.3f to %.3f, while the "
                "training loss fell from %.3f to %.3f; best.ckpt keeps the best model, and more text, more "
                "dropout or fewer steps would help",
                self.best["step"],
                self.best["val/loss"],
                now["val/loss"],
                self.best["train/eval_loss"],
                now["train/eval_loss"],
            )

    def state_dict(self) -> dict[str, Any]:
        """The best evaluation, and how many worse ones have followed it."""
        return {"best": self.best, "n_worse": self.n_worse}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them up."""
        self.best, self.n_worse = state_dict["best"], state_dict["n_worse"]
