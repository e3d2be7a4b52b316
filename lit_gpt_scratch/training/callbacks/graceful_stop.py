"""Ctrl-C and SIGTERM."""

import logging
import signal
import sys
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_gpt_scratch.training.callbacks.evaluation_schedule import evaluation_follows
from lit_gpt_scratch.training.parts import is_training

log = logging.getLogger(__name__)


class GracefulStop(Callback):
    """Ends a run on Ctrl-C or SIGTERM between two steps, and never in the middle of an evaluation.

    Lightning hears of it, and raises SIGTERMException, once the step that is under way and the evaluation
    that belongs to it are over; `LastCheckpoint` then saves. A second Ctrl-C stops at once. Of several
    devices, all stop after the same step, whichever of them was asked.
    """

    def __init__(self) -> None:
        self.asked_by: signal.Signals | None = None
        self.before: dict[signal.Signals, Any] = {}  # the handlers that were there

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over both signals: Lightning's own handler lets devices wait for each other for ever."""
        if sys.platform != "win32":
            self.before = {
                number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)
            }

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Stop after a step that no evaluation follows."""
        if not evaluation_follows(trainer):
            self._stop_if_asked(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop after an evaluation."""
        if is_training(trainer):
            self._stop_if_asked(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the signals back."""
        self._give_back()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the signals back."""
        self._give_back()

    def _ask(self, number: int, _: Any) -> None:
        self.asked_by = signal.Signals(number)
        if self.asked_by == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            log.warning("stopping after this step; press Ctrl-C again to stop at once")

    def _stop_if_asked(self, trainer: Trainer) -> None:
        asked = trainer.strategy.reduce_boolean_decision(self.asked_by is not None, all=False)
        at_the_end = trainer.should_stop or trainer.global_step == trainer.max_steps
        if asked and not at_the_end:
            trainer._signal_connector.received_sigterm = True

    def _give_back(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}
