"""Read a Hugging Face folder with a GPT-2 or a Qwen3; nothing in it is executed."""

from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from lit_gpt_scratch.hub import gpt2, qwen3
from lit_gpt_scratch.hub.tokenizer import read_tokenizer
from lit_gpt_scratch.model.gpt import GPTConfig

FAMILIES: dict[str, ModuleType] = {"gpt2": gpt2, "qwen3": qwen3}
DATA_ONLY: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


def read_options(folder: Path, has_tokenizer: bool = False) -> dict[str, Any]:
    """Return the options that describe a folder's model.

    Args:
        folder: The folder.
        has_tokenizer: Whether a tokenizer is given, and the folder's own is not needed.

    Returns:
        Fields of `GPTConfig`, and ``tokenizer``: the plain dict of one of ours, if it is needed.

    Raises:
        ValueError: There is no such folder, or its model or tokenizer is not supported.
    """
    config = _read_config(folder)
    try:
        options: dict[str, Any] = FAMILIES[config.model_type].gpt_options(config)
        GPTConfig(**options)  # raises for sizes that cannot be
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder}: {error}") from error
    if has_tokenizer:
        return options
    return options | {"tokenizer": read_tokenizer(folder, options["vocab_size"])}


def _read_config(folder: Path) -> Any:
    if not folder.is_dir():
        raise ValueError(f"no such folder: {folder}")
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} is no Hugging Face folder: it has no config.json")
    try:
        config = AutoConfig.from_pretrained(folder, **DATA_ONLY)
    except Exception as error:  # whatever the library raises for a damaged file
        raise ValueError(f"cannot read {folder / 'config.json'}: {error}") from error
    if config.model_type not in FAMILIES:
        known = " and ".join(FAMILIES)
        raise ValueError(f"{folder} has model_type {config.model_type!r}: only {known} are supported")
    return config


def read_state(folder: Path) -> dict[str, Tensor]:
    """Return the state dict of a `GPT`, in float32, from the weights of a folder.

    Raises:
        ValueError: A file or a tensor is missing, damaged, or not as config.json describes.
    """
    config = _read_config(folder)
    try:
        read: Any = AutoModelForCausalLM.from_pretrained
        model, loaded = read(
            folder,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are reported with the others
            **DATA_ONLY,
        )
    except UnpicklingError as error:
        raise ValueError(f"the weights of {folder} are damaged, or hold more than tensors") from error
    except Exception as error:  # whatever the library raises for a damaged file
        raise ValueError(f"cannot read the weights of {folder}: {error}") from error
    wrong = {kind.removesuffix("_keys"): names for kind, names in loaded.items() if names}
    if wrong:
        kind, names = next(iter(wrong.items()))
        name = str(sorted(names)[0])
        raise ValueError(f"the weights of {folder} do not fit its config.json: {kind} {name}")
    state: dict[str, Tensor] = FAMILIES[config.model_type].gpt_state(model)
    return state
