"""Checkpoint files: find them, read them as data only, write them atomically."""

import os
import pickle
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from lit_gpt_scratch.data.atomic_write import atomic_write

StrPath = str | os.PathLike[str]
# Checkpoints of a run folder by preference: training continues from the last, other commands use the best.
BEST_FIRST = ("best.ckpt", "last.ckpt")
LAST_FIRST = ("last.ckpt", "best.ckpt")
# Errors of torch.load for a file that is damaged, has another format, or holds objects other than data.
LOAD_ERRORS = (
    *(OSError, RuntimeError, EOFError, KeyError, AttributeError, TypeError),
    *(pickle.UnpicklingError, zipfile.BadZipFile),
)
MAX_BLOCK_SIZE = 2**20  # tokens; with rotary positions, the weights do not determine the block size
REQUIRED_KEYS = {
    *("state_dict", "hyper_parameters", "datamodule_hyper_parameters", "TextDataModule"),
    *("global_step", "n_tokens", "evaluation", "best_evaluation"),
}


def write_checkpoint(checkpoint: dict[str, Any], path: StrPath) -> None:
    """Write a checkpoint atomically; create its folder if necessary.

    Raises:
        OSError: The disk is full, or the folder is not writable; an existing file at `path` is kept.
    """
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(Path(path)) as stream:
            torch.save(checkpoint, stream)
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__  # torch.save replaces an OSError
        if not isinstance(cause, OSError):
            raise
        raise OSError(f"cannot write {path}: {cause.strerror or cause}") from cause


def find_checkpoint(path: StrPath, names: tuple[str, ...] = BEST_FIRST) -> Path:
    """Return `path` if it is a file; if it is a run folder, return the first file of `names` in it.

    Raises:
        ValueError: `path` does not exist, or the folder has no checkpoint.
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


def read_checkpoint(path: StrPath, mmap: bool = False) -> dict[str, Any]:
    """Read a checkpoint into CPU memory, without executing code that the file may contain.

    Args:
        path: Path of the checkpoint file.
        mmap: Whether to map the file into memory: tensors are then read when they are used, and their
            checksums are not checked.

    Raises:
        ValueError: The file is damaged, holds objects other than data, or is not a checkpoint of this
            program.
    """
    try:
        with warnings.catch_warnings():  # about an old pickle protocol; such a file is rejected anyway
            warnings.simplefilter("ignore")
            _check_zip(path, with_tensors=not mmap)
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise ValueError(f"cannot read the checkpoint {path}: {error.strerror}") from error
    except LOAD_ERRORS as error:
        raise ValueError(f"{path} is damaged, or not a checkpoint of this program") from error
    keys = checkpoint.keys() if isinstance(checkpoint, dict) else set()
    if not keys >= REQUIRED_KEYS or not checkpoint["TextDataModule"].keys() >= {"tokenizer", "corpus"}:
        raise ValueError(f"{path} is not a checkpoint of this program")
    if not all(map(_fits_its_storage, _tensors(checkpoint))) or not _options_fit_weights(checkpoint):
        raise ValueError(f"{path} is damaged: its sizes do not fit each other")
    return checkpoint


def _check_zip(path: StrPath, with_tensors: bool) -> None:
    """Check the CRC-32 checksums of a checkpoint file, which torch.load does not check.

    Args:
        path: Path of the file.
        with_tensors: Whether to check the entries that hold the data of tensors, too.

    Raises:
        BadZipFile: An entry has a wrong checksum, or is compressed. Compressed entries are rejected, because
            a small file could expand to fill the memory.
    """
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED:
                raise zipfile.BadZipFile(f"{entry.filename} is compressed")
            if with_tensors or "/data/" not in entry.filename:
                with archive.open(entry) as stream:
                    while stream.read(2**20):
                        pass


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in nested dicts, lists and tuples."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


def _fits_its_storage(tensor: torch.Tensor) -> bool:
    """Return whether a tensor's storage has at least as many bytes as its shape requires.

    A tensor with strides of 0 can have any shape, although its storage has only one element.
    """
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _options_fit_weights(checkpoint: dict[str, Any]) -> bool:
    """Return whether a checkpoint's model options match the shapes of its weights, without building a model.

    The result is False, too, if block_size is above `MAX_BLOCK_SIZE` tokens.
    """
    options, weights = checkpoint["hyper_parameters"], checkpoint["state_dict"]
    blocks = {name.split(".")[2] for name in weights if name.startswith("gpt.h.")}
    sizes = {"n_layer": len(blocks)}
    for name, table in (("vocab_size", "gpt.wte.weight"), ("block_size", "gpt.wpe.weight")):
        if table in weights:
            sizes |= {name: len(weights[table]), "n_embd": weights[table].shape[-1]}
    is_short = options.get("block_size", MAX_BLOCK_SIZE + 1) <= MAX_BLOCK_SIZE
    return is_short and all(options.get(name) == size for name, size in sizes.items())
