"""Generation: equality with the model without a cache, and sampling of several rows."""

from typing import Any

import pytest
import torch

from helpers.models import ARCHITECTURES, random_gpt
from lit_gpt_scratch.generation.generate import Continuation, SamplingOptions, generate_tokens, row_seeds
from lit_gpt_scratch.model.cpu_linear import (
    quantize_linear_layers,
)
from lit_gpt_scratch.model.gpt import GPT

PROMPTS = [[1], [2, 3, 4], [5, 6, 7, 8, 9, 10], list(range(11))]
GREEDY = {"temperature": 0.0}


def continue_each(gpt: GPT, prompts: list[list[int]], **options: Any) -> list[Continuation]:
    return generate_tokens(gpt, prompts, SamplingOptions(**options), with_logprobs=True).continuations


@pytest.mark.parametrize("settings", ARCHITECTURES)
@torch.no_grad()
def test_rows_of_different_lengths_generate_in_mixed_precision(settings: dict[str, Any]) -> None:
    """Autocast computes keys in bfloat16; the cache is float32, as the weights."""
    gpt = random_gpt(block_size=12, **settings)
    with torch.autocast("cpu", torch.bfloat16):
        together = continue_each(gpt, PROMPTS[:3], max_new_tokens=2, **GREEDY)
    assert [len(row.tokens) for row in together] == [2, 2, 2]


@pytest.mark.parametrize("settings", ARCHITECTURES)
@pytest.mark.parametrize("block_size", [1, 2, 3, 8])
@torch.no_grad()
def test_greedy_chooses_the_most_probable_token_and_slides_by_half_a_block(
    settings: dict[str, Any], block_size: int
) -> None:
    gpt = random_gpt(block_size, **settings)
    for prompt in ([1, 2, 3], list(range(20))):
        (generated,) = continue_each(gpt, [prompt], max_new_tokens=25, **GREEDY)
        assert len(generated.tokens) == 25
        ids = list(prompt)
        begin = max(0, len(ids) - block_size)
        for token, logprob in zip(generated.tokens, generated.logprobs, strict=True):
            logits = gpt(torch.tensor([ids[begin:]]))[0, -1]
            assert token == int(logits.argmax())
            assert logprob == pytest.approx(float(logits.log_softmax(0)[token]), abs=1e-4)
            ids.append(token)
            if len(ids) - begin > block_size:
                begin = len(ids) - max(1, block_size // 2)


@pytest.mark.parametrize("options", [GREEDY, {"temperature": 1.0, "seed": 5, "repetition_penalty": 1.3}])
@pytest.mark.parametrize("settings", ARCHITECTURES)
@pytest.mark.parametrize(("quantized", "tolerance"), [(False, 1e-4), (True, 0.05)])
def test_row_of_a_batch_equals_the_row_alone(
    settings: dict[str, Any], options: dict[str, Any], quantized: bool, tolerance: float
) -> None:
    gpt = random_gpt(**settings)
    if quantized:
        quantize_linear_layers(gpt)
    free = continue_each(gpt, PROMPTS, max_new_tokens=20, **options)
    stop_tokens = [free[0].tokens[2], free[1].tokens[9]]
    together = continue_each(gpt, PROMPTS, max_new_tokens=20, stop_tokens=stop_tokens, **options)
    assert {len(row.tokens) for row in together[:2]} <= set(range(1, 11))  # some stop early
    for i, prompt in enumerate(PROMPTS):
        seed = {} if "seed" not in options else {"seed": options["seed"] + i}
        own = {**options, **seed}
        (alone,) = continue_each(gpt, [prompt], max_new_tokens=20, stop_tokens=stop_tokens, **own)
        assert alone.tokens == together[i].tokens
        assert alone.finish_reason == together[i].finish_reason
        assert alone.logprobs == pytest.approx(together[i].logprobs, abs=tolerance)


def test_stopped_rows_are_removed_from_the_batch() -> None:
    gpt = random_gpt()
    sizes = []
    gpt.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    calls: list[int] = []

    def stop_first_rows(row: int, token: int) -> bool:
        calls.append(row)
        return len(calls) >= 4 * (row + 1)

    options = SamplingOptions(9, **GREEDY)
    generated = generate_tokens(gpt, PROMPTS[:3], options, on_token=stop_first_rows).continuations
    assert [len(row.tokens) for row in generated] == [2, 4, 6]
    assert sizes == [3, 2, 2, 1, 1]
    assert {row.finish_reason for row in generated} == {"stop"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("settings", ARCHITECTURES)
def test_gpu_and_cpu_generate_the_same_tokens(settings: dict[str, Any]) -> None:
    gpt = random_gpt(block_size=200, **settings)
    on_cpu = continue_each(gpt, PROMPTS, max_new_tokens=220, stop_tokens=[3], **GREEDY)
    on_gpu = continue_each(gpt.cuda(), PROMPTS, max_new_tokens=220, stop_tokens=[3], **GREEDY)
    assert [row.tokens for row in on_gpu] == [row.tokens for row in on_cpu]


def test_seed_reproduces_the_text() -> None:
    gpt = random_gpt()
    one, again, other, unseeded, unseeded_again = (
        [row.tokens for row in continue_each(gpt, [[0], [0]], max_new_tokens=20, temperature=1.0, seed=seed)]
        for seed in (1, 1, 2, None, None)
    )
    assert one == again
    assert one != other
    assert unseeded != unseeded_again
    assert one[0] != one[1]  # rows are sampled independently
    assert one[1] == other[0]  # the second has the next seed


def test_banned_tokens_are_not_sampled() -> None:
    gpt = random_gpt()
    (unrestricted,) = continue_each(gpt, [[1]], max_new_tokens=30, temperature=1.5, seed=1)
    banned = sorted(set(unrestricted.tokens))[:5]
    (restricted,) = continue_each(
        gpt, [[1]], max_new_tokens=30, temperature=1.5, seed=1, banned_tokens=banned
    )
    assert not set(restricted.tokens) & set(banned)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([3, 30], "banned_tokens has 30, but"),
        ([-1], "banned_tokens has -1"),
        (list(range(30)), "no token to sample"),
    ],
)
def test_invalid_banned_tokens_are_rejected(tokens: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        continue_each(random_gpt(), [[1]], banned_tokens=tokens)


def test_generation_keeps_training_mode_and_global_rng_state() -> None:
    gpt = random_gpt(dropout=0.5).train()
    before = torch.get_rng_state()
    first, second = (continue_each(gpt, [[0]], max_new_tokens=20, **GREEDY)[0].tokens for _ in range(2))
    assert first == second  # no dropout
    assert gpt.training
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": 0},
        {"max_new_tokens": 3 * 10**9},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"top_k": 0},
        {"top_k": -3},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": -0.5},
        {"min_p": float("nan")},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": float("inf")},
    ],
)
def test_sampling_options_out_of_range_are_rejected(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        SamplingOptions(**options)


def test_stop_token_outside_the_vocabulary_is_rejected() -> None:
    with pytest.raises(ValueError, match="stop_tokens has 30, but the vocabulary's tokens are 0 to 29"):
        continue_each(random_gpt(), [[1]], stop_tokens=[30])


def test_random_seeds_are_exact_as_floats() -> None:
    assert all(seed == int(float(seed)) for _ in range(20) for seed in row_seeds(None, 1))
