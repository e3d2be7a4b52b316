"""Ctrl-C and SIGTERM."""

import logging
import signal
import sys
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

log = logging.getLogger(__name__)


class GracefulStop(Callback):
    """Lets Ctrl-C end a run as SIGTERM does: after the step that is under way. A second Ctrl-C stops at once.

    Lightning raises SIGTERMException between two steps, upon which `LastCheckpoint` saves.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self.previous: Any = None  # the handler that Ctrl-C had

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over Ctrl-C, where Lightning listens for SIGTERM."""
        if sys.platform == "win32":
            return
        self.previous = signal.signal(signal.SIGINT, self._interrupt)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give Ctrl-C back."""
        self._give_back()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give Ctrl-C back."""
        self._give_back()

    def _give_back(self) -> None:
        if self.previous is not None:
            signal.signal(signal.SIGINT, self.previous)
            self.previous = None

    def _interrupt(self, *_: Any) -> None:
        self.interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        log.warning("stopping after this step; press Ctrl-C again to stop at once")
        signal.raise_signal(signal.SIGTERM)
