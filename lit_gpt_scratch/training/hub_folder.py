"""A Hugging Face model folder, read: nothing in it is executed."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lit_gpt_scratch.model.gpt import GPTConfig
from lit_gpt_scratch.training.checkpoint_io import NOT_DATA
from lit_gpt_scratch.training.hub_layout import settings_from_hub, weights_from_hub

WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def read_settings(folder: Path) -> dict[str, Any]:
    """The fields of `GPTConfig` that a folder's config.json describes.

    Raises:
        ValueError: There is no such folder, or its model is not a GPT-2 that is supported.
    """
    if not folder.is_dir():
        raise ValueError(f"no such folder: {folder}")
    path = folder / "config.json"
    if not path.is_file() and any(folder.glob("*.ckpt")):
        raise ValueError(f"{folder} is a run of this program, and no Hugging Face folder")
    return settings_from_hub(read_json(path), str(path))


def read_weights(folder: Path, config: GPTConfig) -> dict[str, Tensor]:
    """The state dict of a `GPT`, from model.safetensors or pytorch_model.bin, whole or in shards.

    Raises:
        ValueError: A file or a tensor is missing, damaged, or not as config.json says.
    """
    readers = {name: read for file in _weight_files(folder) for name, read in _tensors(file).items()}
    return weights_from_hub(readers, config, str(folder))


def _weight_files(folder: Path) -> list[Path]:
    for name in WEIGHTS:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return [folder / name]
        if index.is_file():
            return [folder / shard for shard in sorted(set(_weight_map(index).values()))]
    raise ValueError(f"{folder} has neither {' nor '.join(WEIGHTS)}")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        ValueError: It is missing, or is no such file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON file: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object")
    return content


def _weight_map(index: Path) -> dict[str, str]:
    files = read_json(index).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise ValueError(f"{index} has no weight_map")
    if outside := [file for file in files.values() if Path(file).name != file]:
        raise ValueError(f"{index} names a file outside of its folder: {outside[0]}")
    return files


def _tensors(file: Path) -> dict[str, Callable[[], Tensor]]:
    """The names of a file's tensors, and how to read each."""
    if file.suffix != ".safetensors":
        return {name: partial(_itself, tensor) for name, tensor in _load_bin(file).items()}
    try:
        with safe_open(file, framework="pt") as tensors:
            return {name: partial(_read, file, name) for name in tensors.keys()}  # noqa: SIM118  # no dict
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror or error}") from error
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged: {error}") from error


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def _read(file: Path, name: str) -> Tensor:
    with safe_open(file, framework="pt") as tensors:
        return tensors.get_tensor(name)


def _load_bin(file: Path) -> dict[str, Tensor]:
    try:
        try:
            tensors = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # files from before torch 1.6 can't be memory-mapped
            tensors = torch.load(file, map_location="cpu", weights_only=True)
    except (FileNotFoundError, PermissionError) as error:
        raise ValueError(f"cannot read {file}: {error.strerror}") from error
    except (*NOT_DATA, ValueError) as error:
        raise ValueError(f"{file} is damaged, or holds more than tensors") from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise ValueError(f"{file} holds more than tensors")
    return tensors
