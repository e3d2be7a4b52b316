"""Checkpoints on disk: found, read as data only, written whole or not at all."""

import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

PATH = str | os.PathLike[str]
# What torch.load raises for a file that is none of its own, or holds objects.
NOT_DATA = (
    OSError,
    RuntimeError,
    pickle.UnpicklingError,
    EOFError,
    KeyError,
    AttributeError,
    TypeError,
)
PARTS = {"state_dict", "hyper_parameters", "datamodule_hyper_parameters", "TextDataModule", "global_step"}


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, syncs, renames: a kill leaves the old file or the new one, whole."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: PATH, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint; an error (disk full, no permission) is raised and the old file stays."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.part")  # what a kill leaves, the next save overwrites
        try:
            with beside.open("wb") as stream:
                torch.save(checkpoint, stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(beside, target)
        except RuntimeError as error:  # of torch.save, whose real reason stands behind it
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None
        finally:
            beside.unlink(missing_ok=True)

    def load_checkpoint(
        self, path: PATH, map_location: Callable[..., Any] | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint, as data only, whatever `weights_only` says."""
        return read_checkpoint(path)


def find_checkpoint(path: PATH) -> Path:
    """The checkpoint that a path means: the file itself, or a run folder's best, else its last.

    Raises:
        ValueError: There is no such file or folder, or no checkpoint in the folder.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return path
    if not path.is_dir():
        raise ValueError(f"no such checkpoint: {path}")
    for name in ("best.ckpt", "last.ckpt"):
        if (path / name).is_file():
            return path / name
    raise ValueError(f"the folder {path} has neither best.ckpt nor last.ckpt")


def read_checkpoint(path: PATH, mmap: bool = False) -> dict[str, Any]:
    """Read a checkpoint into CPU memory; nothing in it is executed.

    Args:
        path: The file.
        mmap: Leave the tensors in the file until they are looked at.

    Raises:
        ValueError: The file is damaged, holds more than data, or is not a checkpoint of this program.
    """
    try:
        with warnings.catch_warnings():  # of an old pickle protocol: such a file is refused right after
            warnings.simplefilter("ignore")
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise ValueError(f"cannot read the checkpoint {path}: {error.strerror}") from error
    except NOT_DATA as error:
        raise ValueError(f"{path} is damaged, or not a checkpoint of this program") from error
    parts = checkpoint.keys() if isinstance(checkpoint, dict) else set()
    if not parts >= PARTS or not checkpoint["TextDataModule"].keys() >= {"tokenizer", "corpus"}:
        raise ValueError(f"{path} is not a checkpoint of this program")
    return checkpoint
