"""Strided windows and the losses of their tokens."""

import numpy as np
import pytest
import torch

from lit_gpt_scratch.evaluation.scoring import score_tokens, strided_windows
from lit_gpt_scratch.model.gpt import GPT, GPTConfig


@pytest.mark.parametrize("n_tokens", [2, 4, 5, 6, 29, 103])
@pytest.mark.parametrize(("block_size", "stride"), [(4, 2), (4, 3), (4, 1), (16, 7)])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_each_token_after_the_first_is_scored_once(
    n_tokens: int, block_size: int, stride: int, batch_size: int
) -> None:
    scored: list[int] = []
    for positions, is_scored in strided_windows(n_tokens, block_size, stride, batch_size):
        assert len(positions) <= batch_size
        for window, mask in zip(positions, is_scored, strict=True):
            assert len(window) <= block_size
            new = window[mask].tolist()
            assert not scored or new[0] - window[0] >= block_size - stride  # context
            scored += new
    assert scored == list(range(1, n_tokens))


def test_batches_do_not_change_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(50, "modern", block_size=8, n_layer=2, n_head=2, n_embd=16)).eval()
    torch.nn.init.normal_(gpt.h[0].mlp.c_proj.weight)
    ids = np.random.default_rng(0).integers(50, size=101).astype(np.uint16)
    together = score_tokens(gpt, ids, stride=3, n_guesses=2)
    monkeypatch.setattr("lit_gpt_scratch.evaluation.scoring.MAX_BATCH_TOKENS", 8)
    single = score_tokens(gpt, ids, stride=3, n_guesses=2)
    np.testing.assert_allclose(together.losses, single.losses, rtol=1e-5)
    np.testing.assert_array_equal(together.guesses, single.guesses)
    # The context of the fifth token is the four before it.
    logits = gpt(torch.from_numpy(ids[:4].astype(np.int64))[None])[0, -1].detach()
    assert together.losses[3] == pytest.approx(-float(logits.log_softmax(0)[int(ids[4])]), rel=1e-5)
    top = logits.softmax(0).topk(2)
    assert together.guesses[3].tolist() == top.indices.tolist()
    np.testing.assert_allclose(together.probabilities[3], top.values, rtol=1e-5)
