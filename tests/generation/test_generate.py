"""Cached generation against the model without a cache, and sampling of several rows."""

from typing import Any

import pytest
import torch

from lit_gpt_scratch.generation.generate import Continuation, SamplingOptions, generate_tokens
from lit_gpt_scratch.model.cpu_linear import (
    MIN_PACKED_ELEMENTS,
    Int8Linear,
    packed_weights,
    quantize_linear_layers,
)
from lit_gpt_scratch.model.gpt import GPT, GPTConfig

MODELS: list[dict[str, Any]] = [
    {"arch": "gpt2", "attn_bias": True, "activation": "gelu"},
    {"arch": "gpt2", "tie_weights": False},
    {"arch": "modern"},
    {"arch": "modern", "n_kv_head": 2},
    {"arch": "modern", "n_kv_head": 1},
]
PROMPTS = [[1], [2, 3, 4], [5, 6, 7, 8, 9, 10], list(range(11))]
GREEDY = {"temperature": 0.0}


def random_gpt(block_size: int = 8, **settings: Any) -> GPT:
    """Return a model with large weights, so that greedy choices have no ties."""
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(vocab_size=30, block_size=block_size, n_layer=2, n_head=4, n_embd=32, **settings))
    for parameter in gpt.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return gpt.eval()


def continue_each(gpt: GPT, prompts: list[list[int]], **options: Any) -> list[Continuation]:
    return generate_tokens(gpt, prompts, SamplingOptions(**options), with_logprobs=True).continuations


@pytest.mark.parametrize("settings", MODELS)
@pytest.mark.parametrize("chunks", [[1] * 12, [12], [5, 1, 4, 2]])
@torch.no_grad()
def test_cached_logits_equal_uncached_ones(settings: dict[str, Any], chunks: list[int]) -> None:
    gpt = random_gpt(block_size=12, **settings)
    ids = torch.randint(30, (3, 12))
    cache = gpt.new_cache(3, 12)
    logits = torch.cat([gpt(chunk, cache) for chunk in ids.split(chunks, dim=1)], dim=1)
    torch.testing.assert_close(logits, gpt(ids), atol=1e-5, rtol=0)
    assert cache.lengths == [12] * 3


@pytest.mark.parametrize("settings", MODELS)
@torch.no_grad()
def test_rows_of_different_lengths_in_mixed_precision(settings: dict[str, Any]) -> None:
    """Autocast makes keys of bfloat16, and the cache has the weights' float32."""
    gpt = random_gpt(block_size=12, **settings)
    with torch.autocast("cpu", torch.bfloat16):
        together = continue_each(gpt, PROMPTS[:3], max_new_tokens=2, **GREEDY)
    assert [len(row.tokens) for row in together] == [2, 2, 2]


