"""The learning rate."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_gpt_scratch.training.event_logger import log_scalars
from lit_gpt_scratch.training.parts import is_log_step


class LearningRate(Callback):
    """Logs the learning rate that a step was taken with (`train/learning_rate`)."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Log every n-th step's."""
        if is_log_step(trainer):
            log_scalars(trainer, {"train/learning_rate": trainer.optimizers[0].param_groups[0]["lr"]})
