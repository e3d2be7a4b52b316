"""What callbacks need of a step's gradient."""

from typing import Any, cast

from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer


def trained_parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    """What the optimizer moves."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def gradient_norm(pl_module: LightningModule, optimizer: Optimizer) -> Tensor:
    """The L2 norm of the step's gradient over all parameters, (): measured once a step, before clipping."""
    step = cast(Any, pl_module)
    if step.grad_norm is None:
        gradients = [p.grad for p in trained_parameters(optimizer) if p.grad is not None]
        step.grad_norm = whole_norm(get_total_norm(gradients))
    return cast(Tensor, step.grad_norm)


def whole_norm(norm: Tensor) -> Tensor:
    """A norm over all devices, where each has a share of the gradient; all ranks have to ask."""
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
