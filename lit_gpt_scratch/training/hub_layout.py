"""GPT-2 as Hugging Face's transformers lays it out: config.json and the names and shapes of tensors.

Their linear layers ("Conv1D") keep matrices transposed and always have biases; names are otherwise ours,
after "transformer.", and the output head stands beside it.
"""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from lit_gpt_scratch.model.gpt import GPT, GPTConfig

MODEL_TYPE = "gpt2"
PREFIX = "transformer."
TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
MASKS = (".attn.bias", ".attn.masked_bias")  # buffers of older files: the causal mask, which is computed here
ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}
# Settings that change what GPT-2 computes, with the only value that is supported (their default).
FIXED = {
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}


def settings_from_hub(config: dict[str, Any], name: str) -> dict[str, Any]:
    """The fields of `GPTConfig` that a config.json describes.

    Args:
        config: What stands in config.json.
        name: What to call it in an error.

    Raises:
        ValueError: It is another architecture, or a variant of GPT-2 that is not supported.
    """
    if config.get("model_type") != MODEL_TYPE:
        raise ValueError(
            f"{name} has model_type {config.get('model_type')!r}: only {MODEL_TYPE!r} is supported"
        )
    try:
        n_embd = config["n_embd"]
        sizes = {key: config[key] for key in ("vocab_size", "n_layer", "n_head", "n_embd")}
        sizes["block_size"] = config.get("n_positions") or config["n_ctx"]
        activation = config.get("activation_function", "gelu_new")
    except KeyError as error:
        raise ValueError(f"{name} does not say {error}") from None
    for key, value in sizes.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: {key} must be a positive whole number, not {value!r}")
    variants = {key: config.get(key, value) for key, value in FIXED.items()}
    wrong = [f"{key} {value}" for key, value in variants.items() if value != FIXED[key]]
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        wrong.append(f"activation_function {activation}")
    if config.get("n_inner") not in (None, 4 * n_embd):
        wrong.append(f"n_inner {config['n_inner']}")
    if wrong:
        raise ValueError(f"{name} is a GPT-2 that is not supported here: {', '.join(wrong)}")
    dropout = config.get("resid_pdrop", 0.1)
    if not isinstance(dropout, int | float):
        raise ValueError(f"{name}: resid_pdrop must be a number, not {dropout!r}")
    settings = {
        "arch": "gpt2",
        **sizes,
        "dropout": dropout,
        "bias": True,
        "attn_bias": True,
        "attn_proj_bias": True,
        "tie_weights": config.get("tie_word_embeddings", True),
        "activation": ACTIVATIONS[activation],
    }
    GPTConfig(**settings)  # raises for sizes that cannot be
    return settings


def config_to_hub(config: GPTConfig, end_id: int | None) -> dict[str, Any]:
    """The config.json of a model; `end_id` is the id of `<|endoftext|>`, where the vocabulary has one."""
    activation = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}[config.activation]
    dropout = {f"{place}_pdrop": config.dropout for place in ("attn", "embd", "resid")}
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": MODEL_TYPE,
        "vocab_size": config.vocab_size,
        "n_positions": config.block_size,
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "activation_function": activation,
        **dropout,
        **FIXED,
        "tie_word_embeddings": config.tie_weights,
        "bos_token_id": end_id,
        "eos_token_id": end_id,
        "torch_dtype": "float32",
    }


def hub_name(name: str) -> str:
    """Their name of one of our tensors."""
    return name if name.startswith("lm_head.") else PREFIX + name


def shapes(config: GPTConfig) -> dict[str, torch.Size]:
    """The shapes of our tensors, without one that is another's twin."""
    with torch.device("meta"):
        state = GPT(config).state_dict()
    if config.tie_weights:
        del state["lm_head.weight"]
    return {name: tensor.shape for name, tensor in state.items()}


def check_shapes(state: dict[str, Tensor], config: GPTConfig) -> dict[str, torch.Size]:
    """The names and shapes that a state dict has and should have, without one that is another's twin.

    Raises:
        ValueError: It is not the state dict of such a GPT.
    """
    own, expected = {name: tensor.shape for name, tensor in state.items()}, shapes(config)
    if differing := sorted(name for name, shape in expected.items() if own.get(name) != shape):
        raise ValueError(
            f"the checkpoint is damaged: its tensor {differing[0]} is missing or has a wrong shape"
        )
    return expected


def weights_from_hub(
    readers: dict[str, Callable[[], Tensor]], config: GPTConfig, folder: str
) -> dict[str, Tensor]:
    """A GPT's state dict, in float32, out of the tensors of a Hugging Face GPT-2.

    Args:
        readers: What reads each tensor, by name; without its head a model is saved without `transformer.`.
        config: The GPT; its block_size may be smaller, which leaves later positions out.
        folder: What to call the source in an error.

    Raises:
        ValueError: A tensor is missing, has the wrong shape or is none of GPT-2's.
    """
    bare = not any(name.startswith(PREFIX) for name in readers)
    state = {}
    expected = shapes(config)
    for name, shape in expected.items():
        theirs = name if bare else hub_name(name)
        if theirs not in readers:
            raise ValueError(f"{folder} lacks the tensor {theirs}")
        tensor = readers[theirs]()
        if name.endswith(TRANSPOSED):
            tensor = tensor.T
        if name == "wpe.weight":
            tensor = tensor[: config.block_size]
        if tensor.shape != shape:
            raise ValueError(
                f"the tensor {theirs} of {folder} has the shape {_shape(tensor.shape, name)}, "
                f"not {_shape(shape, name)}"
            )
        state[name] = tensor.float().contiguous()
    known = {name if bare else hub_name(name) for name in expected} | {"lm_head.weight"}
    if extra := sorted(name for name in readers.keys() - known if not name.endswith(MASKS)):
        raise ValueError(f"{folder} has a tensor that is none of GPT-2's: {extra[0]}")
    if config.tie_weights:
        state["lm_head.weight"] = state["wte.weight"]
    return state


def _shape(shape: torch.Size, name: str) -> list[int]:
    """A tensor's shape as it is in their file."""
    return [*reversed(shape)] if name.endswith(TRANSPOSED) else [*shape]


def weights_to_hub(state: dict[str, Tensor], config: GPTConfig) -> dict[str, Tensor]:
    """The tensors of a Hugging Face GPT-2 out of a GPT's state dict; biases that it lacks are 0.

    Raises:
        ValueError: The state dict is not that of such a GPT.
    """
    check_shapes(state, config)
    options = {field.name: getattr(config, field.name) for field in fields(config)}
    with_biases = GPTConfig(**{**options, "bias": True, "attn_bias": True, "attn_proj_bias": True})
    tensors = {}
    for name, shape in shapes(with_biases).items():
        tensor = state[name].float() if name in state else torch.zeros(shape)
        tensors[hub_name(name)] = (tensor.T if name.endswith(TRANSPOSED) else tensor).contiguous()
    return tensors
