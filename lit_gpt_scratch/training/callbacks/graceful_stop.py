"""Stop on a signal: Ctrl-C, SIGTERM, a closed terminal (SIGHUP) and Slurm's warning (SIGUSR1)."""

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_gpt_scratch.training.callbacks.evaluation_schedule import evaluation_follows
from lit_gpt_scratch.training.parts import is_training

log = logging.getLogger(__name__)


NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
SIGNALS = [signal.Signals[name] for name in NAMES if name in signal.Signals.__members__]  # Windows has two


class GracefulStop(Callback):
    """Ends a run on a signal between two steps, and never in the middle of an evaluation.

    Lightning hears of it, and raises SIGTERMException, once the step that is under way and the evaluation
    that belongs to it are over; `LastCheckpoint` then saves. A second Ctrl-C stops at once. Of several
    devices, all stop after the same step, whichever of them was asked. Before the first step there is nothing
    to save: a signal ends the program there and then.
    """

    def __init__(self) -> None:
        self.asked_by: signal.Signals | None = None
        self.before: dict[signal.Signals, Any] = {}  # the handlers that were there
        self.alarm: socket.socket | None = None  # what a signal is written to before the first step

    def watch_over_start(self, trainer: Trainer, clean_up: Callable[[], None]) -> None:
        """Take over the signals until there is a step to save; one that is ignored, as by nohup, stays so.

        A thread of its own waits for them: the main one may be waiting for other devices, deaf to signals.
        Lightning's own handlers, which let devices wait for each other for ever, are left out.

        Args:
            trainer: What is about to run.
            clean_up: What to do before the program ends.
        """
        if sys.platform == "win32":
            return
        cast(Any, trainer._signal_connector).register_signal_handlers = lambda: None
        listener, self.alarm = socket.socketpair()
        self.alarm.setblocking(False)
        signal.set_wakeup_fd(self.alarm.fileno())
        self.before = {number: signal.signal(number, _leave_to_thread) for number in not_ignored()}
        threading.Thread(target=_leave, args=(listener, trainer, clean_up), daemon=True).start()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on a signal is a wish to stop."""
        if sys.platform != "win32":
            for number in not_ignored():
                self.before.setdefault(number, signal.signal(number, self._ask))
            self._end_watch()

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

    def _end_watch(self) -> None:
        if self.alarm is not None:
            signal.set_wakeup_fd(-1)
            self.alarm.close()
            self.alarm = None

    def _give_back(self) -> None:
        self._end_watch()
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}


def not_ignored() -> list[signal.Signals]:
    """Return the signals that stop a run, but for those that this process ignores."""
    return [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]


def _leave_to_thread(number: int, _: Any) -> None:
    """Nothing: the number has been written to the alarm before Python hears of it."""


def _leave(listener: socket.socket, trainer: Trainer, clean_up: Callable[[], None]) -> None:
    """Wait for a signal, and end the program, with the processes of other devices that it has started."""
    with listener:
        if not (number := listener.recv(1)):
            return  # training has begun
    for process in getattr(trainer.strategy.launcher, "procs", []):
        process.kill()
    clean_up()
    os._exit(128 + number[0])
