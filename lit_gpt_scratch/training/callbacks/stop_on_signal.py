"""Stop a run on a signal: Ctrl-C, SIGTERM, a closed terminal (SIGHUP), Slurm's warning (SIGUSR1)."""

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_gpt_scratch.training.parts import is_training

log = logging.getLogger(__name__)

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")  # Windows has the first two
SIGNALS = [signal.Signals[name] for name in NAMES if name in signal.Signals.__members__]


class StopOnSignal(Callback):
    """End a run after the step in which a signal arrives: it is evaluated and saved, and training ends.

    Of several devices, all stop after the same step, whichever of them got the signal. Before the first step,
    and on a second Ctrl-C, the program exits at once, with 128 and the number of the signal. Signals that the
    process ignores, as under nohup, stay ignored.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.has_begun = False

    @contextmanager
    def handling_signals(self) -> Iterator[None]:
        """Handle signals; the handlers from before are restored at the end."""
        before = {number: signal.getsignal(number) for number in SIGNALS}
        self._install()
        try:
            yield
        finally:
            for number, handler in before.items():
                if handler is not None:  # None: not installed from Python
                    signal.signal(number, handler)

    def _install(self) -> None:
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._handle)

    def _handle(self, number: int, _: Any) -> None:
        if not self.has_begun or (number == signal.SIGINT == self.received):
            sys.exit(128 + number)
        self.received = signal.Signals(number)
        if number == signal.SIGINT:
            log.warning("stopping after this step; press Ctrl-C again to stop at once")

    def exit_if_received(self) -> None:
        """Exit with 128 and the number of the signal that stopped the run, if one did."""
        if self.received is not None:
            sys.exit(128 + self.received)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle SIGTERM again: Lightning's own handler waits for a step, and for other devices."""
        self._install()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on, there is a step to wait for."""
        self._install()
        self.has_begun = True

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Stop after this step."""
        self._stop_if_received(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop after this evaluation."""
        if is_training(trainer):
            self._stop_if_received(trainer)

    def _stop_if_received(self, trainer: Trainer) -> None:
        if trainer.strategy.reduce_boolean_decision(self.received is not None, all=False):
            self.received = self.received or signal.SIGTERM  # another device got it
            trainer.fit_loop.epoch_loop.min_steps = None  # which would let the run go on
            trainer.should_stop = True