@pytest.mark.parametrize("settings", MODELS)
@pytest.mark.parametrize("chunk", [1, 2])
@torch.no_grad()
def test_cached_rows_need_not_be_of_one_length(settings: dict[str, Any], chunk: int) -> None:
    gpt = random_gpt(block_size=12, **settings)
    lengths, ids = [2, 8, 3], torch.randint(30, (3, 12))
    expected, cache = gpt(ids), gpt.new_cache(3, 12)
    gpt(ids[:, :8], cache)
    cache.lengths = lengths
    for _ in range(4 // chunk):
        newest = torch.stack([row[n : n + chunk] for row, n in zip(ids, cache.lengths, strict=True)])
        before = cache.lengths
        logits = gpt(newest, cache)
        for row, n in enumerate(before):
            torch.testing.assert_close(logits[row], expected[row, n : n + chunk], atol=1e-5, rtol=0)


@torch.no_grad()
def test_rows_of_the_cache_are_selected_and_written_over() -> None:
    gpt = random_gpt()
    cache = gpt.new_cache(3, 8)
    gpt(torch.tensor([[1, 2, 3], [3, 4, 5], [4, 5, 6]]), cache)
    gpt(torch.tensor([[7, 8, 9]]), cache.empty_row(1))
    logits = gpt(torch.tensor([[10], [11]]), cache.select([1, 2]))[:, -1]
    expected = gpt(torch.tensor([[7, 8, 9, 10], [4, 5, 6, 11]]))[:, -1]
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("activation_checkpointing", [False, True])
def test_a_cache_needs_no_grad(activation_checkpointing: bool) -> None:
    gpt = random_gpt()
    gpt.activation_checkpointing = activation_checkpointing
    with pytest.raises(RuntimeError, match="inplace"):
        gpt(torch.randint(30, (1, 6)), gpt.new_cache(1, 6))


@torch.no_grad()
def test_a_full_cache_is_an_error() -> None:
    gpt = random_gpt(block_size=8)
    cache = gpt.new_cache(1, 100)
    gpt(torch.zeros(1, 8, dtype=torch.long), cache)
    with pytest.raises(ValueError, match="9 tokens do not fit into a cache of 8"):
        gpt(torch.zeros(1, 1, dtype=torch.long), cache)


@pytest.mark.parametrize("settings", MODELS)
@torch.no_grad()
def test_int8_weights_are_near_the_floats(settings: dict[str, Any]) -> None:
    gpt = random_gpt(**settings)
    gpt.wte.weight[3] = 0  # a channel without a scale
    ids = torch.randint(30, (4, 8))
    exact = gpt(ids)
    quantize_linear_layers(gpt)
    rounded = gpt(ids)
    assert not torch.equal(exact, rounded)
    assert float((exact - rounded).std() / exact.std()) < 0.1


@pytest.mark.parametrize("with_bias", [False, True])
@torch.no_grad()
def test_an_int8_layer_rounds_by_half_a_step_and_each_token_alone(with_bias: bool) -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(64, 20, bias=with_bias)
    for parameter in linear.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(5, 64) * torch.logspace(-3, 3, 5)[:, None]
    layer = Int8Linear(linear)
    weight_step = linear.weight.abs().amax(dim=1) / 127  # (20,)
    token_step = (x.amax(dim=1) - x.amin(dim=1)) / 127  # (5,), if there are seven bits only
    most = 0.5 * (
        x.abs().sum(dim=1)[:, None] * weight_step + token_step[:, None] * linear.weight.abs().sum(dim=1)
    )
    assert bool(((layer(x) - linear(x)).abs() <= 1.01 * most).all())
    for i, row in enumerate(x):
        torch.testing.assert_close(layer(row[None])[0], layer(x)[i], atol=0, rtol=1e-6)
    torch.testing.assert_close(layer(torch.zeros(1, 64)), linear(torch.zeros(1, 64)))


@pytest.mark.parametrize("shape", [(1, 700), (4, 700), (2, 5, 700), (0, 700)])
@pytest.mark.parametrize("with_bias", [False, True])
@torch.no_grad()
def test_packed_weights_give_the_same_products(shape: tuple[int, ...], with_bias: bool) -> None:
    torch.manual_seed(0)
    model, x = torch.nn.Sequential(torch.nn.Linear(700, 800, bias=with_bias)), torch.randn(shape)
    assert model[0].weight.numel() >= MIN_PACKED_ELEMENTS
    expected = model(x)
    with packed_weights(model):
        y = model(x)
    torch.testing.assert_close(y, expected, atol=1e-4, rtol=0)
    assert y.is_contiguous()  # attention is slow with what is not
    assert torch.equal(model(x), expected)  # and the layer is what it was


@pytest.mark.parametrize("settings", MODELS)
@pytest.mark.parametrize("block_size", [1, 2, 3, 8])
@torch.no_grad()
def test_greedy_takes_the_likeliest_and_slides_half_a_block(
    settings: dict[str, Any], block_size: int
) -> None:
    gpt = random_gpt(block_size, **settings)
    for prompt in ([1, 2, 3], list(range(20))):
        (written,) = continue_each(gpt, [prompt], max_new_tokens=25, **GREEDY)
        assert len(written.tokens) == 25
        ids = list(prompt)
        begin = max(0, len(ids) - block_size)
        for token, logprob in zip(written.tokens, written.logprobs, strict=True):
            logits = gpt(torch.tensor([ids[begin:]]))[0, -1]
            assert token == int(logits.argmax())
            assert logprob == pytest.approx(float(logits.log_softmax(0)[token]), abs=1e-4)
            ids.append(token)
            if len(ids) - begin > block_size:
                begin = len(ids) - max(1, block_size // 2)


@pytest.mark.parametrize("options", [GREEDY, {"temperature": 1.0, "seed": 5, "repetition_penalty": 1.3}])
@pytest.mark.parametrize("settings", MODELS)
@pytest.mark.parametrize(("quantized", "tolerance"), [(False, 1e-4), (True, 0.05)])
def test_a_row_is_what_it_is_alone(
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


def test_stopped_rows_leave_the_batch() -> None:
    gpt = random_gpt()
    sizes = []
    gpt.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    told: list[int] = []

    def stop_first_rows(row: int, token: int) -> bool:
        told.append(row)
        return len(told) >= 4 * (row + 1)

    options = SamplingOptions(9, **GREEDY)
    written = generate_tokens(gpt, PROMPTS[:3], options, on_token=stop_first_rows).continuations
    assert [len(row.tokens) for row in written] == [2, 4, 6]
    assert sizes == [3, 2, 2, 1, 1]
    assert {row.finish_reason for row in written} == {"stop"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("settings", MODELS)
def test_a_gpu_writes_what_the_cpu_writes(settings: dict[str, Any]) -> None:
    gpt = random_gpt(block_size=200, **settings)
    on_cpu = continue_each(gpt, PROMPTS, max_new_tokens=220, stop_tokens=[3], **GREEDY)
    on_gpu = continue_each(gpt.cuda(), PROMPTS, max_new_tokens=220, stop_tokens=[3], **GREEDY)
    assert [row.tokens for row in on_gpu] == [row.tokens for row in on_cpu]


def test_a_seed_repeats_a_text() -> None:
    gpt = random_gpt()
    one, again, other, none, nothing = (
        [row.tokens for row in continue_each(gpt, [[0], [0]], max_new_tokens=20, temperature=1.0, seed=seed)]
        for seed in (1, 1, 2, None, None)
    )
    assert one == again
    assert one != other
    assert none != nothing
    assert one[0] != one[1]  # rows are drawn apart
    assert one[1] == other[0]  # the second has the next seed


def test_banned_tokens_are_not_written() -> None:
    gpt = random_gpt()
    (free,) = continue_each(gpt, [[1]], max_new_tokens=30, temperature=1.5, seed=1)
    banned = sorted(set(free.tokens))[:5]
    (held,) = continue_each(gpt, [[1]], max_new_tokens=30, temperature=1.5, seed=1, banned_tokens=banned)
    assert not set(held.tokens) & set(banned)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([3, 30], "banned_tokens has 30, but"),
        ([-1], "banned_tokens has -1"),
        (list(range(30)), "no token to sample"),
    ],
)
def test_impossible_bans_are_refused(tokens: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        continue_each(random_gpt(), [[1]], banned_tokens=tokens)


def test_generation_leaves_mode_and_global_randomness_alone() -> None:
    gpt = random_gpt(dropout=0.5).train()
    before = torch.get_rng_state()
    first, second = (continue_each(gpt, [[0]], max_new_tokens=20, **GREEDY)[0].tokens for _ in range(2))
    assert first == second  # nothing is dropped
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
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": -0.5},
        {"min_p": float("nan")},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": float("inf")},
    ],
)
def test_impossible_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        SamplingOptions(**wrong)
