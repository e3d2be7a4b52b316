"""The last checkpoint of a run."""

import logging
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.optim import Optimizer

from lit_gpt_scratch.training.callbacks.evaluation_schedule import evaluation_follows
from lit_gpt_scratch.training.parts import is_training
from lit_gpt_scratch.training.saving import OnSaveError, SaveError, save

log = logging.getLogger(__name__)


class LastCheckpoint(Checkpoint):
    """Writes `last.ckpt` every n steps, after each evaluation, and when the run ends or is stopped.

    Where an evaluation follows a step, it is waited for: a resumed run would not make up for it.
    """

    def __init__(self, every_n_steps: int, on_save_error: OnSaveError = "retry") -> None:
        """Remember the interval.

        Args:
            every_n_steps: Optimizer steps between saves.
            on_save_error: What to do when a save fails.

        Raises:
            ValueError: The interval is not positive.
        """
        if every_n_steps < 1:
            raise ValueError(f"save_every must be at least 1, not {every_n_steps}")
        self.every_n_steps = every_n_steps
        self.on_save_error = on_save_error
        self.saved_step: int | None = None
        self.between_steps = False  # in the middle of one, weights and optimizer may not belong together

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on there is something to save."""
        self.saved_step = trainer.global_step
        self.between_steps = True

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """The weights are about to change."""
        self.between_steps = False

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Save every n-th step."""
        self.between_steps = True
        if trainer.global_step % self.every_n_steps == 0 and not evaluation_follows(trainer):
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what has just been evaluated."""
        if is_training(trainer):
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end of a run that ended without an evaluation, or whose last save failed."""
        if self.saved_step != trainer.global_step:
            self._save(trainer, "stop")  # there is no next save

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save a run that was stopped or that failed between two steps."""
        if not self.between_steps or self.saved_step == trainer.global_step:
            return
        if isinstance(exception, FloatingPointError | SaveError):  # worthless weights, or no room for them
            return
        if trainer.world_size > 1 and not isinstance(exception, SIGTERMException):
            return  # the other devices may not have failed, and would not join in the save
        try:
            self._save(trainer)
        except Exception as error:  # what stopped the run is what its owner should hear of first
            log.warning("step %s could not be saved: %s", trainer.global_step, error)

    def _save(self, trainer: Trainer, on_error: OnSaveError | None = None) -> None:
        for logger in trainer.loggers:  # first: a resumed run does not log again what comes before its step
            logger.save()
        if save(trainer, "last.ckpt", on_error or self.on_save_error):
            self.saved_step = trainer.global_step
