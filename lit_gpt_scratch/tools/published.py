"""Models whose size and training text are published, to see one's own runs beside."""

from dataclasses import dataclass
from functools import cache

import torch

from lit_gpt_scratch.model.gpt import GPT, GPTConfig

GPT2_VOCAB = 50_257


@dataclass(frozen=True)
class Published:
    """A model as its authors describe it.

    Args:
        name: Its name.
        n_parameters: Counted from its shape, token table included.
        n_tokens: That it was trained on.
        source: Where both stand.
    """

    name: str
    n_parameters: int
    n_tokens: float
    source: str


@cache
def published_models() -> list[Published]:
    """GPT-2 small to Llama 3 70B, the smallest first.

    How often GPT-2 read its text is not published: its tokens are those of WebText, read once. 40 GB make
    9e9 of GPT-2's tokens of about 4.5 bytes.
    """
    webtext = 9e9
    gpt2 = "Radford et al. 2019, 40 GB of WebText, the number of passes not published"
    return [
        Published("GPT-2 small", gpt_parameters(12, 768, 1024), webtext, gpt2),
        Published("GPT-2 XL", gpt_parameters(48, 1600, 1024, n_head=25), webtext, gpt2),
        Published("Chinchilla", chinchilla_parameters(), 1.4e12, "Hoffmann et al. 2022"),
        Published("Llama 3 70B", llama_3_parameters(), 15e12, "Llama Team 2024, more than 15e12 tokens"),
        Published("GPT-3", gpt_parameters(96, 12_288, 2048, n_head=96), 300e9, "Brown et al. 2020"),
    ]


def gpt_parameters(n_layer: int, n_embd: int, block_size: int, n_head: int = 12) -> int:
    """Of a GPT-2 or GPT-3, counted on this project's own model, which takes no memory for it."""
    config = GPTConfig(
        GPT2_VOCAB, block_size=block_size, n_layer=n_layer, n_head=n_head, n_embd=n_embd, attn_bias=True
    )
    with torch.device("meta"):
        gpt = GPT(config)
    return gpt.n_parameters


def chinchilla_parameters(n_layer: int = 80, width: int = 8192, vocab_size: int = 32_000) -> int:
    """Of Chinchilla: attention of five matrices, one of them for relative positions; an MLP of two."""
    block = 5 * width**2 + 2 * width * 4 * width + 2 * width  # and two RMSNorms
    return n_layer * block + vocab_size * width + width


def llama_3_parameters(
    n_layer: int = 80,
    width: int = 8192,
    kv_width: int = 1024,
    mlp_width: int = 28_672,
    vocab_size: int = 128_256,
) -> int:
    """Of Llama 3 70B: grouped-query attention, an MLP of three matrices, an output head of its own."""
    block = 2 * width**2 + 2 * width * kv_width + 3 * width * mlp_width + 2 * width
    return n_layer * block + 2 * vocab_size * width + width
