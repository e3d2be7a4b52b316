"""A byte pair encoding that is learned from a text."""

import json
from pathlib import Path

import pytest

from lit_gpt_scratch.data.bpe import train_bpe
from lit_gpt_scratch.data.cache import cache_dir
from lit_gpt_scratch.data.corpus import Corpus, load_corpus
from lit_gpt_scratch.data.datamodule import TextDataModule

pytestmark = pytest.mark.usefixtures("empty_cache")


def test_a_bpe_learns_from_the_training_text_alone(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abcd " * 90 + "wxyz " * 10)
    data = TextDataModule(str(tmp_path / "a.txt"), tokenizer="bpe", vocab_size=300, block_size=8, seed=0)
    data.load("fit")
    words = {data.tokenizer.decode([i]) for i in range(data.vocab_size)}
    assert " abcd" in words
    assert not any("wx" in word for word in words)


def test_a_bpe_learns_what_reaches_over_lines(tmp_path: Path) -> None:
    code = Corpus.read("code", ("def f():\n    return 1\n\n\n" * 200,))
    tokenizer = train_bpe(code, code.n_chars, 300)
    assert "\n   " in {tokenizer.decode([i]) for i in range(tokenizer.vocab_size)}


def test_a_bpe_learns_from_all_over_a_long_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_gpt_scratch.data.bpe.LEARNING_CHARS", 2**20)
    long = Corpus.read("long", ("early word " * 200_000 + "later ones " * 200_000,))
    tokenizer = train_bpe(long, long.n_chars, 300)
    words = {tokenizer.decode([i]) for i in range(tokenizer.vocab_size)}
    assert {" word", " ones"} <= words


def test_more_tokens_than_a_text_can_give(tmp_path: Path) -> None:
    assert 257 < train_bpe(Corpus.read("short", ("to be or not to be",)), 18, 4 * 10**9).vocab_size < 280


def test_a_damaged_vocabulary_is_learned_again(caplog: pytest.LogCaptureFixture) -> None:
    corpus = load_corpus("python_docs")
    before = train_bpe(corpus, 100_000, 400).to_dict()
    [path] = cache_dir().glob("bpe-*")
    kept = json.loads(path.read_bytes())
    kept["content"][300] = "wrong"
    path.write_text(json.dumps(kept))
    assert train_bpe(corpus, 100_000, 400).to_dict() == before
    assert "is damaged and is computed again" in caplog.text
