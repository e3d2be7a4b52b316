"""KV cache: logits equal those without a cache."""

from typing import Any

import pytest
import torch

from helpers.models import ARCHITECTURES, random_gpt


@pytest.mark.parametrize("settings", ARCHITECTURES)
@pytest.mark.parametrize("chunks", [[1] * 12, [12], [5, 1, 4, 2]])
@torch.no_grad()
def test_cached_logits_equal_uncached_ones(settings: dict[str, Any], chunks: list[int]) -> None:
    gpt = random_gpt(block_size=12, **settings)
    ids = torch.randint(30, (3, 12))
    cache = gpt.new_cache(3, 12)
    logits = torch.cat([gpt(chunk, cache) for chunk in ids.split(chunks, dim=1)], dim=1)
    torch.testing.assert_close(logits, gpt(ids), atol=1e-5, rtol=0)
    assert cache.lengths == [12] * 3


@pytest.mark.parametrize("settings", ARCHITECTURES)
@pytest.mark.parametrize("chunk", [1, 2])
@torch.no_grad()
def test_cached_logits_of_rows_of_different_lengths_equal_uncached_ones(
    settings: dict[str, Any], chunk: int
) -> None:
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
def test_cache_rows_are_selected_and_overwritten() -> None:
    gpt = random_gpt()
    cache = gpt.new_cache(3, 8)
    gpt(torch.tensor([[1, 2, 3], [3, 4, 5], [4, 5, 6]]), cache)
    gpt(torch.tensor([[7, 8, 9]]), cache.empty_row(1))
    logits = gpt(torch.tensor([[10], [11]]), cache.select([1, 2]))[:, -1]
    expected = gpt(torch.tensor([[7, 8, 9, 10], [4, 5, 6, 11]]))[:, -1]
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("activation_checkpointing", [False, True])
def test_cache_requires_no_grad(activation_checkpointing: bool) -> None:
    gpt = random_gpt()
    gpt.activation_checkpointing = activation_checkpointing
    with pytest.raises(RuntimeError, match="inplace"):
        gpt(torch.randint(30, (1, 6)), gpt.new_cache(1, 6))


@torch.no_grad()
def test_full_cache_is_rejected() -> None:
    gpt = random_gpt(block_size=8)
    cache = gpt.new_cache(1, 100)
    gpt(torch.zeros(1, 8, dtype=torch.long), cache)
    with pytest.raises(ValueError, match="9 tokens do not fit into a cache of 8"):
        gpt(torch.zeros(1, 1, dtype=torch.long), cache)
