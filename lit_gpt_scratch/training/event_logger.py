"""TensorBoard's event files."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

log = logging.getLogger(__name__)

EVENT_FILES = "events.out.tfevents.*"


class EventLogger(TensorBoardLogger):
    """Lightning's TensorBoard logger without its `hparams.yaml`: a run folder has `config.yaml`.

    A disk without room costs the points of that time, and not the run: each save tries a new file.
    """

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        """Write to a run folder.

        Args:
            folder: The run folder.
            purge_step: Of an interrupted run, TensorBoard forgets this step and all later ones.
        """
        if purge_step is not None:
            _let_a_second_pass(folder)
        options: dict[str, Any] = {"default_hp_metric": False, "purge_step": purge_step}
        super().__init__(folder, name="", version="", **options)
        self.folder = folder
        self.is_broken = False
        threading.excepthook = _leave_errors_to_the_run

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write scalars."""

        def add_all() -> None:
            for name, value in metrics.items():
                self.experiment.add_scalar(name, value, step)

        self._write(add_all)

    @rank_zero_only
    def log_text(self, tag: str, text: str, step: int) -> None:
        """Write Markdown to the text tab."""
        self._write(lambda: self.experiment.add_text(tag, text, step))

    @rank_zero_only
    def save(self) -> None:
        """Write out what is buffered."""
        self.is_broken = False
        self._write(lambda: self.experiment.flush())

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the file."""
        self._write(lambda: self.experiment.close())

    def _write(self, what: Callable[[], Any]) -> None:
        if self.is_broken:
            return
        try:
            what()
        except OSError as error:
            log.warning(
                "TensorBoard's data could not be written: %s; the next save tries again",
                error.strerror or error,
            )
            self.is_broken = True
            self._experiment = None  # the next one begins a new file: this one may end in half a record
            self._kwargs["purge_step"] = None
            for path in self.folder.glob(EVENT_FILES):
                if not path.stat().st_size:
                    path.unlink()


def log_text(trainer: Trainer, tag: str, text: str) -> None:
    """Write Markdown to the text tab of each TensorBoard that the run has."""
    for logger in trainer.loggers:
        if isinstance(logger, EventLogger):
            logger.log_text(tag, text, trainer.global_step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text(tag, text, trainer.global_step)


def _leave_errors_to_the_run(failed: threading.ExceptHookArgs) -> None:
    """The thread that writes events hands its error over at the next event, and need not print it as well."""
    if not isinstance(failed.exc_value, OSError):
        threading.__excepthook__(failed)


def _let_a_second_pass(folder: Path) -> None:
    """Event files are read in the order of their names, which begin with the second of their making."""
    seconds = [path.name.split(".")[3] for path in folder.glob(EVENT_FILES)]
    newest = max((int(second) for second in seconds if second.isdecimal()), default=0)
    while 0 <= newest - int(time.time()) <= 1:  # a clock that was set back is not waited for
        time.sleep(0.05)
