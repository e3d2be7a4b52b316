"""Optimizers, and learning rates as pure functions of the step."""

import math

from torch import nn
from torch.optim import AdamW


def warmup_cosine(step: int, peak: float, floor: float, warmup_steps: int, decay_steps: int) -> float:
    """The learning rate of a step: a linear rise to `peak`, then half a cosine down to `floor`.

    The rise counts from 1, so that step 0 trains already; the peak is reached at `warmup_steps` and the floor
    at `decay_steps`, where it stays (Loshchilov & Hutter 2017, "SGDR", without restarts).
    """
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    if step >= decay_steps:
        return floor
    progress = (step - warmup_steps) / (decay_steps - warmup_steps)
    return floor + 0.5 * (peak - floor) * (1 + math.cos(math.pi * progress))


def adamw(
    model: nn.Module, learning_rate: float, betas: tuple[float, float], weight_decay: float, fused: bool
) -> AdamW:
    """AdamW that decays matrices only: norms and biases are small in number and have no reason to shrink.

    Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization". `fused` asks for one kernel to do the
    update, where every parameter lies on a device that has it.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    fused = fused and all(p.device.type in ("cpu", "cuda", "mps") for p in parameters)
    return AdamW([group for group in groups if group["params"]], lr=learning_rate, betas=betas, fused=fused)
