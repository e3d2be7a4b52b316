"""Byte pair encodings: GPT-2's, and one learned from a text."""

import json
import random
import time
from pathlib import Path

import pytest

from helpers.command_line import run_process
from helpers.marks import needs_gpt2_encoding
from helpers.text import UNICODE_TEXT
from lit_gpt_scratch.data.bpe import END_OF_TEXT, SubwordTokenizer, tokenizer_from_dict, train_bpe
from lit_gpt_scratch.data.cache import cache_dir
from lit_gpt_scratch.data.corpus import Corpus, load_corpus
from lit_gpt_scratch.data.datamodule import TextDataModule
from lit_gpt_scratch.data.tokenizers import encode_prompt

pytestmark = pytest.mark.usefixtures("empty_cache")


def test_bpe_is_learned_from_the_training_part_only(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abcd " * 90 + "wxyz " * 10)
    data = TextDataModule(str(tmp_path / "a.txt"), tokenizer="bpe", vocab_size=300, block_size=8, seed=0)
    data.load("fit")
    words = {data.tokenizer.decode([i]) for i in range(data.vocab_size)}
    assert " abcd" in words
    assert not any("wx" in word for word in words)


def test_bpe_learns_tokens_that_span_lines(tmp_path: Path) -> None:
    code = Corpus.read("code", ("def f():\n    return 1\n\n\n" * 200,))
    tokenizer = train_bpe(code, code.n_chars, 300)
    assert "\n   " in {tokenizer.decode([i]) for i in range(tokenizer.vocab_size)}


def test_bpe_is_learned_from_all_parts_of_a_long_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_gpt_scratch.data.bpe.MAX_TRAINING_CHARS", 2**20)
    long = Corpus.read("long", ("early word " * 200_000 + "later ones " * 200_000,))
    tokenizer = train_bpe(long, long.n_chars, 300)
    words = {tokenizer.decode([i]) for i in range(tokenizer.vocab_size)}
    assert {" word", " ones"} <= words


def test_vocabulary_is_smaller_if_the_text_has_too_few_merges(tmp_path: Path) -> None:
    assert 257 < train_bpe(Corpus.read("short", ("to be or not to be",)), 18, 4 * 10**9).vocab_size < 280


def test_damaged_vocabulary_is_learned_again(caplog: pytest.LogCaptureFixture) -> None:
    corpus = load_corpus("python_docs")
    before = train_bpe(corpus, 100_000, 400).to_dict()
    [path] = cache_dir().glob("bpe-*")
    kept = json.loads(path.read_bytes())
    kept["content"][300] = "wrong"
    path.write_text(json.dumps(kept))
    assert train_bpe(corpus, 100_000, 400).to_dict() == before
    assert "is damaged and is computed again" in caplog.text


ALL = 10**9


PROSE = "It was the best of times, it was the worst of times, it was the age of wisdom, "


def text(content: str) -> Corpus:
    return Corpus.read("prose", (content,))


@pytest.fixture
def bpe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SubwordTokenizer:
    monkeypatch.setenv("LIT_GPT_CACHE", str(tmp_path / "cache"))
    return train_bpe(text(PROSE * 20), ALL, 280)


def test_bpe_learns_frequent_strings(bpe: SubwordTokenizer) -> None:
    assert bpe.vocab_size == 280
    ids = bpe.encode(PROSE)
    assert len(ids) < 0.6 * len(PROSE)
    assert " was" in {bpe.decode([i]) for i in ids}


def test_learned_bpe_is_cached_by_text_and_size(
    bpe: SubwordTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:

    from lit_gpt_scratch.data import bpe as subwords

    def unexpected(corpus: Corpus, stop: int, n_tokens: int) -> list[bytes]:
        raise AssertionError("learned again")

    monkeypatch.setattr(subwords, "_learn_tokens", unexpected)
    assert train_bpe(text(PROSE * 20), ALL, 280).to_dict() == bpe.to_dict()
    with pytest.raises(AssertionError, match="learned again"):
        train_bpe(text(PROSE * 21), ALL, 280)  # another text
    with pytest.raises(AssertionError, match="learned again"):
        train_bpe(text(PROSE * 20), ALL, 281)  # another size


def test_vocab_size_below_257_is_rejected() -> None:
    with pytest.raises(ValueError, match="data.vocab_size must be at least 257"):
        train_bpe(text(PROSE), ALL, 256)


def test_end_of_text_is_a_special_token_only_on_request(bpe: SubwordTokenizer) -> None:
    assert bpe.encode(END_OF_TEXT, allow_special=True).tolist() == [279]
    assert len(bpe.encode(END_OF_TEXT)) > 1
    assert bpe.token_n_bytes[279] == 0  # it stands for no text
    assert encode_prompt(bpe, f"a{END_OF_TEXT}", allow_special=True)[-1] == 279


@needs_gpt2_encoding
def test_gpt2_encoding_has_the_published_ids() -> None:
    gpt2 = SubwordTokenizer.from_name("gpt2")
    assert gpt2.vocab_size == 50257
    assert gpt2.encode("Hello, I am").tolist() == [15496, 11, 314, 716]
    assert gpt2.encode(END_OF_TEXT, allow_special=True).tolist() == [50256]
    assert gpt2.decode(gpt2.encode(UNICODE_TEXT)) == UNICODE_TEXT


def test_unavailable_encoding_error_names_two_remedies(monkeypatch: pytest.MonkeyPatch) -> None:
    import tiktoken

    def unreachable(name: str) -> tiktoken.Encoding:
        raise ConnectionError("no network")

    monkeypatch.setattr(tiktoken, "get_encoding", unreachable)
    with pytest.raises(ValueError, match="set TIKTOKEN_CACHE_DIR .* --data.tokenizer bpe"):
        SubwordTokenizer.from_name("gpt2")


@pytest.mark.parametrize(
    "state", [{}, {"kind": "char"}, {"kind": "char", "chars": ""}, {"kind": "other", "chars": "a"}]
)
def test_invalid_tokenizer_dict_is_rejected(state: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="not a tokenizer"):
        tokenizer_from_dict(state)


@pytest.mark.parametrize("letters", ["ACGT", "".join(map(chr, range(0x4E00, 0x5600))), "a", " "])
def test_bpe_is_learned_in_seconds_from_text_without_word_borders(letters: str) -> None:
    content = "".join(random.Random(0).choices(letters, k=200_000))
    started = time.perf_counter()
    tokenizer = train_bpe(text(content), len(content), 2000)
    assert time.perf_counter() - started < 10  # quadratic time would be minutes
    assert tokenizer.decode(tokenizer.encode(content[:1000])) == content[:1000]


INTERRUPTED = """
import os, random, signal, sys, threading, time
from lit_gpt_scratch.data.bpe import train_bpe
from lit_gpt_scratch.data.corpus import Corpus

content = "".join(random.Random(0).choices([chr(i) for i in range(0x4E00, 0x5600)], k=3_000_000))
corpus = Corpus.read("text", (content,))
sent = []
def interrupt():
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)
threading.Timer(2, interrupt).start()
try:
    train_bpe(corpus, len(content), 20_000)
except KeyboardInterrupt:
    print(time.perf_counter() - sent[0])
    sys.stdout.flush()
    os._exit(0)
"""


@pytest.mark.slow
def test_ctrl_c_ends_bpe_learning_within_a_second() -> None:
    done = run_process(code=INTERRUPTED)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1
