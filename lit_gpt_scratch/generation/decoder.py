"""A GPT as plain functions over its weights, with its keys and values kept: what a token costs is its own.

A small model's modules take longer to be called than to compute one token. Here the weights are taken out of
them once, queries, keys and values in one matrix, and `prefill` and `decode` do what `GPT.forward` does.
Letters in shapes are those of `model/gpt.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gpt_scratch.model.gpt import (
    GPT,
    MLP,
    RMS_EPS,
    Block,
    CausalSelfAttention,
    GPTConfig,
    RotaryAttention,
    SwiGLU,
)
from lit_gpt_scratch.model.layers import attend

Weights = Literal["float", "int8"]
Layer = Callable[[Tensor], Tensor]
MakeLinear = Callable[..., Layer]  # from a weight, and a bias if there is one
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]  # block, q, k, v, each (B, T, heads, D) -> (B, T, C)


@dataclass(frozen=True)
class BlockLayers:
    """What a block computes beside its attention, each from (B, T, ...) to (B, T, ...)."""

    norm_1: Layer
    qkv: Layer  # to (H + 2 K) D channels
    qk_norm: Tensor | None  # modern's weights of the norms of queries and keys, (H + K, D)
    attn_proj: Layer
    norm_2: Layer
    mlp: Layer


class Decoder:
    """The layers of a GPT as functions that read and write a cache of keys and values."""

    def __init__(self, gpt: GPT, weights: Weights = "float") -> None:
        """Take the weights out of a model.

        Args:
            gpt: The model.
            weights: float multiplies by them as they are, int8 by 8-bit numbers with a scale for each
                channel: a quarter of the bytes to read. Embeddings stay as they are.

        Raises:
            ValueError: int8 was asked for on another device than a CPU.
        """
        config, weight = gpt.config, gpt.wte.weight
        if weights == "int8" and weight.device.type != "cpu":
            raise ValueError(
                "int8 weights are for the CPU: leave weights out, or choose trainer.accelerator cpu"
            )
        linear = float_linear if weights == "float" else int8_linear
        self.config = config
        self.wte = weight
        self.wpe = gpt.wpe.weight if config.arch == "gpt2" else None
        self.rope = gpt.rope if config.arch == "modern" else None
        self.blocks = [block_layers(cast(Block, block), config, linear) for block in gpt.h]
        self.ln_f, self.lm_head = norm(gpt.ln_f), linear(gpt.lm_head.weight)

    def new_cache(self, batch_size: int) -> Tensor:
        """An empty cache, (n_layer, 2, B, K, block_size, D): its shape stays while rows are written."""
        config = self.config
        shape = (config.n_layer, 2, batch_size, config.kv_heads, config.block_size, config.head_width)
        return torch.zeros(shape, device=self.wte.device, dtype=self.wte.dtype)

    def prefill(self, cache: Tensor, rows: list[int], prompts: list[Tensor]) -> Tensor:
        """Read prompts into rows of the cache.

        Args:
            cache: What is written to.
            rows: Where each goes.
            prompts: Token ids, each (T,) with T from 1 to block_size; they need not be as long as each other.

        Returns:
            Logits of the token after each, (len(rows), V).
        """
        # What follows a shorter prompt is looked at by nothing before it, and written over later.
        ids = torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True)
        x = self._read(cache, rows, ids)
        last = torch.tensor([len(prompt) - 1 for prompt in prompts], device=x.device)
        return self.lm_head(self.ln_f(x[torch.arange(len(rows), device=x.device), last]))

    def logits(self, ids: Tensor) -> Tensor:
        """What `GPT.forward` gives; (B, T) -> (B, T, V)."""
        return self.lm_head(self.ln_f(self._read(self.new_cache(len(ids)), list(range(len(ids))), ids)))

    def _read(self, cache: Tensor, rows: list[int], ids: Tensor) -> Tensor:
        """Token ids (len(rows), T) into the cache and through all blocks, to (len(rows), T, C)."""
        T = ids.shape[1]
        places: list[int] | slice = slice(None) if len(rows) == cache.shape[2] else rows

        def attention(i: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, H, T, D), twice (B, K, T, D)
            cache[i, 0, places, :, :T], cache[i, 1, places, :, :T] = k, v
            return attend(q, k, v).transpose(1, 2).flatten(2)

        x = F.embedding(ids, self.wte)
        if self.wpe is not None:
            x = x + self.wpe[:T]
        rope = None if self.rope is None else self.rope[:, :T, None]  # (2, T, 1, D)
        return self._blocks(x, rope, attention)

    def decode(self, cache: Tensor, ids: Tensor, positions: list[int]) -> Tensor:
        """Read one more token in every row.

        Args:
            cache: What is read and written to.
            ids: Token ids, (B,).
            positions: How many tokens the cache holds of each row, below block_size.

        Returns:
            Logits of the token after it, (B, V).
        """
        length = max(positions) + 1
        where: int | Tensor
        if min(positions) == length - 1:
            where, mask = length - 1, None
        else:
            where = torch.tensor(positions, device=ids.device)  # (B,)
            there = torch.arange(length, device=ids.device) <= where[:, None]  # (B, length)
            mask = there[:, None, None]
        every_row = torch.arange(len(ids), device=ids.device)

        def attention(i: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = cache[i]
            if isinstance(where, int):
                keys[:, :, where], values[:, :, where] = k[:, 0], v[:, 0]
            else:
                keys[every_row, :, where], values[every_row, :, where] = k[:, 0], v[:, 0]
            # The queries that share a head's keys stand where several tokens' would.
            q = q.view(len(ids), keys.shape[1], -1, q.shape[-1])  # (B, K, H / K, D)
            y = F.scaled_dot_product_attention(q, keys[:, :, :length], values[:, :, :length], attn_mask=mask)
            return y.reshape(len(ids), 1, -1)

        x = F.embedding(ids[:, None], self.wte)  # (B, 1, C)
        rope = None
        if self.wpe is not None:
            x = x + (self.wpe[where] if isinstance(where, int) else self.wpe[where][:, None])
        elif self.rope is not None:
            rope = self.rope[:, where] if isinstance(where, int) else self.rope[:, where, None, None]
        return self.lm_head(self.ln_f(self._blocks(x, rope, attention)[:, 0]))

    def _blocks(self, x: Tensor, rope: Tensor | None, attention: Attend) -> Tensor:
        """All blocks; (B, T, C) -> (B, T, C)."""
        B, T = x.shape[:2]
        H, K, D = self.config.n_head, self.config.kv_heads, self.config.head_width
        for i, block in enumerate(self.blocks):
            heads = block.qkv(block.norm_1(x)).view(B, T, -1, D)  # (B, T, H + 2 K, D)
            q_and_k, v = heads[:, :, : H + K], heads[:, :, H + K :]
            if rope is not None and block.qk_norm is not None:
                q_and_k = torch.rms_norm(q_and_k.float(), (D,), None, RMS_EPS) * block.qk_norm
                turned = torch.addcmul(q_and_k * rope[0], q_and_k.roll(D // 2, dims=-1), rope[1])
                q_and_k = turned.to(v.dtype)
            x = x + block.attn_proj(attention(i, q_and_k[:, :, :H], q_and_k[:, :, H:], v))
            x = x + block.mlp(block.norm_2(x))
        return x


def block_layers(block: Block, config: GPTConfig, linear: MakeLinear) -> BlockLayers:
    """The layers of a block."""
    attn, proj = block.attn, linear(block.attn.c_proj.weight, block.attn.c_proj.bias)
    if isinstance(attn, CausalSelfAttention):
        qkv, qk_norm = linear(attn.c_attn.weight, attn.c_attn.bias), None
    else:
        assert isinstance(attn, RotaryAttention)
        qkv = linear(torch.cat([attn.c_q.weight, attn.c_k.weight, attn.c_v.weight]))
        of_queries = attn.q_norm.weight.expand(config.n_head, -1)
        qk_norm = torch.cat([of_queries, attn.k_norm.weight.expand(config.kv_heads, -1)])
    return BlockLayers(norm(block.ln_1), qkv, qk_norm, proj, norm(block.ln_2), mlp_layer(block.mlp, linear))


def mlp_layer(mlp: nn.Module, linear: MakeLinear) -> Layer:
    """The MLP of a block, as one function."""
    if isinstance(mlp, MLP):
        up, down = (linear(layer.weight, layer.bias) for layer in (mlp.c_fc, mlp.c_proj))
        approximate = mlp.act.approximate
        return lambda x: down(F.gelu(up(x), approximate=approximate))
    assert isinstance(mlp, SwiGLU)
    gate_and_up = linear(torch.cat([mlp.c_gate.weight, mlp.c_fc.weight]))
    project = linear(mlp.c_proj.weight)

    def swiglu(x: Tensor) -> Tensor:
        gate, inner = gate_and_up(x).chunk(2, dim=-1)
        return project(F.silu(gate) * inner)

    return swiglu


def float_linear(weight: Tensor, bias: Tensor | None = None) -> Layer:
    """A linear layer's function."""
    return partial(F.linear, weight=weight, bias=bias)


def int8_linear(weight: Tensor, bias: Tensor | None = None) -> Layer:
    """The same with each row of the weight as 8-bit numbers and a scale."""
    weight = weight.detach()
    scale = weight.abs().amax(dim=1).clamp(min=torch.finfo(weight.dtype).tiny) / 127
    rounded = (weight / scale[:, None]).round().to(torch.int8)

    def layer(x: Tensor) -> Tensor:
        y = torch._weight_int8pack_mm(x.reshape(-1, x.shape[-1]), rounded, scale).view(*x.shape[:-1], -1)
        return y if bias is None else y + bias

    return layer


def norm(layer: nn.Module) -> Layer:
    """A LayerNorm's or RMSNorm's function."""
    if isinstance(layer, nn.LayerNorm):
        shape, weight, bias, eps = tuple(layer.normalized_shape), layer.weight, layer.bias, layer.eps
        return lambda x: torch.layer_norm(x, shape, weight, bias, eps)
    assert isinstance(layer, nn.RMSNorm)
    scale = layer.weight
    return lambda x: torch.rms_norm(x, scale.shape, scale, RMS_EPS)
