"""What a run writes while it goes on: nothing that cannot be written ends it, unless its owner says so."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Trainer

from lit_gpt_scratch.training.checkpoint_io import PATH, read_checkpoint, write_checkpoint

log = logging.getLogger(__name__)

OnSaveError = Literal["retry", "stop"]


class SaveError(Exception):
    """A checkpoint could not be written."""


class RunCheckpointIO(TorchCheckpointIO):
    """Reads and writes this program's checkpoints.

    It keeps an error until all devices are there to hear of it: the one that writes must not leave them.
    """

    error: str | None = None  # of the last save

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: PATH, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint, or keep the old file and the reason."""
        self.error = None
        try:
            write_checkpoint(checkpoint, path)
        except OSError as error:
            self.error = error.strerror or str(error)

    def load_checkpoint(
        self, path: PATH, map_location: Callable[..., Any] | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint, as data only, whatever `weights_only` says."""
        return read_checkpoint(path)


def save(trainer: Trainer, name: str, on_error: OnSaveError) -> bool:
    """Write a checkpoint to the run folder.

    Returns:
        Whether it is written; if not, the file of that name is what it was, and that has been said.

    Raises:
        SaveError: It is not written, and the run is to stop then.
    """
    io = trainer.strategy.checkpoint_io
    assert isinstance(io, RunCheckpointIO)
    trainer.save_checkpoint(Path(trainer.default_root_dir) / name)
    error = trainer.strategy.broadcast(io.error)
    if error is None:
        return True
    message = f"{name} of step {trainer.global_step} could not be written: {error}"
    if on_error == "stop":
        raise SaveError(message)
    log.warning("%s; the one before stays, and the next save tries again", message)
    return False


@contextmanager
def dispensable(name: str) -> Iterator[None]:
    """Let a run go on without a file of it, and say so."""
    try:
        yield
    except OSError as error:
        log.warning("%s could not be written: %s; the run goes on without", name, error.strerror or error)
