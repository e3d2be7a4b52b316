"""The modern architecture as Hugging Face's transformers lays it out: Qwen3, parameter for parameter."""

from typing import Any

from torch import Tensor

from lit_gpt_scratch.model.gpt import RMS_EPS, ROPE_THETA, GPTConfig
from lit_gpt_scratch.training.hub_layout import check_shapes

# Our part of a tensor's name, and theirs; "h." becomes "model.layers." and other names stand outside of it.
IN_BLOCK = {
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
}
OUTSIDE = {"wte": "model.embed_tokens", "ln_f": "model.norm", "lm_head": "lm_head"}


def qwen3_config(config: GPTConfig, end_id: int | None) -> dict[str, Any]:
    """The config.json of a model; `end_id` is the id of `<|endoftext|>`, where the vocabulary has one."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.block_size,
        "hidden_size": config.n_embd,
        "intermediate_size": config.mlp_width,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_width,
        "hidden_act": "silu",
        "rms_norm_eps": RMS_EPS,
        "rope_theta": ROPE_THETA,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "tie_word_embeddings": config.tie_weights,
        "bos_token_id": end_id,
        "eos_token_id": end_id,
        "torch_dtype": "float32",
    }


def qwen3_name(name: str) -> str:
    """Their name of one of our tensors."""
    part, _, kind = name.rpartition(".")
    if part in OUTSIDE:
        return f"{OUTSIDE[part]}.{kind}"
    _, number, inside = part.split(".", 2)
    return f"model.layers.{number}.{IN_BLOCK[inside]}.{kind}"


def qwen3_weights(state: dict[str, Tensor], config: GPTConfig) -> dict[str, Tensor]:
    """The tensors of a Qwen3 out of a GPT's state dict.

    Raises:
        ValueError: The state dict is not that of such a GPT.
    """
    return {qwen3_name(name): state[name].float().contiguous() for name in check_shapes(state, config)}
