"""Qwen3 in transformers: the architecture `modern`, parameter for parameter."""

import re
from typing import Any

from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from lit_gpt_scratch.model.gpt import GPT, RMS_EPS, ROPE_THETA, GPTConfig

# Our parts of a parameter's name, and theirs.
NAMES = {
    "wte": "model.embed_tokens",
    "h": "model.layers",
    "ln_1": "input_layernorm",
    "attn.c_q": "self_attn.q_proj",
    "attn.c_k": "self_attn.k_proj",
    "attn.c_v": "self_attn.v_proj",
    "attn.q_norm": "self_attn.q_norm",
    "attn.k_norm": "self_attn.k_norm",
    "attn.c_proj": "self_attn.o_proj",
    "ln_2": "post_attention_layernorm",
    "mlp.c_gate": "mlp.gate_proj",
    "mlp.c_fc": "mlp.up_proj",
    "mlp.c_proj": "mlp.down_proj",
    "ln_f": "model.norm",
}
# Settings that change what Qwen3 computes and follow from the others here.
COMPUTED = (
    *("intermediate_size", "head_dim", "hidden_act", "rms_norm_eps", "rope_parameters"),
    *("attention_bias", "use_sliding_window"),
)


def gpt_options(config: Qwen3Config) -> dict[str, Any]:
    """Return the fields of `GPTConfig` for a transformers config.

    Raises:
        ValueError: The config is of a variant that is not supported.
    """
    options: dict[str, Any] = {
        "arch": "modern",
        "vocab_size": config.vocab_size,
        "block_size": config.max_position_embeddings,
        "n_layer": config.num_hidden_layers,
        "n_head": config.num_attention_heads,
        "n_kv_head": config.num_key_value_heads,
        "n_embd": config.hidden_size,
        "tie_weights": config.tie_word_embeddings,
    }
    supported = qwen3_config(GPTConfig(**options))
    wrong = [name for name in COMPUTED if getattr(config, name) != getattr(supported, name)]
    if wrong:
        values = ", ".join(f"{name} {getattr(config, name)}" for name in wrong)
        raise ValueError(f"this variant of Qwen3 is not supported: {values}")
    return options


def gpt_state(model: Qwen3ForCausalLM) -> dict[str, Tensor]:
    """Return the state dict of a `GPT` with the weights of a transformers model."""
    return {_rename(name, {t: o for o, t in NAMES.items()}): t for name, t in model.state_dict().items()}


def to_transformers(gpt: GPT) -> Qwen3ForCausalLM:
    """Return a transformers model with the weights of a `GPT`."""
    model = Qwen3ForCausalLM(qwen3_config(gpt.config))
    model.load_state_dict({_rename(name, NAMES): tensor for name, tensor in gpt.state_dict().items()})
    return model


def qwen3_config(config: GPTConfig) -> Qwen3Config:
    """Return the transformers config of a `GPT`."""
    return Qwen3Config(
        vocab_size=config.vocab_size,
        max_position_embeddings=config.block_size,
        hidden_size=config.n_embd,
        intermediate_size=config.mlp_width,
        num_hidden_layers=config.n_layer,
        num_attention_heads=config.n_head,
        num_key_value_heads=config.kv_heads,
        head_dim=config.head_width,
        rms_norm_eps=RMS_EPS,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        tie_word_embeddings=config.tie_weights,
    )


def _rename(name: str, parts: dict[str, str]) -> str:
    """Replace the parts of a parameter's name; ``lm_head`` is the same in both."""
    longest_first = "|".join(re.escape(part) for part in sorted(parts, key=len, reverse=True))
    return re.sub(rf"(?<![\w])({longest_first})(?![\w])", lambda found: parts[found[0]], name)
