"""Layers of which PyTorch's own are slow on a CPU or in mixed precision, and rotary positions.

Letters in shapes: B batch, T time (tokens), H heads, K heads of keys and values, D channels of a head.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LANES = 4  # numbers of 16 bits in one of 64
STEPS = 2**16  # how finely 16 bits divide a probability


class Dropout(nn.Module):
    """Sets a share `p` of the activations to 0 in training and scales the rest up (Srivastava et al. 2014).

    On a CPU, a random float for each activation takes longer than the matrices around it. Four 16-bit
    numbers out of each draw of 64 bits are as good: `p` is rounded to a multiple of 1 / 65536.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        dropped = round(self.p * STEPS)
        draws = torch.randint(-(2**63), 2**63 - 1, (-(-x.numel() // LANES),))
        lanes = draws.view(torch.int16)[: x.numel()].view(x.shape)
        kept = lanes >= dropped - STEPS // 2
        return x * (kept * x.new_tensor(STEPS / (STEPS - dropped)))


class RMSNorm(nn.RMSNorm):
    """Scales to a root mean square of 1, times a weight (Zhang & Sennrich 2019), in the input's type."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        assert self.eps is not None
        weight = self.weight.to(x.dtype)
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return F.rms_norm(x, weight.shape, weight, self.eps)
        return RMSNormOnCPU.apply(x, weight, self.eps)


class RMSNormOnCPU(torch.autograd.Function):
    """The same with its gradient written out: half the passes over memory that PyTorch's makes on a CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """(..., C) and (C,) -> (..., C)."""
        mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        scale = mean_square.add_(eps).rsqrt_()  # (..., 1)
        normed = x * scale
        ctx.save_for_backward(normed, scale, weight)
        return normed * weight

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """Of x: scale (g w - normed mean(g w normed)); of the weight: g normed, summed over all but C."""
        normed, scale, weight = ctx.saved_tensors
        d_weight = grad[0] * normed
        mean = (d_weight @ weight[:, None]).div_(-len(weight))  # (..., 1)
        d_x = (grad[0] * weight).addcmul_(normed, mean).mul_(scale)
        return d_x, d_weight.sum(dim=tuple(range(d_weight.dim() - 1))), None


def attend(q: Tensor, k: Tensor, v: Tensor, dropout: Dropout | None = None) -> Tensor:
    """Causal scaled dot-product attention (Vaswani et al. 2017), with dropout of its weights if asked.

    On a CPU it is computed in float32, whatever the precision of the rest: PyTorch's bfloat16 backward pass
    is many times slower there.

    Args:
        q: Queries, (B, H, T, D).
        k: Keys, (B, K, T, D); K divides H.
        v: Values, (B, K, T, D).
        dropout: What the weights go through.

    Returns:
        (B, H, T, D), in the type of `v`.
    """
    p = dropout.p if dropout is not None and dropout.training else 0.0
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(
            q.to(v.dtype), k.to(v.dtype), v, dropout_p=p, is_causal=True, enable_gqa=k.shape[1] != q.shape[1]
        )
    with torch.autocast("cpu", enabled=False):
        queries, keys, values = q.float(), k.float(), v.float()
        keys, values = (for_each_head(x, q.shape[1]) for x in (keys, values))
        if dropout is not None and p:
            return (dropout(attention_weights(queries, keys)) @ values).to(v.dtype)
        return F.scaled_dot_product_attention(queries, keys, values, is_causal=True).to(v.dtype)


def attention_weights(q: Tensor, k: Tensor) -> Tensor:
    """How much each token gathers from itself and each one before it; rows add up to 1.

    Args:
        q: Queries, (B, H, T, D).
        k: Keys, (B, K, T, D); K divides H.

    Returns:
        (B, H, T, T).
    """
    T = q.shape[2]
    future = torch.ones(T, T, dtype=torch.bool, device=q.device).triu(1)
    scores = (q @ for_each_head(k, q.shape[1]).mT) * q.shape[3] ** -0.5
    return scores.masked_fill(future, -torch.inf).softmax(dim=-1)


def for_each_head(x: Tensor, n_head: int) -> Tensor:
    """Keys or values, again for each of the heads that share them; (B, K, T, D) -> (B, H, T, D)."""
    return x if x.shape[1] == n_head else x.repeat_interleave(n_head // x.shape[1], dim=1)


def rotations(length: int, width: int, theta: float) -> Tensor:
    """Cosine and signed sine of the angle by which each channel turns at each position; (2, T, D).

    Su et al. 2021, "RoFormer": the pair (i, i + D / 2) turns by theta ** (-2 i / D) a token.
    """
    speeds = theta ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * speeds  # (T, D / 2)
    cos = torch.cat([angles.cos(), angles.cos()], dim=-1)
    sin = torch.cat([-angles.sin(), angles.sin()], dim=-1)
    return torch.stack([cos, sin]).float()


def rotate(x: Tensor, rope: Tensor) -> Tensor:
    """Turn each pair of channels by the angle of its position; (B, H, T, D) and (2, T, D) -> (B, H, T, D)."""
    cos, sin = rope.unbind()
    return Rotation.apply(x, cos, sin)


class Rotation(torch.autograd.Function):
    """x cos + (x with its halves exchanged) sin; the gradient turns back, in half of autograd's passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """(B, H, T, D) and twice (T, D) -> (B, H, T, D)."""
        ctx.save_for_backward(cos, sin)
        return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None]:
        """Turn back."""
        cos, sin = ctx.saved_tensors
        g = grad[0]
        return torch.addcmul(g * cos, g.roll(g.shape[-1] // 2, dims=-1), sin, value=-1), None, None
