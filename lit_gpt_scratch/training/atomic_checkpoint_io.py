"""Lightning's plugin for checkpoint files: they are written atomically and read as data only."""

from collections.abc import Callable
from typing import Any

from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from lit_gpt_scratch.training.checkpoint_io import PATH, read_checkpoint, write_checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint atomically; read it as data only."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: PATH, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            OSError: The file cannot be written; the one before stays.
        """
        try:
            write_checkpoint(checkpoint, path)
        except OSError as error:
            raise OSError(f"cannot write {path}: {error.strerror or error}") from error

    def load_checkpoint(
        self, path: PATH, map_location: Callable[..., Any] | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint, as data only, whatever `weights_only` is."""
        return read_checkpoint(path)
