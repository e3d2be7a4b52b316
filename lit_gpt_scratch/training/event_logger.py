"""TensorBoard's event files."""

import logging
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard import FileWriter, SummaryWriter
from torch.utils.tensorboard.summary import custom_scalars, hparams

log = logging.getLogger(__name__)

EVENT_FILES = "events.out.tfevents.*"
SETTINGS = "events.out.tfevents.0.settings"
VS_TOKENS = "vs_tokens"
# What learning curves are compared by, where a step is not the same in each of the runs.
OVER_TOKENS = {
    name: f"{VS_TOKENS}/{name.replace('/', '_')}"
    for name in ("train/loss", "train/eval_loss", "val/loss", "val/perplexity", "val/bits_per_byte")
}
FINAL = ("val/loss", "val/perplexity", "val/bits_per_byte", "val/gap", "throughput/tokens_per_second")
TOGETHER = {  # charts of TensorBoard's custom scalars: what says something only beside the others
    "learning": {
        "loss: the gap is overfitting": ["Multiline", ["train/loss", "train/eval_loss", "val/loss"]],
    }
}


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

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Nothing: the callback RunConfig writes them."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write scalars."""

        def add_all(file: SummaryWriter) -> None:
            for name, value in metrics.items():
                file.add_scalar(name, value, step)

        self.write(add_all)

    def save(self) -> None:
        """Write out what is buffered."""
        self.is_broken = False
        self.write(SummaryWriter.flush)

    def finalize(self, status: str) -> None:
        """Close the file."""
        self.write(SummaryWriter.close)

    @rank_zero_only
    def write(self, what: Callable[[SummaryWriter], Any]) -> None:
        """Write to the open file, unless the disk has refused since the last save."""
        if self.is_broken:
            return
        try:
            what(self.experiment)
        except OSError as error:
            log.warning(
                "TensorBoard's data could not be written to %s: %s; the next save tries again",
                self.folder,
                error.strerror or error,
            )
            self.is_broken = True
            self._experiment = None  # the next one begins a new file: this one may end in half a record
            self._kwargs["purge_step"] = None
            for path in self.folder.glob(EVENT_FILES):
                if not path.stat().st_size:
                    path.unlink()


class TokenLogger(EventLogger):
    """The losses once more, against the tokens that the run has read.

    In a folder of its own: what a resumed run has TensorBoard forget, it forgets of a whole folder, by one
    count.
    """

    def __init__(self, run_dir: Path, purge_tokens: int | None) -> None:
        """Write to a run folder's own folder.

        Args:
            run_dir: The run folder.
            purge_tokens: Of an interrupted run, TensorBoard forgets what came with so many tokens or more.
        """
        super().__init__(run_dir / VS_TOKENS, purge_tokens)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write those that are worth a second axis; the step is a number of tokens."""
        super().log_metrics(
            {OVER_TOKENS[name]: metrics[name] for name in OVER_TOKENS if name in metrics}, step
        )


def run_loggers(run_dir: Path, resumed: dict[str, Any] | None) -> list[TensorBoardLogger]:
    """The loggers of a run.

    Args:
        run_dir: The run folder.
        resumed: The checkpoint of the same run that it goes on from.
    """
    next_step = None if resumed is None else resumed["global_step"] + 1
    next_tokens = None if resumed is None else resumed["n_tokens"] + 1
    return [EventLogger(run_dir, next_step), TokenLogger(run_dir, next_tokens)]


def step_loggers(trainer: Trainer) -> list[TensorBoardLogger]:
    """Each TensorBoard that the run has, against optimizer steps."""
    return [
        logger
        for logger in trainer.loggers
        if isinstance(logger, TensorBoardLogger) and not isinstance(logger, TokenLogger)
    ]


def log_scalars(trainer: Trainer, scalars: dict[str, float], step: int | None = None) -> None:
    """Write scalars to every logger of the run, against optimizer steps or, for one of them, tokens."""
    step = trainer.global_step if step is None else step
    n_tokens = cast(Any, trainer.lightning_module).n_tokens
    for logger in trainer.loggers:
        logger.log_metrics(scalars, n_tokens if isinstance(logger, TokenLogger) else step)


def write_events(trainer: Trainer, what: Callable[[SummaryWriter], Any]) -> None:
    """Write more than numbers, such as text and pictures, to each TensorBoard that the run has."""
    for logger in step_loggers(trainer):
        if isinstance(logger, EventLogger):
            logger.write(what)
        elif trainer.is_global_zero:
            what(logger.experiment)


def settings_file(settings: Mapping[str, str | float]) -> bytes:
    """A run's line of TensorBoard's table of runs: settings, and of which scalars the last values.

    As a file of its own, which a resumed run replaces: of two such records, TensorBoard shows the first. By
    its name it is read first: at the end of the last file, TensorBoard waits for more.
    """
    experiment, session, _ = hparams(dict(settings), dict.fromkeys(FINAL, 0.0))
    with tempfile.TemporaryDirectory() as folder:
        file = FileWriter(folder)
        for summary in (experiment, session, custom_scalars(TOGETHER)):
            file.add_summary(summary)
        file.close()
        (written,) = Path(folder).iterdir()
        return written.read_bytes()


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
