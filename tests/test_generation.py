"""The decoder against the model, and the engine's promises."""

from typing import Any

import pytest
import torch

from lit_gpt_scratch.generation.decoder import LARGE_MATRIX, Decoder, Weights, float_linear, int8_linear
from lit_gpt_scratch.generation.engine import Continuation, SamplingOptions, generate
from lit_gpt_scratch.generation.recorded import length_to_read
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
    """A model of strong opinions, so that greedy choices have no ties."""
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(vocab_size=30, block_size=block_size, n_layer=2, n_head=4, n_embd=32, **settings))
    for parameter in gpt.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return gpt.eval()


def continue_each(decoder: Decoder, prompts: list[list[int]], **options: Any) -> list[Continuation]:
    return generate(decoder, prompts, SamplingOptions(**options), with_logprobs=True).continuations


@pytest.mark.parametrize("settings", MODELS)
@pytest.mark.parametrize("lengths", [[1, 1, 1], [2, 5, 3], [12, 1, 7]])
@torch.no_grad()
def test_cached_logits_are_the_models_at_every_position(settings: dict[str, Any], lengths: list[int]) -> None:
    gpt = random_gpt(block_size=12, **settings)
    ids = torch.randint(30, (3, 12))
    expected = gpt(ids)
    decoder = Decoder(gpt)
    torch.testing.assert_close(decoder.logits(ids), expected, atol=1e-5, rtol=0)
    cache = decoder.new_cache(3, gpt.config.block_size)
    logits = decoder.prefill(cache, [0, 1, 2], [row[:n] for row, n in zip(ids, lengths, strict=True)])
    for row, n in enumerate(lengths):
        torch.testing.assert_close(logits[row], expected[row, n - 1], atol=1e-5, rtol=0)
    while max(lengths) < 12:
        newest = torch.tensor([int(ids[row, n]) for row, n in enumerate(lengths)])
        of_one_shape = decoder.decode_at(cache.clone(), newest, torch.tensor(lengths))
        logits = decoder.decode(cache, newest, lengths)
        torch.testing.assert_close(of_one_shape, logits, atol=1e-5, rtol=0)
        for row, n in enumerate(lengths):
            torch.testing.assert_close(logits[row], expected[row, n], atol=1e-5, rtol=0)
        lengths = [n + 1 for n in lengths]


@pytest.mark.parametrize("settings", MODELS)
@torch.no_grad()
def test_int8_weights_are_near_the_floats(settings: dict[str, Any]) -> None:
    gpt = random_gpt(**settings)
    gpt.wte.weight[3] = 0  # a channel without a scale
    ids = torch.randint(30, (4, 8))
    exact, rounded = gpt(ids), Decoder(gpt, "int8").logits(ids)
    assert not torch.equal(exact, rounded)
    assert float((exact - rounded).std() / exact.std()) < 0.1


def test_an_int8_layer_rounds_by_half_a_step_and_each_token_alone() -> None:
    torch.manual_seed(0)
    weight, bias, x = (
        torch.randn(20, 64),
        torch.randn(20),
        torch.randn(5, 64) * torch.logspace(-3, 3, 5)[:, None],
    )
    layer, y = int8_linear(weight, bias), x @ weight.T + bias
    weight_step = weight.abs().amax(dim=1) / 127  # (20,)
    token_step = (x.amax(dim=1) - x.amin(dim=1)) / 127  # (5,), if there are seven bits only
    most = 0.5 * (x.abs().sum(dim=1)[:, None] * weight_step + token_step[:, None] * weight.abs().sum(dim=1))
    assert bool(((layer(x) - y).abs() <= 1.01 * most).all())
    for i, row in enumerate(x):
        torch.testing.assert_close(layer(row[None])[0], layer(x)[i], atol=0, rtol=1e-6)
    torch.testing.assert_close(layer(torch.zeros(1, 64))[0], bias)


@pytest.mark.parametrize("shape", [(700,), (1, 700), (3, 700), (4, 700), (9, 700), (2, 5, 700), (0, 700)])
@pytest.mark.parametrize("with_bias", [False, True])
@torch.no_grad()
def test_a_large_layer_is_the_same_for_any_number_of_rows(shape: tuple[int, ...], with_bias: bool) -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(800, 700), torch.randn(shape)
    assert weight.numel() >= LARGE_MATRIX
    bias = torch.randn(800) if with_bias else None
    y = float_linear(weight, bias)(x)
    torch.testing.assert_close(y, torch.nn.functional.linear(x, weight, bias), atol=1e-4, rtol=0)
    assert y.is_contiguous()  # attention is slow with what is not


