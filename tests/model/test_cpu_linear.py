"""Linear layers for generation on a CPU: 8-bit and packed weights."""

from typing import Any

import pytest
import torch

from helpers.models import ARCHITECTURES, random_gpt
from lit_gpt_scratch.model.cpu_linear import (
    MIN_PACKED_ELEMENTS,
    Int8Linear,
    packed_weights,
    quantize_linear_layers,
)


@pytest.mark.parametrize("settings", ARCHITECTURES)
@torch.no_grad()
def test_int8_logits_are_close_to_float_logits(settings: dict[str, Any]) -> None:
    gpt = random_gpt(**settings)
    gpt.wte.weight[3] = 0  # scale 0
    ids = torch.randint(30, (4, 8))
    exact = gpt(ids)
    quantize_linear_layers(gpt)
    rounded = gpt(ids)
    assert not torch.equal(exact, rounded)
    assert float((exact - rounded).std() / exact.std()) < 0.1


@pytest.mark.parametrize("with_bias", [False, True])
@torch.no_grad()
def test_int8_layer_rounds_by_half_a_step_per_token(with_bias: bool) -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(64, 20, bias=with_bias)
    for parameter in linear.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(5, 64) * torch.logspace(-3, 3, 5)[:, None]
    layer = Int8Linear(linear)
    weight_step = linear.weight.abs().amax(dim=1) / 127  # (20,)
    token_step = (x.amax(dim=1) - x.amin(dim=1)) / 127  # (5,); seven bits, which some CPUs use
    bound = 0.5 * (
        x.abs().sum(dim=1)[:, None] * weight_step + token_step[:, None] * linear.weight.abs().sum(dim=1)
    )
    assert bool(((layer(x) - linear(x)).abs() <= 1.01 * bound).all())
    for i, row in enumerate(x):
        torch.testing.assert_close(layer(row[None])[0], layer(x)[i], atol=0, rtol=1e-6)
    torch.testing.assert_close(layer(torch.zeros(1, 64)), linear(torch.zeros(1, 64)))


@pytest.mark.parametrize("shape", [(1, 700), (4, 700), (2, 5, 700), (0, 700)])
@pytest.mark.parametrize("with_bias", [False, True])
@torch.no_grad()
def test_packed_weights_give_equal_outputs(shape: tuple[int, ...], with_bias: bool) -> None:
    torch.manual_seed(0)
    model, x = torch.nn.Sequential(torch.nn.Linear(700, 800, bias=with_bias)), torch.randn(shape)
    assert model[0].weight.numel() >= MIN_PACKED_ELEMENTS
    expected = model(x)
    with packed_weights(model):
        y = model(x)
    torch.testing.assert_close(y, expected, atol=1e-4, rtol=0)
    assert y.is_contiguous()  # attention is slow with strided inputs
    assert torch.equal(model(x), expected)  # the layer is unchanged afterwards
