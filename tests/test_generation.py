"""Sampling and generation."""

import pytest
import torch

from lit_gpt_scratch.generation.engine import SamplingOptions, generate
from lit_gpt_scratch.generation.sampling import keep_top_k, sample
from lit_gpt_scratch.model.gpt import GPT, GPTConfig


@pytest.fixture
def gpt() -> GPT:
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(vocab_size=30, block_size=8, n_layer=2, n_head=2, n_embd=32))
    for parameter in gpt.parameters():  # a model of strong opinions, so that greedy choices have no ties
        parameter.data.mul_(5)
    return gpt


def test_temperature_zero_is_greedy() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, 3.0, 1.0]])
    assert sample(logits, temperature=0, top_k=None, generator=None).tolist() == [1, 0]


def test_draws_follow_the_softmax() -> None:
    logits = torch.tensor([1.0, 2.0, 3.0, 0.0])
    for temperature in (0.5, 1.0, 2.0):
        generator = torch.Generator().manual_seed(0)
        drawn = sample(logits.expand(40_000, 4), temperature, None, generator)
        frequencies = torch.bincount(drawn, minlength=4) / 40_000
        torch.testing.assert_close(frequencies, (logits / temperature).softmax(0), atol=0.01, rtol=0)


def test_top_k_leaves_the_k_likeliest() -> None:
    logits = torch.tensor([[1.0, 4.0, 3.0, 2.0]])
    assert keep_top_k(logits, 2).tolist() == [[float("-inf"), 4.0, 3.0, float("-inf")]]
    assert keep_top_k(logits, 99).tolist() == logits.tolist()
    drawn = sample(logits.expand(1000, 4), 1.0, 2, torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == {1, 2}


@torch.no_grad()
def test_greedy_generation_takes_the_likeliest_and_slides_the_window(gpt: GPT) -> None:
    ids = torch.tensor([[1, 2, 3]])
    written = generate(gpt, ids, SamplingOptions(max_new_tokens=12, temperature=0))
    assert written.shape == (1, 15)
    assert written[:, :3].tolist() == ids.tolist()
    gpt.eval()
    for t in range(3, 15):  # past the block of 8 too
        likeliest = gpt(written[:, max(0, t - 8) : t])[0, -1].argmax()
        assert written[0, t] == likeliest


def test_a_seed_repeats_a_text(gpt: GPT) -> None:
    ids = torch.zeros(2, 1, dtype=torch.long)
    one, again, other, none, nothing = (
        generate(gpt, ids, SamplingOptions(20, 1.0, None, seed)) for seed in (1, 1, 2, None, None)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not torch.equal(none, nothing)
    assert not torch.equal(one[0], one[1])  # rows are drawn apart


def test_generation_leaves_mode_and_global_randomness_alone(gpt: GPT) -> None:
    gpt.train()
    before = torch.get_rng_state()
    generate(gpt, torch.zeros(1, 1, dtype=torch.long), SamplingOptions(5))
    assert gpt.training
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_new_tokens": 0},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"top_k": 0},
        {"top_k": -3},
    ],
)
def test_impossible_options_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        SamplingOptions(**wrong)