@torch.no_grad()
def test_rows_of_the_cache_are_written_and_kept_apart() -> None:
    gpt = random_gpt()
    decoder = Decoder(gpt)
    cache = decoder.new_cache(3, gpt.config.block_size)
    decoder.prefill(cache, [0, 1, 2], [torch.tensor([1, 2]), torch.tensor([3]), torch.tensor([4, 5, 6])])
    decoder.prefill(cache, [1], [torch.tensor([7, 8, 9])])
    cache = cache[:, :, [1, 2]]
    logits = decoder.decode(cache, torch.tensor([10, 11]), [3, 3])
    expected = gpt(torch.tensor([[7, 8, 9, 10], [4, 5, 6, 11]]))[:, -1]
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("settings", MODELS)
@pytest.mark.parametrize("block_size", [1, 2, 3, 8])
@torch.no_grad()
def test_greedy_takes_the_likeliest_and_slides_half_a_block(
    settings: dict[str, Any], block_size: int
) -> None:
    gpt = random_gpt(block_size, **settings)
    for prompt in ([1, 2, 3], list(range(20))):
        (written,) = continue_each(Decoder(gpt), [prompt], max_new_tokens=25, **GREEDY)
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
@pytest.mark.parametrize(("weights", "tolerance"), [("float", 1e-4), ("int8", 0.05)])
def test_a_row_is_what_it_is_alone(
    settings: dict[str, Any], options: dict[str, Any], weights: Weights, tolerance: float
) -> None:
    decoder = Decoder(random_gpt(**settings), weights)
    free = continue_each(decoder, PROMPTS, max_new_tokens=20, **options)
    stop_tokens = [free[0].tokens[2], free[1].tokens[9]]
    together = continue_each(decoder, PROMPTS, max_new_tokens=20, stop_tokens=stop_tokens, **options)
    assert {len(row.tokens) for row in together[:2]} <= set(range(1, 11))  # some stop early
    for i, prompt in enumerate(PROMPTS):
        seed = {} if "seed" not in options else {"seed": options["seed"] + i}
        own = {**options, **seed}
        (alone,) = continue_each(decoder, [prompt], max_new_tokens=20, stop_tokens=stop_tokens, **own)
        assert alone.tokens == together[i].tokens
        assert alone.finish_reason == together[i].finish_reason
        assert alone.logprobs == pytest.approx(together[i].logprobs, abs=tolerance)


def test_stopped_rows_leave_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    gpt = random_gpt()
    sizes = []
    decode = Decoder.decode

    def counted(self: Decoder, cache: torch.Tensor, ids: torch.Tensor, positions: list[int]) -> torch.Tensor:
        sizes.append(len(ids))
        return decode(self, cache, ids, positions)

    monkeypatch.setattr(Decoder, "decode", counted)
    told: list[int] = []

    def stop_first_rows(row: int, token: int) -> bool:
        told.append(row)
        return len(told) >= 4 * (row + 1)

    written = generate(
        Decoder(gpt), PROMPTS[:3], SamplingOptions(9, **GREEDY), on_token=stop_first_rows
    ).continuations
    assert [len(row.tokens) for row in written] == [2, 4, 6]
    assert sizes == [3, 2, 2, 1, 1]
    assert {row.finish_reason for row in written} == {"stop"}


@pytest.mark.parametrize(
    ("n_tokens", "length"), [(1, 128), (128, 128), (129, 256), (600, 1000), (1000, 1000)]
)
def test_a_recording_reads_as_far_as_it_must(n_tokens: int, length: int) -> None:
    assert length_to_read(n_tokens, longest=1000) == length


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("settings", MODELS)
def test_recorded_steps_write_what_the_cpu_writes(settings: dict[str, Any]) -> None:
    gpt = random_gpt(block_size=200, **settings)
    on_cpu = continue_each(Decoder(gpt), PROMPTS, max_new_tokens=220, stop_tokens=[3], **GREEDY)
    on_gpu = continue_each(Decoder(gpt.cuda()), PROMPTS, max_new_tokens=220, stop_tokens=[3], **GREEDY)
    assert [row.tokens for row in on_gpu] == [row.tokens for row in on_cpu]


def test_a_seed_repeats_a_text() -> None:
    gpt = random_gpt()
    one, again, other, none, nothing = (
        [
            row.tokens
            for row in continue_each(Decoder(gpt), [[0], [0]], max_new_tokens=20, temperature=1.0, seed=seed)
        ]
        for seed in (1, 1, 2, None, None)
    )
    assert one == again
    assert one != other
    assert none != nothing
    assert one[0] != one[1]  # rows are drawn apart
    assert one[1] == other[0]  # the second has the next seed


def test_banned_tokens_are_not_written() -> None:
    gpt = random_gpt()
    (free,) = continue_each(Decoder(gpt), [[1]], max_new_tokens=30, temperature=1.5, seed=1)
    banned = sorted(set(free.tokens))[:5]
    (held,) = continue_each(
        Decoder(gpt), [[1]], max_new_tokens=30, temperature=1.5, seed=1, banned_tokens=banned
    )
    assert not set(held.tokens) & set(banned)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([3, 30], "banned_tokens has 30, but"),
        ([-1], "banned_tokens has -1"),
        (list(range(30)), "no token to write"),
    ],
)
def test_impossible_bans_are_refused(tokens: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        continue_each(Decoder(random_gpt()), [[1]], banned_tokens=tokens)


def test_generation_leaves_mode_and_global_randomness_alone() -> None:
    gpt = random_gpt(dropout=0.5).train()
    before = torch.get_rng_state()
    first, second = (
        continue_each(Decoder(gpt), [[0]], max_new_tokens=20, **GREEDY)[0].tokens for _ in range(2)
    )
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
