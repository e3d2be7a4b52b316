"""When a run is evaluated."""

import math
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_gpt_scratch.training.parts import log_with_global_step


class EvaluationSchedule(Callback):
    """Evaluates every n optimizer steps and when the run ends, be it at max_steps, at max_time or early.

    Lightning asks `trainer.val_check_batch` after each batch whether to validate; setting it from the step
    alone keeps the answer right after any resume. The evaluation of step 0 is the Trainer's sanity check,
    which looks at less of the text where weights are still random.
    """

    def __init__(self, every_n_steps: int) -> None:
        """Remember the interval.

        Args:
            every_n_steps: Optimizer steps between evaluations.

        Raises:
            ValueError: The interval is not positive.
        """
        if every_n_steps < 1:
            raise ValueError(f"eval_every must be at least 1, not {every_n_steps}")
        self.every_n_steps = every_n_steps

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Number the step before the callbacks that come after this one log it."""
        log_with_global_step(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Say whether the step that has just ended is followed by an evaluation."""
        step = trainer.global_step
        due = step % self.every_n_steps == 0 or step == trainer.max_steps
        trainer.val_check_batch = 1 if due else math.inf


def evaluation_follows(trainer: Trainer) -> bool:
    """Whether an evaluation follows the step that has just ended."""
    return bool(trainer.enable_validation and (trainer.val_check_batch == 1 or trainer.should_stop))
