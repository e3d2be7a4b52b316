"""RMSNorm, rotary position embedding, attention and dropout."""

import pytest
import torch

from lit_gpt_scratch.model.layers import RMSNorm, apply_rope, attend, dropout, precompute_rope


def test_rms_norm_matches_pytorch() -> None:
    torch.manual_seed(0)
    ours, theirs = RMSNorm(8, eps=1e-2), torch.nn.RMSNorm(8, eps=1e-2)
    torch.nn.init.normal_(ours.weight)
    theirs.load_state_dict(ours.state_dict())  # both have the same names
    x, same_x = (torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1)) * 0.1 for _ in range(2))
    y, expected = ours(x.requires_grad_()), theirs(same_x.requires_grad_())
    for out in (y, expected):
        out.square().sum().backward()
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(x.grad, same_x.grad)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
    half = ours(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), y, atol=0.02, rtol=0.02)


@torch.no_grad()
def test_rope_scores_depend_only_on_distance() -> None:
    rope = precompute_rope(32, 8, 10_000.0)
    q, k = torch.randn(8), torch.randn(8)
    rotated_q, rotated_k = (apply_rope(x.expand(1, 1, 32, 8), rope)[0, 0] for x in (q, k))
    scores = rotated_q @ rotated_k.T  # (32, 32)
    for distance in (0, 1, 7):
        along = scores.diagonal(-distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), atol=1e-4, rtol=0)
    assert scores[7, 7] == pytest.approx(float(q @ k), abs=1e-4)
    assert abs(scores[7, 0] - scores[7, 7]) > 1e-3


@torch.no_grad()
def test_grouped_query_attention_repeats_keys_and_values() -> None:
    q, kv = torch.randn(2, 4, 16, 8), torch.randn(2, 2, 16, 8)
    repeated = kv[:, [0, 0, 1, 1]]
    torch.testing.assert_close(attend(q, kv, kv), attend(q, repeated, repeated))


@torch.no_grad()
def test_attention_is_computed_in_float32_under_bfloat16_autocast() -> None:
    q, k, v = torch.randn(3, 2, 4, 16, 8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        output = attend(q, k, v)
    assert output.dtype == torch.bfloat16
    exact = attend(q.float(), k.float(), v.float())
    assert torch.equal(output, exact.bfloat16())


@torch.no_grad()
def test_mean_of_attention_with_dropout_equals_attention_without() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 1, 8, 4)
    mean = sum(attend(q, k, v, dropout_p=0.2) for _ in range(4000)) / 4000
    torch.testing.assert_close(mean, attend(q, k, v), atol=0.05, rtol=0)


def test_dropout_zeroes_its_share_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    x = torch.ones(1003, 1001, requires_grad=True)  # not a multiple of four
    y = dropout(x, 0.3, training=True)
    assert float((y == 0).float().mean()) == pytest.approx(0.3, abs=0.002)
    assert float(y.detach().mean()) == pytest.approx(1, abs=0.003)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())  # zeroed elements have no gradient
    assert float((y[::2] == 0).float().mean()) == pytest.approx(0.3, abs=0.003)
    assert dropout(x, 0.3, training=False) is x


def test_dropout_follows_the_seed() -> None:
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(dropout(torch.ones(64), 0.5, training=True))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
