"""GPT-2 in transformers.

Its linear layers ("Conv1D") hold transposed matrices and always have biases. Parameters have our names after
``transformer.``, except for the output head.
"""

import re
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from lit_gpt_scratch.model.gpt import GPT

ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}
TRANSPOSED = re.compile(r"\.c_(attn|proj|fc)\.weight$")
# Settings that change what GPT-2 computes, with the only value that is supported.
FIXED = {
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}


def gpt_options(config: GPT2Config) -> dict[str, Any]:
    """Return the fields of `GPTConfig` for a transformers config.

    Raises:
        ValueError: The config is of a variant that is not supported.
    """
    wrong = [f"{name} {value}" for name in FIXED if (value := getattr(config, name)) != FIXED[name]]
    if config.n_inner not in (None, 4 * config.n_embd):
        wrong.append(f"n_inner {config.n_inner}")
    if config.activation_function not in ACTIVATIONS:
        wrong.append(f"activation_function {config.activation_function}")
    if wrong:
        raise ValueError(f"this variant of GPT-2 is not supported: {', '.join(wrong)}")
    return {
        "arch": "gpt2",
        "vocab_size": config.vocab_size,
        "block_size": config.n_positions,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_embd": config.n_embd,
        "dropout": config.resid_pdrop,
        "bias": True,
        "attn_bias": True,
        "attn_proj_bias": True,
        "tie_weights": config.tie_word_embeddings,
        "activation": ACTIVATIONS[config.activation_function],
    }


def gpt_state(model: GPT2LMHeadModel) -> dict[str, Tensor]:
    """Return the state dict of a `GPT` with the weights of a transformers model."""
    return {
        name.removeprefix("transformer."): tensor.T if TRANSPOSED.search(name) else tensor
        for name, tensor in model.state_dict().items()
    }


def to_transformers(gpt: GPT) -> GPT2LMHeadModel:
    """Return a transformers model with the weights of a `GPT`; biases that the GPT lacks are 0."""
    config = gpt.config
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.block_size,
            n_embd=config.n_embd,
            n_layer=config.n_layer,
            n_head=config.n_head,
            activation_function="gelu" if config.activation == "gelu" else "gelu_new",
            attn_pdrop=config.dropout,
            embd_pdrop=config.dropout,
            resid_pdrop=config.dropout,
            tie_word_embeddings=config.tie_weights,
        )
    )
    state = {name: torch.zeros_like(t) for name, t in model.state_dict().items() if name.endswith(".bias")}
    for name, tensor in gpt.state_dict().items():
        theirs = name if name.startswith("lm_head.") else f"transformer.{name}"
        state[theirs] = tensor.T if TRANSPOSED.search(name) else tensor
    model.load_state_dict(state)
    return model
