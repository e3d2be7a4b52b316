"""Stop a run whose validation loss no longer decreases."""

import logging
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

log = logging.getLogger(__name__)


class ValLossEarlyStopping(EarlyStopping):
    """Stop a run after several evaluations without a lower validation loss; `best.ckpt` is kept."""

    def __init__(self, patience: int = 5, min_delta: float = 0.0) -> None:
        """Set the limits.

        Args:
            patience: Number of consecutive evaluations without a lower validation loss after which the run
                ends.
            min_delta: Difference, in nats per token, by which a validation loss must be below the lowest so
                far to count as lower.

        Raises:
            ValueError: patience is below 1, or min_delta is negative.
        """
        if patience < 1:
            raise ValueError(f"early_stopping.patience must be at least 1, not {patience}")
        if not min_delta >= 0:
            raise ValueError(f"early_stopping.min_delta must not be negative, but is {min_delta}")
        super().__init__("val/loss", min_delta, patience, check_on_train_epoch_end=False)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the validation loss; log a warning if the run stops early."""
        super().on_validation_end(trainer, pl_module)
        if trainer.should_stop and self.wait_count >= self.patience and trainer.is_global_zero:
            message = "early stopping: no validation loss of the last %s was better than %.4f"
            log.warning(message, self.wait_count, self.best_score)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the lowest loss and the number of evaluations since then; keep this run's `patience`."""
        super().load_state_dict({**state_dict, "patience": self.patience})
