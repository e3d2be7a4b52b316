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

NS_ROOM = 1e-7  # keeps a gradient of 0 from being divided by its norm


def adamw(
    parameters: list[nn.Parameter], betas: tuple[float, float], weight_decay: float, fused: bool
) -> AdamW:
    """AdamW that decays matrices only: norms and biases are small in number and have no reason to shrink.

    Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization". `fused` asks for one kernel to do the
    update, where every parameter lies on a device that has it.
    """
    decay = [p for p in parameters if p.dim() >= 2]
    no_decay = [p for p in parameters if p.dim() < 2]
    groups: list[dict[str, Any]] = [
        {"params": decay, "weight_decay": weight_decay, "name": "decay"},
        {"params": no_decay, "weight_decay": 0.0, "name": "no_decay"},
    ]
    fused = fused and all(p.device.type in ("cpu", "cuda", "mps") for p in parameters)
    return AdamW([group for group in groups if group["params"]], lr=1.0, betas=betas, fused=fused)


class Muon(torch.optim.Muon):
    """Muon (Jordan et al. 2024) makes each matrix's momentum orthogonal: all its directions learn as fast.

    PyTorch's own takes a matrix at a time, and always multiplies in bfloat16. Here matrices of one shape go
    through as a stack, in float32 on a CPU that has no units for bfloat16: several times faster.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step along the gradients."""
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
            ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])  # Nesterov's
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            for p, update in zip(
                parameters, orthogonal(list(ahead), group["ns_coefficients"], group["ns_steps"]), strict=True
            ):
                rows, columns = p.shape
                p.add_(update, alpha=-group["lr"] * math.sqrt(max(1, rows / columns)))
        return loss


def orthogonal(
    matrices: list[Tensor], coefficients: tuple[float, float, float], n_steps: int
) -> list[Tensor]:
    """Each matrix with its singular values brought near 1, by a quintic Newton-Schulz iteration.

    Args:
        matrices: Each (rows, columns).
        coefficients: a, b, c of X <- a X + (b A + c A A) X, where A = X X^T.
        n_steps: Iterations.

    Returns:
        One for each, of its shape.
    """
    a, b, c = coefficients
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, matrix in enumerate(matrices):
        alike[tuple(sorted(matrix.shape))].append(i)
    made = list(matrices)
    for places in alike.values():
        x = torch.stack([_turned(matrices[i], matrices[i]) for i in places])  # (n, rows, columns), wide
        x = x.to(torch.bfloat16 if has_bf16_units(x.device.type) else torch.float32)
        x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=NS_ROOM)
        for _ in range(n_steps):
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        for i, result in zip(places, x.unbind(), strict=True):
            made[i] = _turned(result, matrices[i]).to(matrices[i].dtype)
    return made


def _turned(matrix: Tensor, original: Tensor) -> Tensor:
    """The transpose, if the original is tall: wide matrices have the smaller X X^T."""
    return matrix.T if original.shape[0] > original.shape[1] else matrix


def check_optimizer(weight_decay: float, beta1: float, beta2: float, muon_learning_rate: float) -> None:
    """Check the options of the optimizers.

    Raises:
        ValueError: One is out of range.
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
    """Return AdamW for all parameters, or Muon for the matrices of the blocks and AdamW for the rest.

    The learning rates are 1, for `LambdaLR` to multiply.
    """
    trained = [p for p in gpt.parameters() if p.requires_grad]
    if kind == "adamw":
        return adamw(trained, betas, weight_decay, fused)
    matrices = [p for p in gpt.h.parameters() if p.requires_grad and p.dim() == 2]
    others = [p for p in trained if all(p is not matrix for matrix in matrices)]
    muon = Muon([{"params": matrices, "name": "muon"}], lr=1.0, weight_decay=weight_decay)
    return MuonAdamW(adamw(others, betas, weight_decay, fused), muon)


class MuonAdamW(Optimizer):
    """Muon for the hidden matrices and AdamW for the rest, as one optimizer: AdamW's groups come first."""

    def __init__(self, adamw: AdamW, muon: Muon) -> None:
        super().__init__([*adamw.param_groups, *muon.param_groups], {})
        self.parts = (adamw, muon)
        self._share()

    def _share(self) -> None:
        """Both parts work on this optimizer's own groups and state."""
        first = 0
        for part in self.parts:
            part.param_groups = self.param_groups[first : first + len(part.param_groups)]
            part.state = self.state
            first += len(part.param_groups)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up groups and state."""
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step along the gradients."""
        adamw, muon = self.parts
        loss = adamw.step(closure)  # the closure makes the gradients of both
        muon.step()
        return loss
