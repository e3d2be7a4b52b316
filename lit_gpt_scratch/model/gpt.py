"""GPT in two architectures, `gpt2` and `modern`: from token ids to logits.

References: Vaswani et al. 2017, "Attention Is All You Need". For gpt2, Radford et al. 2019, "Language
Models are Unsupervised Multitask Learners"; parameters have the names of its published weights. For modern,
with the layout of Qwen Team 2025, "Qwen3 Technical Report": Zhang & Sennrich 2019 (RMSNorm), Su et al. 2021
(rotary position embedding), Shazeer 2020 (SwiGLU), Ainslie et al. 2023 (grouped-query attention) and Henry et
al. 2020 (QK-norm).

Letters in shapes: B batch, T time (tokens), C = n_embd channels, H heads, K = n_kv_head, D = C / H channels
of a head, V vocabulary.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lit_gpt_scratch.model.kv_cache import KVCache, LayerCache
from lit_gpt_scratch.model.layers import RMSNorm, apply_rope, attend, dropout, precompute_rope

ROPE_THETA = 10_000.0  # the longest wavelength is 2 pi times this, in tokens
RMS_EPS = 1e-6
GPT2_STD = 0.02  # standard deviation of GPT-2's initial weights


@dataclass(frozen=True)
class GPTConfig:
    """Architecture and size of a GPT.

    Args:
        vocab_size: Number of distinct tokens, V.
        arch: gpt2 is GPT-2's architecture (docs/tutorials.md); modern, like Qwen3, has RMSNorm, rotary
            position embedding, QK-norm, SwiGLU and no biases, and a lower loss after as many training tokens.
        block_size: Longest context in tokens, T.
        n_layer: Number of transformer blocks.
        n_head: Number of attention heads in each block, H, a divisor of n_embd.
        n_kv_head: Number of key/value heads in modern, K, each for n_head / K query heads; null means n_head.
        n_embd: Width of the residual stream, C.
        dropout: Dropout probability in training, at least 0 and below 1.
        bias: Biases in gpt2's MLPs and LayerNorms.
        attn_bias: Biases of gpt2's query, key and value projections.
        attn_proj_bias: Bias of gpt2's attention output projection; null means attn_bias.
        tie_weights: Whether the output head shares the weights of the token embedding.
        activation: Nonlinearity of gpt2's MLPs; gelu_tanh is GPT-2's approximation of gelu.

    Raises:
        ValueError: A size or dropout is out of range; n_embd / n_head or n_head / n_kv_head is no integer;
            n_embd / n_head is odd in modern; or an option does not apply to arch.
    """

    vocab_size: int
    arch: Literal["gpt2", "modern"] = "gpt2"
    block_size: int = 64
    n_layer: int = 4
    n_head: int = 4
    n_kv_head: int | None = None
    n_embd: int = 128
    dropout: float = 0.0
    bias: bool = True
    attn_bias: bool = False
    attn_proj_bias: bool | None = None
    tie_weights: bool = True
    activation: Literal["gelu", "gelu_tanh"] = "gelu_tanh"

    def __post_init__(self) -> None:
        for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
            if not getattr(self, name) or getattr(self, name) < 1:
                raise ValueError(f"model.{name} must be at least 1, not {getattr(self, name)}")
        if self.n_embd % self.n_head:
            raise ValueError(
                f"model.n_embd ({self.n_embd}) must be a multiple of model.n_head ({self.n_head}): "
                f"try {self.n_embd // self.n_head * self.n_head or self.n_head}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"model.dropout must be at least 0 and below 1, not {self.dropout}")
        if self.arch == "gpt2" and self.n_kv_head not in (None, self.n_head):
            raise ValueError("model.n_kv_head is for model.arch modern: in gpt2, it equals model.n_head")
        if self.n_kv_head is not None and (self.n_kv_head < 1 or self.n_head % self.n_kv_head):
            raise ValueError(f"model.n_kv_head ({self.n_kv_head}) must divide model.n_head ({self.n_head})")
        if self.arch == "modern" and self.head_dim % 2:
            raise ValueError(
                "model.arch modern rotates pairs of a head's channels: model.n_embd / model.n_head must be "
                f"even, not {self.head_dim}"
            )
        if self.arch == "modern" and (self.attn_bias or self.attn_proj_bias):
            raise ValueError("model.arch modern has no biases: omit model.attn_bias and model.attn_proj_bias")

    @property
    def head_dim(self) -> int:
        """Number of channels of a head, D."""
        return self.n_embd // self.n_head

    @property
    def kv_heads(self) -> int:
        """Number of key and value heads, K."""
        return self.n_head if self.n_kv_head is None else self.n_kv_head

    @property
    def mlp_width(self) -> int:
        """Number of hidden MLP channels: 4 C (gpt2), or 8/3 C rounded up to a multiple of 32 (modern)."""
        return 4 * self.n_embd if self.arch == "gpt2" else -(-8 * self.n_embd // 96) * 32


class GPT(nn.Module):
    """A decoder-only transformer."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.is_compiled = False
        self.activation_checkpointing = False  # recompute blocks in the backward pass, to save memory
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        if config.arch == "gpt2":
            self.wpe = nn.Embedding(config.block_size, config.n_embd)
        else:
            self.rope: Tensor
            self.register_buffer(
                "rope", precompute_rope(config.block_size, config.head_dim, ROPE_THETA), persistent=False
            )
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = norm(config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        if config.tie_weights:
            self.lm_head.weight = self.wte.weight
        self.init_weights()

    def init_weights(self) -> None:
        """Initialize the weights from normal distributions; biases are 0.

        Standard deviations of gpt2: 0.02, and 0.02 / sqrt(n) for the n layers that add to the residual
        stream. Of modern: 0.02 for embedding and head; 0 for layers that add to the residual stream, so that
        a block starts as the identity (Zhang et al. 2019, "Fixup Initialization"); 1 / sqrt(C) for others,
        which keeps the scale of activations (LeCun et al. 1998, "Efficient BackProp"). With a tied head, the
        largest initial logit would be the input token's own; the final norm's initial weight makes it 1/2.
        """
        gpt2 = self.config.arch == "gpt2"
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif name.endswith("c_proj.weight"):
                nn.init.normal_(parameter, std=GPT2_STD / math.sqrt(2 * self.config.n_layer) if gpt2 else 0.0)
            elif parameter.dim() == 2:
                in_block = name.startswith("h.") and not gpt2
                nn.init.normal_(parameter, std=self.config.n_embd**-0.5 if in_block else GPT2_STD)
        if self.config.tie_weights and not gpt2:  # own logit: C * GPT2_STD * ln_f.weight
            nn.init.constant_(cast(Tensor, self.ln_f.weight), 0.5 / (GPT2_STD * self.config.n_embd))

    def compile_blocks(self) -> None:
        """Compile the blocks in place, so parameters keep their names; the blocks share the compiled code."""
        for block in self.h:
            block.compile()
        self.is_compiled = True

    @property
    def n_parameters(self) -> int:
        """Number of parameters; tied weights count once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(self, idx: Tensor, cache: KVCache | None = None) -> Tensor:
        """Return the next-token logits at each position.

        Args:
            idx: Token ids, (B, T).
            cache: Keys and values of the tokens before `idx`, extended in place; needs `torch.no_grad`.

        Returns:
            Logits, (B, T, V).

        Raises:
            ValueError: T is above block_size, or the cache lacks space for T more tokens.
        """
        return self.lm_head(self.features(idx, cache))

    def features(self, idx: Tensor, cache: KVCache | None = None) -> Tensor:
        """Return the input of the output head, (B, T) -> (B, T, C); arguments and errors as for `forward`."""
        T = idx.shape[1]
        positions: slice | Tensor = slice(0, T)
        layers: list[LayerCache] | list[None] = [None] * len(self.h)
        if cache is not None:
            positions, layers = cache.extend(T)
        elif self.config.block_size < T:
            raise ValueError(f"{T} tokens do not fit into a block of {self.config.block_size}")
        x = self.wte(idx)  # (B, T, C)
        rope = None
        if self.config.arch == "gpt2":
            x = x + self.wpe.weight[positions]
        else:
            rope = self.rope[:, positions].unsqueeze(-3)  # (2, 1, T, D) or (2, B, 1, T, D)
        x = dropout(x, self.config.dropout, self.training)
        for block, layer in zip(self.h, layers, strict=True):
            if self.activation_checkpointing and layer is None and torch.is_grad_enabled():
                x = checkpoint(block, x, rope, use_reentrant=False)
            else:
                x = block(x, rope, layer)
        return self.ln_f(x)

    def new_cache(self, batch_size: int, n_tokens: int) -> KVCache:
        """Return an empty cache for `batch_size` rows of up to min(`n_tokens`, block_size) tokens each."""
        c, capacity = self.config, min(n_tokens, self.config.block_size)
        shape = (2, c.n_layer, batch_size, c.kv_heads, capacity, c.head_dim)
        return KVCache(self.wte.weight.new_zeros(shape), [0] * batch_size)


@contextmanager
def eval_mode(gpt: GPT) -> Iterator[None]:
    """Disable dropout and compiled code (specialized for training shapes) within the ``with`` block."""
    was_training = gpt.training
    with torch.compiler.set_stance("force_eager") if gpt.is_compiled else nullcontext():
        gpt.eval()
        try:
            yield
        finally:
            gpt.train(was_training)


def norm(config: GPTConfig) -> nn.Module:
    """Return a new LayerNorm (gpt2) or RMSNorm (modern), a module that maps (..., C) to (..., C)."""
    C = config.n_embd
    return nn.LayerNorm(C, bias=config.bias) if config.arch == "gpt2" else RMSNorm(C, eps=RMS_EPS)


class Block(nn.Module):
    """Transformer block: attention and an MLP, each added to the residual stream (pre-norm)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        modern = config.arch == "modern"
        self.ln_1 = norm(config)
        self.attn = RotaryAttention(config) if modern else GPT2Attention(config)
        self.ln_2 = norm(config)
        self.mlp = SwiGLU(config) if modern else MLP(config)

    def forward(self, x: Tensor, rope: Tensor | None, cache: LayerCache | None = None) -> Tensor:
        """Apply the block; (B, T, C) -> (B, T, C), with the arguments of `Attention.forward`."""
        x = x + self.attn(self.ln_1(x), rope, cache)
        return x + self.mlp(self.ln_2(x))


class Attention(nn.Module):
    """Causal self-attention."""

    c_proj: nn.Linear

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.attn_dropout = config.dropout if config.arch == "gpt2" else 0.0
        self.dropout = config.dropout

    def forward(self, x: Tensor, rope: Tensor | None, cache: LayerCache | None = None) -> Tensor:
        """Return the attention outputs, (B, T, C); tokens attend to themselves and to all earlier tokens.

        Args:
            x: Input activations, (B, T, C).
            rope: Cosines and sines from `precompute_rope` at the tokens' positions, (2, 1, T, D), or
                (2, B, 1, T, D) if the positions differ by row; None for gpt2.
            cache: This block's keys and values of earlier tokens, extended in place.
        """
        q, k, v = self.heads(x, rope)
        mask = None
        if cache is not None:
            k, v = cache.append(k, v)
            mask = cache.mask
        y = attend(q, k, v, mask, self.attn_dropout if self.training else 0.0)  # (B, H, T, D)
        return dropout(self.c_proj(y.transpose(1, 2).flatten(2)), self.dropout, self.training)

    def heads(self, x: Tensor, rope: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries (B, H, T, D), keys (B, K, T, D) and values (B, K, T, D), given `x` (B, T, C)."""
        raise NotImplementedError


class GPT2Attention(Attention):
    """GPT-2's attention, with one linear layer for queries, keys and values."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.attn_bias)
        proj_bias = config.attn_bias if config.attn_proj_bias is None else config.attn_proj_bias
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=proj_bias)

    def heads(self, x: Tensor, rope: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, each (B, H, T, D), given `x` (B, T, C)."""
        B, T, C = x.shape
        q, k, v = self.c_attn(x).view(B, T, 3, -1, self.head_dim).permute(2, 0, 3, 1, 4)
        return q, k, v


class RotaryAttention(Attention):
    """Multi-head or grouped-query attention with QK-norm and rotary position embedding."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        kv_width = config.kv_heads * config.head_dim
        self.c_q = nn.Linear(config.n_embd, config.n_embd, bias=False)
        self.c_k = nn.Linear(config.n_embd, kv_width, bias=False)
        self.c_v = nn.Linear(config.n_embd, kv_width, bias=False)
        self.q_norm = RMSNorm(config.head_dim, eps=RMS_EPS)
        self.k_norm = RMSNorm(config.head_dim, eps=RMS_EPS)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=False)

    def heads(self, x: Tensor, rope: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries (B, H, T, D), keys (B, K, T, D) and values (B, K, T, D), given `x` (B, T, C)."""
        assert rope is not None
        B, T, _ = x.shape
        q, k, v = (
            project(x).view(B, T, -1, self.head_dim).transpose(1, 2).contiguous()
            for project in (self.c_q, self.c_k, self.c_v)
        )
        # QK-norm and rotation are in float32 in every precision.
        return apply_rope(self.q_norm(q.float()), rope), apply_rope(self.k_norm(k.float()), rope), v


class MLP(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, config.mlp_width, bias=config.bias)
        self.c_proj = nn.Linear(config.mlp_width, config.n_embd, bias=config.bias)
        self.approximate = "tanh" if config.activation == "gelu_tanh" else "none"
        self.dropout = config.dropout

    def forward(self, x: Tensor) -> Tensor:
        """Apply the MLP; (B, T, C) -> (B, T, C)."""
        y = self.c_proj(F.gelu(self.c_fc(x), approximate=self.approximate))
        return dropout(y, self.dropout, self.training)


class SwiGLU(nn.Module):
    """MLP with a SiLU-gated inner layer."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_gate = nn.Linear(config.n_embd, config.mlp_width, bias=False)
        self.c_fc = nn.Linear(config.n_embd, config.mlp_width, bias=False)
        self.c_proj = nn.Linear(config.mlp_width, config.n_embd, bias=False)
        self.dropout = config.dropout

    def forward(self, x: Tensor) -> Tensor:
        """Apply the MLP; (B, T, C) -> (B, T, C)."""
        y = self.c_proj(F.silu(self.c_gate(x)) * self.c_fc(x))
        return dropout(y, self.dropout, self.training)
