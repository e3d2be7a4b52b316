"""Qwen3 in transformers: the same parameters as the architecture `modern`, with other names."""

from typing import Any

from transformers import Qwen3ForCausalLM

from lit_gpt_scratch.hub.family import Family
from lit_gpt_scratch.model.gpt import RMS_EPS, ROPE_THETA, GPTConfig


def _settings(config: GPTConfig) -> dict[str, tuple[Any, ...]]:
    return {
        "intermediate_size": (config.mlp_width,),
        "head_dim": (config.head_dim,),
        "hidden_act": ("silu",),
        "rms_norm_eps": (RMS_EPS,),
        "rope_parameters": ({"rope_type": "default", "rope_theta": ROPE_THETA},),
        "attention_bias": (False,),
        "use_sliding_window": (False,),
    }


QWEN3 = Family(
    Qwen3ForCausalLM,
    fields={"num_key_value_heads": "n_kv_head"},
    derived_options=lambda _: {"arch": "modern"},
    settings=_settings,
    parts={
        "wte": "model.embed_tokens",
        "h": "model.layers",
        "ln_1": "input_layernorm",
        **{f"attn.c_{name}": f"self_attn.{name}_proj" for name in "qkv"},
        **{f"attn.{name}_norm": f"self_attn.{name}_norm" for name in "qk"},
        "attn.c_proj": "self_attn.o_proj",
        "ln_2": "post_attention_layernorm",
        "mlp.c_gate": "mlp.gate_proj",
        "mlp.c_fc": "mlp.up_proj",
        "mlp.c_proj": "mlp.down_proj",
        "ln_f": "model.norm",
    },
)
