"""Chunked cross-entropy and activation checkpointing."""

import pytest
import torch

from lit_gpt_scratch.data.batches import IGNORE
from lit_gpt_scratch.model.gpt import GPT, GPTConfig
from lit_gpt_scratch.training import loss

CONFIG = GPTConfig(vocab_size=301, block_size=16, n_layer=2, n_head=2, n_embd=32)


def loss_and_gradients(gpt: GPT, inputs: torch.Tensor, targets: torch.Tensor) -> list[torch.Tensor]:
    gpt.zero_grad()
    value = loss.next_token_loss(gpt, inputs, targets)
    (3 * value).backward()
    return [value.detach(), *(p.grad.clone() for p in gpt.parameters())]


@pytest.mark.parametrize("tie_weights", [True, False])
def test_chunked_loss_and_gradients_equal_unchunked(
    monkeypatch: pytest.MonkeyPatch, tie_weights: bool
) -> None:
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(**{**vars(CONFIG), "tie_weights": tie_weights}))
    inputs, targets = torch.randint(301, (2, 3, 16))
    targets[1, 5:9] = IGNORE
    whole = loss_and_gradients(gpt, inputs, targets)
    for rows in (1, 7, 47):
        monkeypatch.setattr(loss, "MAX_LOGITS_CPU", rows * 301)
        for a, b in zip(whole, loss_and_gradients(gpt, inputs, targets), strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_chunked_loss_in_bfloat16_is_close_to_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    gpt, (inputs, targets) = GPT(CONFIG), torch.randint(301, (2, 3, 16))
    exact = loss_and_gradients(gpt, inputs, targets)
    monkeypatch.setattr(loss, "MAX_LOGITS_CPU", 5 * 301)
    with torch.autocast("cpu", torch.bfloat16):
        approximate = loss_and_gradients(gpt, inputs, targets)
    assert all(tensor.dtype == torch.float32 for tensor in approximate)
    for a, b in zip(exact, approximate, strict=True):
        assert (a - b).norm() < 0.02 * a.norm() + 1e-3


def test_loss_without_targets_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "MAX_LOGITS_CPU", 301)
    value, *gradients = loss_and_gradients(GPT(CONFIG), torch.zeros(1, 4).long(), torch.full((1, 4), IGNORE))
    assert value == 0
    assert all((gradient == 0).all() for gradient in gradients)


@pytest.mark.parametrize("arch", ["gpt2", "modern"])
def test_activation_checkpointing_gives_identical_gradients(arch: str) -> None:
    """With dropout, whose masks are recomputed."""
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(**{**vars(CONFIG), "arch": arch, "dropout": 0.2}))
    inputs, targets = torch.randint(301, (2, 3, 16))
    results = []
    for gpt.activation_checkpointing in (False, True):
        torch.manual_seed(1)
        results.append(loss_and_gradients(gpt, inputs, targets))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_evaluation_in_chunks_equals_all_logits_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(vocab_size=50, block_size=16, n_layer=1, n_head=2, n_embd=16)).eval()
    inputs, targets = torch.randint(50, (2, 3, 16))
    targets[1, :5] = IGNORE
    with torch.no_grad():
        whole = loss.evaluation_loss(gpt, inputs, targets)
        sizes: list[int] = []
        gpt.lm_head.register_forward_hook(lambda _, __, logits: sizes.append(logits.numel()))
        monkeypatch.setattr(loss, "MAX_LOGITS_CPU", 7 * 50)
        chunked = loss.evaluation_loss(gpt, inputs, targets)
    assert max(sizes) == 7 * 50
    torch.testing.assert_close(chunked, whole)


def test_mean_loss_weights_batches_by_their_tokens_and_keeps_nan() -> None:
    mean = loss.MeanLoss()
    mean.update(torch.tensor(1.0), torch.tensor(30))
    mean.update(torch.tensor(2.0), torch.tensor(10))
    assert float(mean.compute()) == 1.25
    mean.update(torch.tensor(float("nan")), torch.tensor(10))
    assert torch.isnan(mean.compute())
