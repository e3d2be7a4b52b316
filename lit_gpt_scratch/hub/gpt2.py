"""GPT-2 in transformers: parameters named as ours, linear layers ("Conv1D") transposed and with biases."""

from typing import Any

from transformers import GPT2Config, GPT2LMHeadModel

from lit_gpt_scratch.hub.family import Family
from lit_gpt_scratch.model.gpt import GPTConfig


def _derived_options(config: GPT2Config) -> dict[str, Any]:
    activation = "gelu" if config.activation_function == "gelu" else "gelu_tanh"
    biases = dict.fromkeys(("bias", "attn_bias", "attn_proj_bias"), True)
    return {"arch": "gpt2", "activation": activation, **biases}


def _settings(config: GPTConfig) -> dict[str, tuple[Any, ...]]:
    return {
        "activation_function": ("gelu",)
        if config.activation == "gelu"
        else ("gelu_new", "gelu_pytorch_tanh"),
        "n_inner": (None, config.mlp_width),
        "layer_norm_epsilon": (1e-5,),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    }


GPT2 = Family(
    GPT2LMHeadModel,
    fields=dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), "dropout"),
    derived_options=_derived_options,
    settings=_settings,
    parts={part: f"transformer.{part}" for part in ("wte", "wpe", "h", "ln_f")},
    transposed=("c_attn.weight", "c_proj.weight", "c_fc.weight"),
)
