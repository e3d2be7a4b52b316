"""Properties of tokenizers, batches and sampling, for random inputs."""

import functools
import json
from collections import Counter

import numpy as np
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from lit_gpt_scratch.data.batches import (
    IGNORE,
    EvalBatches,
    EvalSet,
    TrainBatches,
    full_pass_starts,
    spread_starts,
)
from lit_gpt_scratch.data.bpe import END_OF_TEXT, SubwordTokenizer, tokenizer_from_dict, train_bpe
from lit_gpt_scratch.data.corpus import load_corpus
from lit_gpt_scratch.data.token_files import Tokens
from lit_gpt_scratch.data.tokenizers import ByteTokenizer, CharTokenizer
from lit_gpt_scratch.generation import sampling
from lit_gpt_scratch.generation.detokenizer import Detokenizer

settings.register_profile("deterministic", deadline=None, derandomize=True)
settings.load_profile("deterministic")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@functools.cache
def bpe() -> SubwordTokenizer:
    return train_bpe(load_corpus("hamlet"), 600, 300)


@given(text=TEXTS)
@example(f"a{END_OF_TEXT}b")
@example(" \n\t \r\n\U0001f600\U0010ffff\u0800")
def test_tokenizers_decode_what_they_encode(text: str) -> None:
    for tokenizer in (ByteTokenizer(), bpe(), CharTokenizer("".join(sorted({*text, "a"})))):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids.tolist()) == text
        assert sum(tokenizer.token_n_bytes[ids].tolist()) == len(text.encode())
        again = tokenizer_from_dict(json.loads(json.dumps(tokenizer.to_dict())))
        assert again.encode(text).tolist() == ids.tolist()
        assert again.to_dict() == tokenizer.to_dict()
        assert again.vocab_size == tokenizer.vocab_size


@given(text=TEXTS, stop=st.lists(st.text(min_size=1, max_size=3), max_size=2))
def test_decoded_text_ends_before_a_stop_string(text: str, stop: list[str]) -> None:
    detokenizer = Detokenizer(bpe(), stop)
    decoded = ""
    for token in bpe().encode(text).tolist():
        decoded += detokenizer.feed(token)
        if detokenizer.stopped:
            break
    decoded += detokenizer.finish()
    assert text.startswith(decoded)
    assert not any(string in decoded for string in stop)
    assert decoded == text or any(text[len(decoded) :].startswith(string) for string in stop)


@given(
    n_tokens=st.integers(12, 200),
    block_size=st.integers(1, 10),
    per_device=st.integers(1, 5),
    world_size=st.integers(1, 4),
    micro_batch_size=st.integers(1, 7),
    step=st.integers(0, 10**9),
)
def test_devices_and_micro_batches_partition_the_batch(
    n_tokens: int, block_size: int, per_device: int, world_size: int, micro_batch_size: int, step: int
) -> None:
    tokens = np.arange(n_tokens, dtype=np.uint16)

    def rows(micro_batch_size: int, world_size: int) -> list[list[int]]:
        found = []
        for rank in range(world_size):
            batches = TrainBatches(
                tokens,
                block_size,
                batch_size,
                micro_batch_size,
                seed=7,
                first_step=0,
                n_steps=1,
                rank=rank,
                world_size=world_size,
            )
            for inputs, targets in batches.micro_batches(step):
                assert torch.equal(targets, inputs + 1)
                assert len(inputs) <= micro_batch_size
                found += inputs.tolist()
        return found

    batch_size = per_device * world_size
    assert rows(micro_batch_size, world_size) == rows(batch_size, 1)


@given(
    n_tokens=st.integers(2, 300),
    block_size=st.integers(1, 40),
    batch_size=st.integers(1, 9),
    world_size=st.integers(1, 3),
)
def test_full_pass_evaluates_each_token_once(
    n_tokens: int, block_size: int, batch_size: int, world_size: int
) -> None:
    block_size = min(block_size, n_tokens - 1)
    tokens = np.arange(n_tokens, dtype=np.uint16)
    starts = full_pass_starts(n_tokens, block_size)
    assume(len(starts) >= world_size)  # fewer windows than devices are rejected
    windows = EvalSet(Tokens(tokens, n_tokens), starts, block_size)
    ranks = [EvalBatches(windows, batch_size, rank, world_size) for rank in range(world_size)]
    assert len({len(batches) for batches in ranks}) == 1  # FSDP gathers the weights for each batch
    counts: Counter[int] = Counter()
    for batches in ranks:
        items = list(batches)
        assert len(items) == len(batches)
        for inputs, targets in items:
            assert inputs.shape[1] == block_size
            counted = targets != IGNORE
            assert torch.equal(targets[counted], inputs[counted] + 1)
            counts.update(targets[counted].tolist())
    assert counts == Counter(range(1, n_tokens))
    spread = spread_starts(n_tokens, block_size, len(starts))
    assert spread.min() == 0
    assert spread.max() <= n_tokens - block_size - 1


LOGITS = st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=20)


@given(logits=LOGITS, k=st.integers(1, 25), p=st.floats(0.01, 1.0), uniform=st.floats(0, 1, exclude_max=True))
def test_filters_keep_the_most_probable_tokens_and_sample_chooses_among_them(
    logits: list[float], k: int, p: float, uniform: float
) -> None:
    x = torch.tensor([logits])
    probabilities = x.softmax(dim=-1)[0]
    uniforms = torch.tensor([uniform], dtype=torch.float64)
    for kept in (sampling.keep_top_k(x, k), sampling.keep_top_p(x, p), sampling.keep_min_p(x, p)):
        allowed = kept[0].isfinite()
        assert torch.equal(kept[0][allowed], x[0][allowed])
        assert probabilities[allowed].max() == probabilities.max()
        if not allowed.all():
            assert probabilities[allowed].min() >= probabilities[~allowed].max()
        assert allowed[sampling.sample(kept, uniforms)[0]]
    assert int(sampling.keep_top_k(x, k)[0].isfinite().sum()) >= min(k, len(logits))
    assert float(probabilities[sampling.keep_top_p(x, p)[0].isfinite()].sum()) >= p - 1e-5
    sampled, ends = int(sampling.sample(x, uniforms)[0]), probabilities.double().cumsum(0)
    assert float(ends[sampled] - probabilities[sampled]) - 1e-6 <= uniform <= float(ends[sampled]) + 1e-6
