"""The loss: next-token cross-entropy, without keeping all logits where they would be many."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gpt_scratch.data.windows import IGNORE
from lit_gpt_scratch.model.gpt import GPT

# More logits than these are made, used and dropped a chunk at a time: 64 MB of float32 on a CPU. Every chunk
# adds to the whole gradient of the output head, so that a GPU, which has room, takes fewer.
LOGITS_AT_ONCE = 2**24
LOGITS_AT_ONCE_ON_GPU = 2**27


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean negative log-likelihood in nats over the targets that count; (B, T, V) and (B, T) -> ()."""
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE)


def next_token_loss(gpt: GPT, inputs: Tensor, targets: Tensor) -> Tensor:
    """`cross_entropy` of a GPT's logits, to train on; inputs and targets (B, T) -> ()."""
    if targets.numel() * gpt.config.vocab_size <= logits_at_once(inputs.device):
        return cross_entropy(gpt(inputs), targets)
    features = gpt.features(inputs).flatten(0, 1)  # (B T, C)
    return ChunkedCrossEntropy.apply(features, gpt.lm_head.weight, targets.flatten())


def logits_at_once(device: torch.device) -> int:
    """How many logits there may be at a time while a model trains."""
    return LOGITS_AT_ONCE if device.type == "cpu" else LOGITS_AT_ONCE_ON_GPU


class ChunkedCrossEntropy(torch.autograd.Function):
    """Output head and cross-entropy in one: each chunk's logits become loss and gradients at once.

    The logits of GPT-2's vocabulary take several times the memory of all else in a step. Here no more than
    `logits_at_once` of them are there, and none wait for the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        """Features (N, C), weight (V, C) and targets (N,) to the mean loss ()."""
        kind = features.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        n_targets = (targets != IGNORE).sum().clamp(min=1)
        loss = torch.zeros((), device=features.device)
        d_features, d_weight = torch.empty_like(features), torch.zeros_like(weight)
        chunk = max(1, logits_at_once(features.device) // len(weight))
        with torch.autocast(kind, enabled=False):
            head = weight.to(dtype)
            for x, wanted, d_x in zip(
                features.split(chunk), targets.split(chunk), d_features.split(chunk), strict=True
            ):
                x = x.to(dtype)
                logits = (x @ head.T).float()  # (chunk, V)
                loss += F.cross_entropy(logits, wanted, ignore_index=IGNORE, reduction="sum")
                # The gradient of cross-entropy is softmax less 1 at the target.
                d_logits = torch.softmax(logits, dim=-1, out=logits)
                counts = (wanted != IGNORE)[:, None]
                d_logits.scatter_add_(1, wanted.clamp(min=0)[:, None], -counts.to(d_logits.dtype))
                d_logits = (d_logits * (counts / n_targets)).to(dtype)
                d_x.copy_(d_logits @ head)
                d_weight += d_logits.T @ x
        ctx.save_for_backward(d_features, d_weight)
        return loss / n_targets

    @staticmethod
    def backward(ctx: Any, *d_loss: Tensor) -> tuple[Tensor, Tensor, None]:
        """The gradients are there; they are only scaled."""
        d_features, d_weight = ctx.saved_tensors
        return d_features * d_loss[0], d_weight * d_loss[0], None
