"""The GPT-2 architecture, from token ids to logits.

References: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners" (the model);
Vaswani et al. 2017, "Attention Is All You Need" (attention). Parameter names are those of GPT-2's
published weights.

Letters in shapes: B batch, T time (tokens), C = n_embd channels, H heads, D = C / H, V vocabulary.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class GPTConfig:
    """Shape of a GPT.

    Args:
        vocab_size: Number of distinct tokens, V.
        block_size: Longest context in tokens, T.
        n_layer: Number of transformer blocks.
        n_head: Attention heads of a block, H; divides n_embd.
        n_embd: Width of the residual stream, C.
        dropout: Share of activations dropped in training, 0 to below 1.
        bias: Biases in the MLPs and LayerNorms.
        attn_bias: Biases of attention's queries, keys and values.
        attn_proj_bias: Biases of attention's output projection; null is the same as attn_bias.
        tie_weights: One matrix serves as token embedding and as output head.
        activation: Nonlinearity of the MLPs; gelu_tanh is GPT-2's own, a close and quicker approximation.

    Raises:
        ValueError: A size is not positive, n_head does not divide n_embd, or dropout is out of range.
    """

    vocab_size: int
    block_size: int = 64
    n_layer: int = 4
    n_head: int = 4
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


class GPT(nn.Module):
    """A decoder-only transformer with learned positions."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        if config.tie_weights:
            self.lm_head.weight = self.wte.weight
        self.init_weights()

    def init_weights(self) -> None:
        """N(0, 0.02) as in GPT-2, biases 0, and the layers into the residual stream scaled by its depth."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif name.endswith("c_proj.weight"):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * self.config.n_layer))
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, idx: Tensor) -> Tensor:
        """Map token ids (B, T) to the logits (B, T, V) of each next token.

        Raises:
            ValueError: T is longer than block_size.
        """
        T = idx.shape[1]
        if self.config.block_size < T:
            raise ValueError(f"{T} tokens do not fit into a block of {self.config.block_size}")
        x = self.drop(self.wte(idx) + self.wpe.weight[:T])  # (B, T, C) + (T, C) -> (B, T, C)
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))  # (B, T, V)


class Block(nn.Module):
    """Attention lets tokens talk, the MLP lets each one think; both add to the residual stream."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class CausalSelfAttention(nn.Module):
    """Each token gathers from itself and the tokens before it."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.attn_bias)
        proj_bias = config.attn_bias if config.attn_proj_bias is None else config.attn_proj_bias
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=proj_bias)
        self.resid_drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        B, T, C = x.shape
        qkv = self.c_attn(x).view(B, T, 3, self.n_head, C // self.n_head)  # (B, T, 3, H, D)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # three of (B, H, T, D)
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)  # (B, H, T, D)
        y = y.transpose(1, 2).reshape(B, T, C)  # heads side by side again
        return self.resid_drop(self.c_proj(y))


class MLP(nn.Module):
    """Two layers, four times as wide between them, applied to each token alone."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.act = nn.GELU(approximate="tanh" if config.activation == "gelu_tanh" else "none")
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return self.drop(self.c_proj(self.act(self.c_fc(x))))
