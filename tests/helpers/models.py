"""Small models with random weights."""

from typing import Any

import torch

from lit_gpt_scratch.model.gpt import GPT, GPTConfig

ARCHITECTURES: list[dict[str, Any]] = [
    {"arch": "gpt2", "attn_bias": True, "activation": "gelu"},
    {"arch": "gpt2", "tie_weights": False},
    {"arch": "modern"},
    {"arch": "modern", "n_kv_head": 2},
    {"arch": "modern", "n_kv_head": 1},
]


def random_gpt(block_size: int = 8, **settings: Any) -> GPT:
    """Return a model with a vocabulary of 30 tokens and weights so large that greedy choices have no ties."""
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(vocab_size=30, block_size=block_size, n_layer=2, n_head=4, n_embd=32, **settings))
    for parameter in gpt.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return gpt.eval()
