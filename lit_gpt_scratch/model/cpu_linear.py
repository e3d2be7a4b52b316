"""Linear layers for generation on a CPU: 8-bit weights, and weights packed for small batches."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

MIN_RANGE = 1e-12  # lower bound for the range of a token's channels, by which they are divided
MIN_PACKED_ELEMENTS = 2**19  # number of elements from which a weight is packed


class Int8Linear(nn.Module):
    """A linear layer whose weights are 8-bit integers with a scale for each output channel.

    Inputs are rounded to 8 bits, too. PyTorch's kernel uses the same scale for the inputs of all tokens.
    Therefore, each token's input is scaled to the range 0 to 1 before the kernel, and its output is scaled
    back after the kernel, so that a token's output does not depend on the other tokens.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()  # (out, in)
        scales = weight.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
        zeros = torch.zeros(len(weight), dtype=torch.int64)
        with warnings.catch_warnings():
            # quantize_per_channel is deprecated, but nothing else in PyTorch is as fast for one token.
            warnings.simplefilter("ignore")
            rounded = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(rounded, None)
        self.sums = rounded.dequantize().sum(dim=1)  # (out,)
        self.bias = torch.zeros_like(self.sums) if linear.bias is None else linear.bias.detach()
        self.reduce_range = not torch.cpu._is_vnni_supported()  # 8-bit sums overflow on older CPUs

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer; (..., in) -> (..., out)."""
        low, high = x.aminmax(dim=-1, keepdim=True)  # (..., 1)
        value_range = high.sub_(low).clamp_(min=MIN_RANGE)
        y = torch.ops.quantized.linear_dynamic(x.sub(low).div_(value_range), self.packed, self.reduce_range)
        return torch.addcmul(self.bias, low, self.sums).addcmul_(y, value_range)


def quantize_linear_layers(model: nn.Module) -> None:
    """Replace every linear layer of a model by an `Int8Linear` in place; embeddings do not change.

    Raises:
        ValueError: The model is not on a CPU.
    """
    for module in list(model.modules()):
        for name, layer in module.named_children():
            if isinstance(layer, nn.Linear):
                if layer.weight.device.type != "cpu":
                    raise ValueError("int8 weights need a CPU: give --trainer.accelerator cpu")
                setattr(module, name, Int8Linear(layer))


@contextmanager
def packed_weights(model: nn.Module) -> Iterator[None]:
    """Run a model's large linear layers with packed copies of their weights during the ``with`` block.

    The copies have oneDNN's packed layout. They are used only for float32 weights on a CPU, and only if
    PyTorch has oneDNN. Matrix products with a few rows then take half the time; products with one row take
    as long as before.
    """
    layers = [
        layer
        for layer in model.modules()
        if isinstance(layer, nn.Linear)
        and layer.weight.numel() >= MIN_PACKED_ELEMENTS
        and layer.weight.dtype == torch.float32
        and layer.weight.device.type == "cpu"
        and torch.backends.mkldnn.is_available()
    ]
    try:
        for layer in layers:
            weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach())
            layer.__dict__["forward"] = partial(_packed_linear, weight=weight, bias=layer.bias)
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def _packed_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight, bias, "none", [], "")
