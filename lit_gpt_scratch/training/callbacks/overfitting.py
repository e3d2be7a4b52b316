"""When a model begins to learn its text by heart."""

import logging
import math
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_gpt_scratch.training.parts import begins_anew, is_training

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
        self._begin()

    def _begin(self) -> None:
        self.best: dict[str, float] = {"val/loss": math.inf}  # the best evaluation so far
        self.n_worse = 0
        self.is_said = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget another run, from whose checkpoint this one begins."""
        if begins_anew(trainer):
            self._begin()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare with the best evaluation."""
        if not is_training(trainer):
            return
        now = cast(dict[str, float], pl_module.evaluation)
        if now["val/loss"] < self.best["val/loss"]:
            self._begin()
            self.best = dict(now)
            return
        self.n_worse += 1
        is_better_known = now["train/eval_loss"] < self.best["train/eval_loss"]
        if self.n_worse >= self.patience and is_better_known and not self.is_said:
            self.is_said = True
            log.warning(
                "overfitting: since step %s the validation loss has risen from %.3f to %.3f, while the "
                "training loss fell from %.3f to %.3f; best.ckpt keeps the best model, "
                "--callbacks.early_stopping true ends such a run, and more text, more dropout or fewer steps "
                "would help",
                self.best["step"],
                self.best["val/loss"],
                now["val/loss"],
                self.best["train/eval_loss"],
                now["train/eval_loss"],
            )

    def state_dict(self) -> dict[str, Any]:
        """The best evaluation, how many worse ones have followed it, and whether that was said."""
        return {"best": self.best, "n_worse": self.n_worse, "is_said": self.is_said}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them up."""
        self.best, self.n_worse = state_dict["best"], state_dict["n_worse"]
        self.is_said = state_dict["is_said"]
