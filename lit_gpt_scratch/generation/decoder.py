"""A GPT as plain functions over its weights, with its keys and values kept: what a token costs is its own.

A small model's modules take longer to be called than to compute one token. Here the weights are taken out of
them once, queries, keys and values in one matrix, and `prefill` and `decode` do what `GPT.forward` does.
Letters in shapes are those of `model/gpt.py`.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
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

LARGE_MATRIX = 2**19  # elements, and
SEVERAL_ROWS = 4  # from which oneDNN multiplies quicker than MKL on a CPU, if it may first arrange the weight
SMALLEST_SPREAD = 1e-12  # of a token's channels, for 8-bit arithmetic
Weights = Literal["float", "int8"]
Layer = Callable[[Tensor], Tensor]
MakeLinear = Callable[..., Layer]  # from a weight, and a bias if there is one
Attend = Callable[[int, Tensor], Tensor]  # block, its heads (..., H + 2 K, D) -> (..., C)
Keep = Callable[[int, Tensor], None]  # block, its keys and values (B, 2, K, D), which go into the cache


@dataclass(frozen=True)
class BlockLayers:
    """What a block computes beside its attention, each from (..., C)."""

    norm_1: Layer
    qkv: Layer  # to (..., (H + 2 K) D)
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
            raise ValueError("int8 weights are for the CPU: give --trainer.accelerator cpu, or no --weights")
        linear = float_linear if weights == "float" else int8_linear
        self.config = config
        self.wte = weight
        self.wpe = gpt.wpe.weight if config.arch == "gpt2" else None
        self.rope = gpt.rope if config.arch == "modern" else None
        # On a CPU nothing multiplies one row quicker than a product with a vector.
        self.likes_vectors = weights == "float" and weight.device.type == "cpu"
        self.room = torch.tensor(RMS_EPS, device=weight.device)
        self.blocks = [block_layers(cast(Block, block), config, linear) for block in gpt.h]
        self.ln_f, self.lm_head = norm(gpt.ln_f), linear(gpt.lm_head.weight)

    def new_cache(self, batch_size: int, n_tokens: int) -> Tensor:
        """Empty keys and values, (2, n_layer, B, K, n_tokens, D): the shape stays while one writes."""
        config = self.config
        shape = (2, config.n_layer, batch_size, config.kv_heads, n_tokens, config.head_width)
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
        cache = self.new_cache(*ids.shape)
        return self.lm_head(self.ln_f(self._read(cache, list(range(len(ids))), ids)))

    def _read(self, cache: Tensor, rows: list[int], ids: Tensor) -> Tensor:
        """Token ids (len(rows), T) into the cache and through all blocks, to (len(rows), T, C)."""
        T, H, K = ids.shape[1], self.config.n_head, self.config.kv_heads
        places: list[int] | slice = slice(None) if len(rows) == cache.shape[2] else rows

        def attention(i: int, heads: Tensor) -> Tensor:
            q, k, v = heads.transpose(1, 2).split([H, K, K], dim=1)  # (B, H, T, D), twice (B, K, T, D)
            cache[0, i, places, :, :T], cache[1, i, places, :, :T] = k, v
            return attend(q, k, v).transpose(1, 2).flatten(2)

        x = F.embedding(ids, self.wte)
        if self.wpe is not None:
            x = x + self.wpe[:T]
        return self._blocks(x, None if self.rope is None else self.rope[:, :T, None], attention)

    def decode(self, cache: Tensor, ids: Tensor, positions: list[int]) -> Tensor:
        """Read one more token in every row.

        Args:
            cache: What is read and written to.
            ids: Token ids, (B,).
            positions: How many tokens the cache holds of each row, below block_size.

        Returns:
            Logits of the token after it, (B, V).
        """
        last = max(positions)
        read = cache[:, :, :, :, : last + 1]
        if min(positions) < last:
            return self.decode_at(read, ids, torch.tensor(positions, device=ids.device))
        newest = read[:, :, :, :, last].permute(1, 2, 0, 3, 4).unbind()  # of each block, (B, 2, K, D)

        def keep(i: int, keys_and_values: Tensor) -> None:
            newest[i].copy_(keys_and_values)

        return self._decode(read, ids, last, keep, None)

    def decode_at(self, cache: Tensor, ids: Tensor, positions: Tensor) -> Tensor:
        """The same with positions (B,) on the device, and shapes that do not depend on them.

        All of the cache is read, and masked beyond each row's position.
        """
        every_row = torch.arange(len(ids), device=ids.device)
        there = torch.arange(cache.shape[4], device=ids.device) <= positions[:, None]  # (B, n)

        def keep(i: int, keys_and_values: Tensor) -> None:
            cache[:, i, every_row, :, positions] = keys_and_values

        return self._decode(cache, ids, positions, keep, there[:, None, None])

    def _decode(
        self, cache: Tensor, ids: Tensor, where: int | Tensor, keep: Keep, mask: Tensor | None
    ) -> Tensor:
        """Tokens (B,) through all blocks, to (B, V); `mask` is what each row sees of the cache."""
        B, H, K, D = len(ids), self.config.n_head, self.config.kv_heads, self.config.head_width
        keys, values = (part.unbind() for part in cache)  # of each block, (B, K, n, D)

        def attention(i: int, heads: Tensor) -> Tensor:
            keep(i, heads.narrow(-2, H, 2 * K).view(B, 2, K, D))
            # The queries that share a head's keys stand where several tokens' would.
            q = heads.narrow(-2, 0, H).view(B, K, -1, D)  # (B, K, H / K, D)
            y = F.scaled_dot_product_attention(q, keys[i], values[i], attn_mask=mask)
            return y.reshape(*heads.shape[:-2], H * D)

        x = torch.embedding(self.wte, ids)  # (B, C)
        if self.wpe is not None:
            x = x + self.wpe[where]
        rope = None
        if self.rope is not None:
            rope = self.rope[:, where].unsqueeze(-2)  # (2, 1, D), or (2, B, 1, D)
        if B == 1 and self.likes_vectors:
            x = x[0]
        return self.lm_head(self.ln_f(self._blocks(x, rope, attention))).view(B, -1)

    def _blocks(self, x: Tensor, rope: Tensor | None, attention: Attend) -> Tensor:
        """All blocks; (..., C) -> (..., C)."""
        D = self.config.head_width
        n_turned = self.config.n_head + self.config.kv_heads
        shape = (*x.shape[:-1], -1, D)
        cos, sin = (None, None) if rope is None else rope.unbind()
        for i, block in enumerate(self.blocks):
            heads = block.qkv(block.norm_1(x)).view(shape)  # (..., H + 2 K, D)
            if cos is not None and sin is not None and block.qk_norm is not None:
                turned = heads.narrow(-2, 0, n_turned)
                normed = rms_normed(turned.float(), self.room) * block.qk_norm
                turned.copy_(torch.addcmul(normed * cos, normed.roll(D // 2, dims=-1), sin))
            x += block.attn_proj(attention(i, heads))
            x += block.mlp(block.norm_2(x))
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
    """A linear layer's function, in the way that is quickest for a token of one row or of several."""
    large = (
        weight.device.type == "cpu"
        and weight.numel() >= LARGE_MATRIX
        and torch.backends.mkldnn.is_available()
    )

    @cache  # with the first several rows: a copy that one row has no use for
    def packed() -> Tensor:
        return torch.ops.mkldnn._reorder_linear_weight(weight.detach())

    def layer(x: Tensor) -> Tensor:
        if x.dim() == 1:
            return torch.mv(weight, x) if bias is None else torch.addmv(bias, weight, x)
        if large and x.shape[:-1].numel() >= SEVERAL_ROWS:
            return torch.ops.mkldnn._linear_pointwise(x, packed(), bias, "none", [], "")
        return F.linear(x, weight, bias)

    return layer


