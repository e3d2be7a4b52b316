"""Next-token cross-entropy, in chunks if all logits would need too much memory, and its mean over batches."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from lit_gpt_scratch.data.batches import IGNORE
from lit_gpt_scratch.model.gpt import GPT

# Maximum number of logits in memory at a time; 2^24 are 64 MB of float32. In training, each chunk updates the
# whole gradient of the output head, so larger chunks cost less, and a GPU has more memory for them.
MAX_LOGITS_CPU = 2**24
MAX_LOGITS_GPU = 2**27


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean loss in nats over targets that are not IGNORE; logits (B, T, V), targets (B, T)."""
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE)


def next_token_loss(gpt: GPT, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of a GPT in nats per token, for training; inputs and targets (B, T)."""
    if targets.numel() * gpt.config.vocab_size <= max_logits(inputs.device):
        return cross_entropy(gpt(inputs), targets)
    features = gpt.features(inputs).flatten(0, 1)  # (B T, C)
    return ChunkedCrossEntropy.apply(features, gpt.lm_head.weight, targets.flatten())


def evaluation_loss(gpt: GPT, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean loss in nats over targets that are not IGNORE; inputs and targets (B, T).

    The logits are computed in chunks of at most `max_logits` elements. Call this under `torch.no_grad`:
    autograd would keep the logits of all chunks in memory.
    """
    max_rows = max(1, max_logits(inputs.device) // gpt.config.vocab_size)
    if targets.numel() <= max_rows:
        return cross_entropy(gpt(inputs), targets)
    features, targets = gpt.features(inputs).flatten(0, 1), targets.flatten()  # (B T, C), (B T,)
    chunks = zip(features.split(max_rows), targets.split(max_rows), strict=True)
    losses = [
        F.cross_entropy(gpt.lm_head(x).float(), y, ignore_index=IGNORE, reduction="sum") for x, y in chunks
    ]
    return torch.stack(losses).sum() / (targets != IGNORE).sum()


def max_logits(device: torch.device) -> int:
    """Return the maximum number of logits in a device's memory at a time."""
    return MAX_LOGITS_CPU if device.type == "cpu" else MAX_LOGITS_GPU


class MeanLoss(Metric):
    """Mean loss per token over batches and devices; NaN if the loss of a batch is NaN.

    torchmetrics' `MeanMetric` omits NaN losses, and its check for NaN waits for the GPU in each batch.
    """

    total: Tensor
    n_tokens: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("n_tokens", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, loss: Tensor, n_tokens: Tensor) -> None:
        """Add a batch, given its mean loss and its number of tokens, both scalars."""
        self.total += loss.to(self.total.dtype) * n_tokens
        self.n_tokens += n_tokens

    def compute(self) -> Tensor:
        """Return the mean loss per token over all batches that were added, a scalar."""
        return self.total / self.n_tokens


class ChunkedCrossEntropy(torch.autograd.Function):
    """Output head and cross-entropy, fused: the forward pass also computes the gradients, chunk by chunk.

    With GPT-2's vocabulary, the logits take several times the memory of everything else in a step. Here at
    most `max_logits` logits exist at a time, and none are kept for the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss in nats; features (N, C), head weight (V, C), targets (N,) for N = B * T."""
        kind = features.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        n_targets = (targets != IGNORE).sum().clamp(min=1)
        loss = torch.zeros((), device=features.device)
        d_features, d_weight = torch.empty_like(features), torch.zeros_like(weight)
        n_rows = max(1, max_logits(features.device) // len(weight))
        with torch.autocast(kind, enabled=False):
            head = weight.to(dtype)
            for x, y, d_x in zip(*(t.split(n_rows) for t in (features, targets, d_features)), strict=True):
                x = x.to(dtype)  # (n_rows, C)
                logits = (x @ head.T).float()  # (n_rows, V)
                loss += F.cross_entropy(logits, y, ignore_index=IGNORE, reduction="sum")
                # The gradient of cross-entropy is the softmax, minus 1 at the target.
                d_logits = torch.softmax(logits, dim=-1, out=logits)
                is_target = (y != IGNORE)[:, None]
                d_logits.scatter_add_(1, y.clamp(min=0)[:, None], -is_target.to(d_logits.dtype))
                d_logits = (d_logits * (is_target / n_targets)).to(dtype)
                d_x.copy_(d_logits @ head)
                d_weight += d_logits.T @ x
        ctx.save_for_backward(d_features, d_weight)
        return loss / n_targets

    @staticmethod
    def backward(ctx: Any, *d_loss: Tensor) -> tuple[Tensor, Tensor, None]:
        """Return the gradients from `forward` times the upstream gradient `d_loss`; None for targets."""
        d_features, d_weight = ctx.saved_tensors
        return d_features * d_loss[0], d_weight * d_loss[0], None
