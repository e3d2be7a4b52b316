"""Checkpoints on disk: found, read as data only, written whole or not at all."""

import os
import pickle
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from lit_gpt_scratch.atomic_write import atomic_write

PATH = str | os.PathLike[str]
# Which checkpoint of a run folder is used: training goes on from the last, all else takes the best.
BEST_FIRST = ("best.ckpt", "last.ckpt")
LAST_FIRST = ("last.ckpt", "best.ckpt")
# What torch.load raises for a file that is none of its own, or holds objects.
NOT_DATA = (
    OSError,
    RuntimeError,
    pickle.UnpicklingError,
    EOFError,
    KeyError,
    AttributeError,
    TypeError,
    zipfile.BadZipFile,
)
LONGEST_BLOCK = 2**20  # tokens; nothing in the weights of a model with rotary positions tells how long it is
PARTS = {
    *("state_dict", "hyper_parameters", "datamodule_hyper_parameters", "TextDataModule"),
    *("global_step", "n_tokens", "evaluation", "best_evaluation"),
}


def write_checkpoint(checkpoint: dict[str, Any], path: PATH) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        OSError: The disk is full, or the folder must not be written; the old file stays.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_write(Path(path)) as stream:
            torch.save(checkpoint, stream)
    except RuntimeError as error:  # of torch.save, whose real reason stands behind it
        raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def find_checkpoint(path: PATH, names: tuple[str, ...] = BEST_FIRST) -> Path:
    """Return the checkpoint that a path means: the file itself, or the first of `names` in a run folder.

    Raises:
        ValueError: There is no such file or folder, or no checkpoint in the folder.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return path
    if not path.is_dir():
        raise ValueError(f"no such checkpoint: {path}")
    for name in names:
        if (path / name).is_file():
            return path / name
    raise ValueError(f"the folder {path} has neither best.ckpt nor last.ckpt")


def read_checkpoint(path: PATH, mmap: bool = False) -> dict[str, Any]:
    """Read a checkpoint into CPU memory; nothing in it is executed.

    Args:
        path: The file.
        mmap: Leave the tensors in the file until they are looked at, and their checksums unread.

    Raises:
        ValueError: The file is damaged, holds more than data, or is not a checkpoint of this program.
    """
    try:
        with warnings.catch_warnings():  # of an old pickle protocol: such a file is refused right after
            warnings.simplefilter("ignore")
            _check_sums(path, with_tensors=not mmap)
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise ValueError(f"cannot read the checkpoint {path}: {error.strerror}") from error
    except NOT_DATA as error:
        raise ValueError(f"{path} is damaged, or not a checkpoint of this program") from error
    parts = checkpoint.keys() if isinstance(checkpoint, dict) else set()
    if not parts >= PARTS or not checkpoint["TextDataModule"].keys() >= {"tokenizer", "corpus"}:
        raise ValueError(f"{path} is not a checkpoint of this program")
    if not all(map(_fits_its_storage, _tensors(checkpoint))) or not _settings_fit_weights(checkpoint):
        raise ValueError(f"{path} is damaged: its sizes do not fit each other")
    return checkpoint


def _check_sums(path: PATH, with_tensors: bool) -> None:
    """Read a checkpoint's CRC-32 sums again, which torch.load does not do.

    Raises:
        BadZipFile: A part is not what was written, or not in torch's way.
    """
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED:  # a small file may not become a large one
                raise zipfile.BadZipFile(f"{entry.filename} is compressed")
            if with_tensors or "/data/" not in entry.filename:
                with archive.open(entry) as part:
                    while part.read(2**20):
                        pass


def _tensors(part: Any) -> Iterator[torch.Tensor]:
    """All tensors in builtins within builtins."""
    if isinstance(part, torch.Tensor):
        yield part
    elif isinstance(part, dict | list | tuple):
        for inner in part.values() if isinstance(part, dict) else part:
            yield from _tensors(inner)


def _fits_its_storage(tensor: torch.Tensor) -> bool:
    """Whether it has as many elements as it says: with a stride of 0, one would do for any number."""
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _settings_fit_weights(checkpoint: dict[str, Any]) -> bool:
    """Whether a model of these settings has the size of these weights: it is built before they are taken."""
    settings, weights = checkpoint["hyper_parameters"], checkpoint["state_dict"]
    blocks = {name.split(".")[2] for name in weights if name.startswith("gpt.h.")}
    sizes = {"n_layer": len(blocks)}
    for name, table in (("vocab_size", "gpt.wte.weight"), ("block_size", "gpt.wpe.weight")):
        if table in weights:
            sizes |= {name: len(weights[table]), "n_embd": weights[table].shape[-1]}
    longest = settings.get("block_size", LONGEST_BLOCK + 1) <= LONGEST_BLOCK
    return longest and all(settings.get(name) == size for name, size in sizes.items())
