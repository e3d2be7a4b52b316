"""Dropout, RMSNorm, attention and rotary position embedding, fast on a CPU and in mixed precision.

Letters in shapes: B batch, T time (tokens), H query heads, K key and value heads, D channels of a head.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LANES = 4  # 16-bit integers in a 64-bit one
N_LEVELS = 2**16  # values of a 16-bit integer


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Apply dropout in training (Srivastava et al. 2014).

    A fraction `p` of the activations is set to 0, and the kept activations are divided by 1 - `p`. On a CPU,
    one random 64-bit integer is split into four 16-bit integers for four activations, which rounds `p` to a
    multiple of 1 / 65536: drawing a random float for each activation would take longer than the matrix
    products before and after the dropout. Other devices use PyTorch's dropout.
    """
    if not training or p == 0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p)
    n_dropped = round(p * N_LEVELS)
    draws = torch.randint(-(2**63), 2**63 - 1, (-(-x.numel() // LANES),))
    lanes = draws.view(torch.int16)[: x.numel()].view(x.shape)
    is_kept = lanes >= n_dropped - N_LEVELS // 2
    return x * (is_kept * x.new_tensor(N_LEVELS / (N_LEVELS - n_dropped)))


class RMSNorm(nn.RMSNorm):
    """`nn.RMSNorm` (Zhang & Sennrich 2019) in fewer operations, for small models on a CPU.

    The epsilon is a tensor because operations with a Python number take twice as long.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__(width, eps=eps)
        self.epsilon: Tensor
        self.register_buffer("epsilon", torch.tensor(eps), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last dimension; (..., C) -> (..., C), in the dtype of `x`."""
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)  # (..., 1)
        scale = torch.addcmul(self.epsilon, norm, norm, value=1 / x.shape[-1]).rsqrt()
        return x * scale * self.weight.to(x.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout_p: float = 0.0) -> Tensor:
    """Compute causal scaled dot-product attention (Vaswani et al. 2017).

    On a CPU, attention is computed in float32 whatever the precision of the inputs or of autocast, because
    the backward pass of PyTorch's bfloat16 attention is many times slower.

    Args:
        q: Queries, (B, H, T, D).
        k: Keys, (B, K, N, D); K divides H. Without a mask, N must equal T unless T is 1.
        v: Values, (B, K, N, D).
        mask: Boolean mask, (B, 1, T, N), True where a query attends to a key; None for causal attention.
        dropout_p: Dropout probability of the attention weights; must be 0 with a mask.

    Returns:
        Attention output of each head, (B, H, T, D), in the dtype of `v`.
    """
    if q.is_cpu and (v.dtype != torch.float32 or torch.is_autocast_enabled("cpu")):
        with torch.autocast("cpu", enabled=False):
            return attend(q.float(), k.float(), v.float(), mask, dropout_p).to(v.dtype)
    H, K, T = q.shape[1], k.shape[1], q.shape[2]
    is_causal = mask is None and T > 1
    if not q.is_cpu:
        q, k = q.to(v.dtype), k.to(v.dtype)
        return F.scaled_dot_product_attention(q, k, v, mask, dropout_p, is_causal, enable_gqa=K < H)
    if dropout_p:
        assert mask is None, "dropout of attention weights is for training, which has no cache"
        return dropout(attention_weights(q, k), dropout_p, training=True) @ repeat_kv(v, H)
    if T == 1 and K < H:  # query heads that share keys become the token dimension
        return F.scaled_dot_product_attention(q.view(len(q), K, H // K, -1), k, v, mask).view(q.shape)
    return F.scaled_dot_product_attention(q, repeat_kv(k, H), repeat_kv(v, H), mask, is_causal=is_causal)


def attention_weights(q: Tensor, k: Tensor) -> Tensor:
    """Return the softmax weights of causal attention.

    Args:
        q: Queries, (B, H, T, D).
        k: Keys, (B, K, T, D); K divides H.

    Returns:
        Weight of each key (last dimension) for each query, (B, H, T, T); sums to 1 over the keys.
    """
    T = q.shape[2]
    future = torch.ones(T, T, dtype=torch.bool, device=q.device).triu(1)
    scores = (q @ repeat_kv(k, q.shape[1]).mT) * q.shape[3] ** -0.5
    return scores.masked_fill(future, -torch.inf).softmax(dim=-1)


def repeat_kv(x: Tensor, n_head: int) -> Tensor:
    """Repeat keys or values for the query heads that share them; (B, K, T, D) -> (B, H, T, D)."""
    return x if x.shape[1] == n_head else x.repeat_interleave(n_head // x.shape[1], dim=1)


def precompute_rope(length: int, width: int, theta: float) -> Tensor:
    """Return the cosine and sine of each channel's rotation angle at each position, (2, T, D).

    Channels i and i + D / 2 form a pair, which is rotated by theta ** (-2 i / D) radians per token (Su et al.
    2021, "RoFormer"). The sine is negated for the first channel of each pair, as `apply_rope` needs it.

    Args:
        length: Number of positions, T.
        width: Number of channels of a head, D.
        theta: Base of the rotation frequencies.
    """
    frequencies = theta ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies  # (T, D / 2)
    cos = torch.cat([angles.cos(), angles.cos()], dim=-1)
    sin = torch.cat([-angles.sin(), angles.sin()], dim=-1)
    return torch.stack([cos, sin]).float()


def apply_rope(x: Tensor, rope: Tensor) -> Tensor:
    """Rotate each pair of channels by its angle in `rope`; (B, H, T, D), (2, ..., T, D) -> (B, H, T, D)."""
    cos, sin = rope.unbind()
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)
