"""AdamW and Muon."""

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from lit_gpt_scratch.model.gpt import GPT
from lit_gpt_scratch.training.hardware import has_bf16_units

NS_EPS = 1e-7  # lower bound of the norm by which Newton-Schulz divides a matrix


def check_optimizer(weight_decay: float, beta1: float, beta2: float, muon_learning_rate: float) -> None:
    """Check the options of the optimizers.

    Raises:
        ValueError: An option is out of range.
    """
    if weight_decay < 0:
        raise ValueError(f"model.weight_decay must not be negative, but is {weight_decay}")
    if not muon_learning_rate > 0:
        raise ValueError(f"model.muon_learning_rate must be above 0, not {muon_learning_rate}")
    if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
        raise ValueError(f"model.beta1 and model.beta2 must be at least 0 and below 1, not {beta1}, {beta2}")


def make_optimizer(
    gpt: GPT, kind: Literal["adamw", "muon"], betas: tuple[float, float], weight_decay: float, fused: bool
) -> Optimizer:
    """Return AdamW for all parameters, or Muon for the blocks' matrices and AdamW for the other parameters.

    All learning rates are 1, because `LambdaLR` multiplies them by the learning rates of the schedule.
    """
    parameters = [p for p in gpt.parameters() if p.requires_grad]
    if kind == "adamw":
        return make_adamw(parameters, betas, weight_decay, fused)
    matrices = [p for p in gpt.h.parameters() if p.requires_grad and p.dim() == 2]
    others = [p for p in parameters if all(p is not matrix for matrix in matrices)]
    muon = Muon([{"params": matrices, "name": "muon"}], lr=1.0, weight_decay=weight_decay)
    return MuonAdamW(make_adamw(others, betas, weight_decay, fused), muon)


def make_adamw(
    parameters: list[nn.Parameter], betas: tuple[float, float], weight_decay: float, fused: bool
) -> AdamW:
    """Return AdamW (Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization").

    Weight decay applies to matrices only, not to norms and biases. `fused` selects PyTorch's fused kernel
    if this kernel exists for the devices of all parameters.
    """
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay, "name": "decay"},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0, "name": "no_decay"},
    ]
    fused = fused and all(p.device.type in ("cpu", "cuda", "mps") for p in parameters)
    return AdamW([group for group in groups if group["params"]], lr=1.0, betas=betas, fused=fused)


class Muon(torch.optim.Muon):
    """Muon (Jordan et al. 2024), several times faster than `torch.optim.Muon`.

    PyTorch's implementation orthogonalizes one matrix at a time, always in bfloat16. This class stacks
    matrices of the same shape, and computes in float32 on devices that do not multiply bfloat16 matrices in
    hardware.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take an optimizer step; return the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            for p in parameters:
                if "momentum_buffer" not in self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)
            gradients = [p.grad for p in parameters]
            momenta = [self.state[p]["momentum_buffer"] for p in parameters]
            torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
            nesterov = list(torch._foreach_lerp(gradients, momenta, group["momentum"]))
            updates = newton_schulz(nesterov, group["ns_coefficients"], group["ns_steps"])
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            for p, update in zip(parameters, updates, strict=True):
                rows, columns = p.shape
                p.add_(update, alpha=-group["lr"] * math.sqrt(max(1, rows / columns)))
        return loss


def newton_schulz(
    matrices: list[Tensor], coefficients: tuple[float, float, float], n_steps: int
) -> list[Tensor]:
    """Orthogonalize matrices approximately: quintic Newton-Schulz iterations move singular values close to 1.

    Args:
        matrices: Matrices, each (rows, columns).
        coefficients: a, b, c of the iteration X <- a X + (b A + c A A) X, where A = X X^T.
        n_steps: Number of iterations.

    Returns:
        The orthogonalized matrices, in the order and with the shapes and dtypes of `matrices`.
    """
    a, b, c = coefficients
    same_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, matrix in enumerate(matrices):
        same_shape[tuple(sorted(matrix.shape))].append(i)
    results = list(matrices)
    for indices in same_shape.values():
        # Tall matrices are transposed, since X X^T is smaller for wide ones.
        is_tall = [matrices[i].shape[0] > matrices[i].shape[1] for i in indices]
        wide = [matrices[i].T if tall else matrices[i] for i, tall in zip(indices, is_tall, strict=True)]
        x = torch.stack(wide)  # (n, rows, columns)
        x = x.to(torch.bfloat16 if has_bf16_units(x.device.type) else torch.float32)
        x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=NS_EPS)
        for _ in range(n_steps):
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        for i, tall, result in zip(indices, is_tall, x.unbind(), strict=True):
            results[i] = (result.T if tall else result).to(matrices[i].dtype)
    return results


class MuonAdamW(Optimizer):
    """AdamW and Muon as one optimizer: AdamW's parameter groups come first."""

    def __init__(self, adamw: AdamW, muon: Muon) -> None:
        super().__init__([*adamw.param_groups, *muon.param_groups], {})
        self.optimizers = (adamw, muon)
        self._share_state()

    def _share_state(self) -> None:
        """Make AdamW and Muon use the parameter groups and the state of this combined optimizer."""
        start = 0
        for optimizer in self.optimizers:
            optimizer.param_groups = self.param_groups[start : start + len(optimizer.param_groups)]
            optimizer.state = self.state
            start += len(optimizer.param_groups)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load parameter groups and state."""
        super().load_state_dict(state_dict)
        self._share_state()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take an optimizer step; return the closure's loss."""
        adamw, muon = self.optimizers
        loss = adamw.step(closure)  # the closure computes the gradients of both
        muon.step()
        return loss
