"""Schedule the evaluations of a run."""

import math
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_gpt_scratch.training.trainer_state import log_with_global_step


class EvaluationSchedule(Callback):
    """Evaluate every n optimizer steps, and at the end of the run (max_steps, max_time, or an early stop).

    Lightning reads `trainer.val_check_batch` after each batch. This callback sets the attribute from the
    step number alone, so that resuming does not shift evaluations. The evaluation at step 0 is the Trainer's
    sanity check, which uses less text than later evaluations if the run starts from random weights.
    """

    def __init__(self, every_n_steps: int) -> None:
        self.every_n_steps = every_n_steps

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Make the callbacks after this one, and the module, log metrics at step `trainer.global_step`."""
        log_with_global_step(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Schedule an evaluation after this step if one is due."""
        step = trainer.global_step
        is_due = step % self.every_n_steps == 0 or step == trainer.max_steps
        trainer.val_check_batch = 1 if is_due else math.inf


def evaluation_follows(trainer: Trainer) -> bool:
    """Return whether an evaluation follows the optimizer step that has just ended."""
    return bool(trainer.enable_validation and (trainer.val_check_batch == 1 or trainer.should_stop))
