"""Lightning's plugin for checkpoint files."""

from typing import Any

from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from lit_gpt_scratch.training.checkpoint import PATH, read_checkpoint, write_checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints atomically; read them as data only, whatever `weights_only` is."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: PATH, storage_options: Any = None) -> None:
        """Write a checkpoint."""
        write_checkpoint(checkpoint, path)

    def load_checkpoint(self, path: PATH, *_: Any, **__: Any) -> dict[str, Any]:
        """Return a checkpoint in CPU memory."""
        return read_checkpoint(path)