def int8_linear(weight: Tensor, bias: Tensor | None = None) -> Layer:
    """The same in 8-bit numbers: a scale for each row of the weight, a scale and an offset for each token.

    The kernel has one scale for all tokens. So each is brought to a range of 0 to 1 before, and back after:
    what it becomes does not depend on those beside it.
    """
    weight = weight.detach().float()
    scales = weight.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
    zeros = torch.zeros(len(weight), dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch means to remove it, but has nothing as quick for one token
        rounded = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(rounded, None)
    sums = rounded.dequantize().sum(dim=1)  # (out,)
    offset = torch.zeros_like(sums) if bias is None else bias
    seven_bits = not torch.cpu._is_vnni_supported()  # sums of more overflow on older CPUs

    def layer(x: Tensor) -> Tensor:
        low, high = x.aminmax(dim=-1, keepdim=True)  # (..., 1)
        spread = high.sub_(low).clamp_(min=SMALLEST_SPREAD)
        y = torch.ops.quantized.linear_dynamic(x.sub(low).div_(spread), packed, seven_bits)
        return torch.addcmul(offset, low, sums).addcmul_(y, spread)

    return layer


def norm(layer: nn.Module) -> Layer:
    """A LayerNorm's or RMSNorm's function."""
    if isinstance(layer, nn.LayerNorm):
        shape, weight, bias, eps = tuple(layer.normalized_shape), layer.weight, layer.bias, layer.eps
        return lambda x: torch.layer_norm(x, shape, weight, bias, eps)
    assert isinstance(layer, nn.RMSNorm)
    scale, room = layer.weight, layer.weight.new_tensor(RMS_EPS)
    return lambda x: rms_normed(x, room) * scale


def rms_normed(x: Tensor, room: Tensor) -> Tensor:
    """Scaled to a root mean square of 1, in fewer steps than PyTorch's own takes; (..., C) -> (..., C).

    `room` is what is added to the mean square, (), of the type of `x`.
    """
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)  # (..., 1)
    return x * torch.addcmul(room, size, size, value=1 / x.shape[-1]).rsqrt_()
