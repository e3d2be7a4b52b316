"""Sampling: known values, and equality with transformers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from lit_gpt_scratch.generation.generate import SamplingOptions, sample_next
from lit_gpt_scratch.generation.sampling import (
    MINUS_INFINITY,
    ban,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalize_repeats,
    sample,
)


@pytest.fixture
def logits() -> torch.Tensor:
    return 4 * torch.randn(200, 70, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("function", "processor", "values"),
    [
        (keep_top_k, "TopKLogitsWarper", [1, 2, 10, 70, 99]),
        (keep_top_p, "TopPLogitsWarper", [0.01, 0.3, 0.9, 0.999, 1.0]),
        (keep_min_p, "MinPLogitsWarper", [0.001, 0.1, 0.7, 1.0]),
        (ban, "SuppressTokensLogitsProcessor", [[3, 7]]),
    ],
)
def test_filters_match_transformers(
    logits: torch.Tensor, function: Callable[..., torch.Tensor], processor: str, values: list[Any]
) -> None:
    transformers = pytest.importorskip("transformers")
    for value in values:
        expected = getattr(transformers, processor)(value)(None, logits)
        torch.testing.assert_close(function(logits, value), expected, atol=0, rtol=0)


@pytest.mark.parametrize("penalty", [0.8, 1.0, 1.3])
def test_repetition_penalty_matches_transformers(logits: torch.Tensor, penalty: float) -> None:
    transformers = pytest.importorskip("transformers")
    ids = torch.randint(70, (200, 9), generator=torch.Generator().manual_seed(1))
    expected = transformers.RepetitionPenaltyLogitsProcessor(penalty)(ids, logits.clone())
    seen = torch.zeros(200, 70, dtype=torch.bool).scatter_(1, ids, True)
    torch.testing.assert_close(penalize_repeats(logits, seen, penalty), expected, atol=0, rtol=0)


def test_filters_have_known_values() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    assert (keep_top_k(logits, 2) > MINUS_INFINITY).tolist() == [[True, True, False, False]]
    assert (keep_top_p(logits, 0.5) > MINUS_INFINITY).tolist() == [[True, False, False, False]]
    assert (keep_top_p(logits, 0.51) > MINUS_INFINITY).tolist() == [[True, True, False, False]]
    assert (keep_min_p(logits, 0.25) > MINUS_INFINITY).tolist() == [[True, True, True, False]]
    seen = torch.tensor([[True, False, True, False]])
    penalized = penalize_repeats(torch.tensor([[2.0, 2.0, -1.0, -1.0]]), seen, 2.0)
    assert penalized.tolist() == [[1.0, 2.0, -2.0, -1.0]]


def test_sample_inverts_the_cumulative_distribution() -> None:
    logits = torch.tensor([0.0, 0.25, 0.25, 0.0, 0.5, 0.0]).log().expand(6, 6)
    uniforms = torch.tensor([0.0, 0.2499, 0.25, 0.4999, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert sample(logits, uniforms).tolist() == [1, 1, 2, 2, 4, 4]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_sampled_frequencies_follow_the_softmax(temperature: float) -> None:
    logits = torch.tensor([1.0, 2.0, 3.0, 0.0])
    uniforms = torch.rand(40_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sampled = sample_next(logits.expand(40_000, 4), SamplingOptions(temperature=temperature), uniforms, None)
    frequencies = torch.bincount(sampled, minlength=4) / 40_000
    torch.testing.assert_close(frequencies, (logits / temperature).softmax(0), atol=0.01, rtol=0)


@pytest.mark.parametrize(
    "options", [{"temperature": 0.0}, {"temperature": 1e-9}, {"top_k": 1}, {"min_p": 1.0}]
)
def test_greedy_options_choose_the_most_probable_token(logits: torch.Tensor, options: dict[str, Any]) -> None:
    uniforms = torch.rand(200, dtype=torch.float64)
    assert torch.equal(sample_next(logits, SamplingOptions(**options), uniforms, None), logits.argmax(dim=-1))


def test_combined_options_match_transformers_order(logits: torch.Tensor) -> None:
    transformers = pytest.importorskip("transformers")
    ids = torch.randint(70, (200, 9), generator=torch.Generator().manual_seed(1))
    processors = [
        transformers.RepetitionPenaltyLogitsProcessor(1.2),
        transformers.SuppressTokensLogitsProcessor([5]),
        transformers.TemperatureLogitsWarper(0.7),
        transformers.TopKLogitsWarper(20),
        transformers.TopPLogitsWarper(0.9),
        transformers.MinPLogitsWarper(0.02),
    ]
    expected = transformers.LogitsProcessorList(processors)(ids, logits.clone())
    uniforms = torch.rand(200, dtype=torch.float64)
    seen = torch.zeros(200, 70, dtype=torch.bool).scatter_(1, ids, True)
    options = SamplingOptions(
        repetition_penalty=1.2, banned_tokens=[5], temperature=0.7, top_k=20, top_p=0.9, min_p=0.02
    )
    assert torch.equal(sample_next(logits, options, uniforms, seen), sample(expected, uniforms))
