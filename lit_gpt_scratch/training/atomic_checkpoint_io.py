"""Lightning's plugin for checkpoint files; tools import `checkpoint.py` without Lightning."""

from typing import Any

from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from lit_gpt_scratch.training.checkpoint import StrPath, read_checkpoint, write_checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints atomically, and read them as data only, whatever `weights_only` Lightning passes."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: StrPath, storage_options: Any = None) -> None:
        """Write a checkpoint atomically."""
        write_checkpoint(checkpoint, path)

    def load_checkpoint(self, path: StrPath, *_: Any, **__: Any) -> dict[str, Any]:
        """Return a checkpoint, with its tensors in CPU memory."""
        return read_checkpoint(path)
