"""An end to a run that learns no more."""

import logging
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from lit_gpt_scratch.training.parts import is_training

log = logging.getLogger(__name__)


class ValLossEarlyStopping(EarlyStopping):
    """Ends a run whose validation loss no longer falls; `best.ckpt` has the model from before."""

    def __init__(self, patience: int = 5, min_delta: float = 0.0) -> None:
        """Remember how long to wait.

        Args:
            patience: Evaluations in a row without a better loss after which the run ends.
            min_delta: Nats by which a loss has to be below the best to be better.

        Raises:
            ValueError: patience is not positive, or min_delta negative.
        """
        if patience < 1:
            raise ValueError(f"early_stopping.patience must be at least 1, not {patience}")
        if not min_delta >= 0:
            raise ValueError(f"early_stopping.min_delta must not be negative, but is {min_delta}")
        super().__init__("val/loss", min_delta, patience, check_on_train_epoch_end=False)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare with the best evaluation, and say so if it ends the run."""
        super().on_validation_end(trainer, pl_module)
        if is_training(trainer) and self.wait_count >= self.patience and trainer.is_global_zero:
            log.warning(
                "early stopping: no validation loss of the last %s was better than %.4f",
                self.wait_count,
                self.best_score,
            )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best loss and the wait; how long to wait is an option."""
        super().load_state_dict({**state_dict, "patience": self.patience})
