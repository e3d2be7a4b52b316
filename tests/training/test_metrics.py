"""Perplexity, bits per byte and FLOPs."""

import math

import pytest
import torch

from lit_gpt_scratch.model.gpt import GPT, GPTConfig
from lit_gpt_scratch.training.metrics import bits_per_byte, perplexity, train_flops_per_token


def test_perplexity_and_bits_per_byte() -> None:
    assert perplexity(math.log(65)) == pytest.approx(65)
    assert perplexity(1e6) == math.inf
    assert bits_per_byte(math.log(256), bytes_per_token=1) == pytest.approx(8)  # a byte of noise has 8 bits
    assert bits_per_byte(math.log(256), bytes_per_token=4) == pytest.approx(2)


def test_flops_of_gpt2_small() -> None:
    with torch.device("meta"):
        sizes = {"block_size": 1024, "n_layer": 12, "n_head": 12, "n_embd": 768}
        gpt = GPT(GPTConfig(vocab_size=50257, attn_bias=True, **sizes))
    assert train_flops_per_token(gpt) == 6 * (124_439_808 - 1024 * 768) + 12 * 12 * 768 * 1024
