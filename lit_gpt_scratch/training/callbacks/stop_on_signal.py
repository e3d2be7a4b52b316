"""Stop a run on a signal: Ctrl-C, SIGTERM, a closed terminal (SIGHUP), Slurm's warning (SIGUSR1)."""

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

log = logging.getLogger(__name__)

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")  # Windows has only the first two
SIGNALS = [signal.Signals[name] for name in NAMES if name in signal.Signals.__members__]


class StopOnSignal(Callback):
    """End training after the step in which a signal arrives; then evaluate and write a checkpoint.

    A signal to the process of one device stops the processes of all devices after the same step. If a signal
    arrives before the first step, or Ctrl-C is pressed a second time, the program exits at once, with exit
    code 128 plus the signal number. Signals that the process already ignores, as SIGHUP under nohup, stay
    ignored.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.has_begun = False

    @contextmanager
    def handling_signals(self) -> Iterator[None]:
        """Handle signals with this callback in the `with` block; then restore the previous handlers."""
        before = {number: signal.getsignal(number) for number in SIGNALS}
        self._install()
        try:
            yield
        finally:
            if threading.current_thread() is threading.main_thread():
                for number, handler in before.items():
                    if handler is not None:  # None: not installed from Python
                        signal.signal(number, handler)

    def _install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # Python allows handlers in the main thread alone
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
        """Exit with exit code 128 plus the signal number if a signal stopped the run."""
        if self.received is not None:
            sys.exit(128 + self.received)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace Lightning's SIGTERM handler, which would wait for a step's end and for other devices."""
        self._install()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install handlers that stop training at the end of a step, not at once."""
        self._install()
        self.has_begun = True

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Stop after this step if the process of any device received a signal."""
        if trainer.strategy.reduce_boolean_decision(self.received is not None, all=False):
            self.received = self.received or signal.SIGTERM  # the process of another device received it
            trainer.fit_loop.epoch_loop.min_steps = None  # min_steps would override should_stop
            trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop after this evaluation if the process of any device received a signal."""
        self.on_train_batch_end(trainer, pl_module)
