"""Read a Hugging Face folder as data: no file in it is executed, nothing is downloaded."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig

from lit_gpt_scratch.hub.family import Family
from lit_gpt_scratch.hub.gpt2 import GPT2
from lit_gpt_scratch.hub.qwen3 import QWEN3
from lit_gpt_scratch.model.gpt import GPTConfig

FAMILIES = {"gpt2": GPT2, "qwen3": QWEN3}  # by model_type
DATA_ONLY: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


def read_state(folder: Path) -> dict[str, Tensor]:
    """Return the weights of a Hugging Face folder as the state dict of a `GPT`, in float32.

    Raises:
        ValueError: A file or a tensor is missing, damaged, or not as config.json describes.
    """
    family, options = read_config(folder)
    is_tied = options.pop("tie_weights")  # a file may have a head although config.json ties it
    read: Any = family.model_class.from_pretrained
    try:
        model, report = read(
            folder,
            # Only the checked fields: config.json may name kernels or quantizers, which are code.
            config=family.hub_config(GPTConfig(**options, tie_weights=False)),
            dtype=torch.float32,
            weights_only=True,
            ignore_mismatched_sizes=True,  # the report has them, and is checked below
            output_loading_info=True,
            **DATA_ONLY,
        )
    except UnpicklingError as error:
        raise ValueError(f"the weights of {folder} are damaged, or hold more than tensors") from error
    except Exception as error:  # transformers raises many exception types for damaged files
        raise ValueError(f"cannot read the weights of {folder}: {error}") from error
    has_head = "lm_head.weight" not in report["missing_keys"]
    for kind, names in report.items():
        if names := {*map(str, names)} - ({"lm_head.weight"} if is_tied else set()):
            wrong = f"{kind.removesuffix('_keys')} {min(names)}"
            raise ValueError(f"the weights of {folder} do not fit its config.json: {wrong}")
    state = family.gpt_state(model)
    if is_tied:
        if has_head and not torch.equal(state["lm_head.weight"], state["wte.weight"]):
            head = "lm_head.weight differs from the token embeddings, to which config.json ties it"
            raise ValueError(f"{folder}: {head}; set tie_word_embeddings to false in config.json")
        state["lm_head.weight"] = state["wte.weight"]
    return state


def read_config(folder: Path) -> tuple[Family, dict[str, Any]]:
    """Return the family of a Hugging Face folder's model, and the model's fields of `GPTConfig` as a dict.

    Raises:
        ValueError: config.json is missing, damaged, or describes a model that is not supported.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise ValueError(f"{folder} is no Hugging Face folder: there is no {file}")
    try:
        config = AutoConfig.from_pretrained(folder, **DATA_ONLY)
    except Exception as error:  # transformers raises many exception types for damaged files
        raise ValueError(f"cannot read {file}: {error}") from error
    if config.model_type not in FAMILIES:
        known = " and ".join(FAMILIES)
        raise ValueError(f"{folder} has model_type {config.model_type!r}: only {known} are supported")
    family = FAMILIES[config.model_type]
    try:
        return family, family.gpt_options(config)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder}: {error}") from error
