"""Characters to ids and back."""

import random
from pathlib import Path

import numpy as np
import pytest

from helpers.marks import needs_gpt2_encoding
from lit_gpt_scratch.data.bpe import END_OF_TEXT, SubwordTokenizer, tokenizer_from_dict, train_bpe
from lit_gpt_scratch.data.corpus import Corpus
from lit_gpt_scratch.data.tokenizers import ByteTokenizer, CharTokenizer, encode_prompt


def test_ids_follow_the_sorted_characters() -> None:
    tokenizer = CharTokenizer("hello\n")
    assert tokenizer.chars == "\nehlo"
    assert tokenizer.encode("hole").tolist() == [2, 4, 3, 1]
    assert tokenizer.decode([2, 4, 3, 1]) == "hole"


def test_the_tutorial_vocabulary(shakespeare: str) -> None:
    assert CharTokenizer(shakespeare).vocab_size == 65


def test_ids_are_as_small_as_the_vocabulary_allows() -> None:
    assert CharTokenizer("ab").encode("ab").dtype == np.uint16
    large = "".join(map(chr, range(0xE000, 0x1E001)))
    assert len(large) == 2**16 + 1
    assert CharTokenizer(large).encode(large).tolist() == list(range(2**16 + 1))


def test_a_character_outside_the_vocabulary_is_named() -> None:
    with pytest.raises(ValueError, match="2 characters .* such as 'x' 'y'"):
        CharTokenizer("abc").encode("xabcy")


def test_a_prompt_loses_what_the_model_never_saw(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = CharTokenizer("ab\n")
    assert tokenizer.decode(encode_prompt(tokenizer, "azb")) == "ab"
    assert "'z'" in caplog.text


def test_an_empty_prompt_starts_a_line() -> None:
    assert encode_prompt(CharTokenizer("ab\n"), "").tolist() == [0]
    assert encode_prompt(CharTokenizer("ba"), "").tolist() == [0]  # no newline: the first token
    assert CharTokenizer("\tb\n").decode(encode_prompt(CharTokenizer("\tb\n"), "xyz")) == "\n"


@pytest.mark.parametrize(
    "state", [{}, {"kind": "char"}, {"kind": "char", "chars": ""}, {"kind": "other", "chars": "a"}]
)
def test_other_dicts_are_refused(state: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="not a tokenizer"):
        tokenizer_from_dict(state)


RNG = random.Random(1)
ANY_TEXT = "".join(
    chr(RNG.choice([RNG.randrange(0xD800), RNG.randrange(0xE000, 0x110000)])) for _ in range(2000)
)
ALL = 10**9
PROSE = "It was the best of times, it was the worst of times, it was the age of wisdom, "


def text(content: str) -> Corpus:
    return Corpus.read("prose", (content,))


@pytest.fixture
def bpe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SubwordTokenizer:
    monkeypatch.setenv("LIT_GPT_CACHE", str(tmp_path / "cache"))
    return train_bpe(text(PROSE * 20), ALL, 280)


def test_bytes() -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.encode("né").tolist() == [110, 195, 169]
    assert tokenizer.decode(tokenizer.encode(ANY_TEXT)) == ANY_TEXT
    assert tokenizer.decode([110, 195]) == "n�"  # a character cut in the middle


def test_a_bpe_learns_what_is_frequent(bpe: SubwordTokenizer) -> None:
    assert bpe.vocab_size == 280
    ids = bpe.encode(PROSE)
    assert len(ids) < 0.6 * len(PROSE)
    assert " was" in {bpe.decode([i]) for i in ids}


def test_a_bpe_is_learned_once(bpe: SubwordTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:

    from lit_gpt_scratch.data import bpe as subwords

    def unexpected(corpus: Corpus, stop: int, n_tokens: int) -> list[bytes]:
        raise AssertionError("learned again")

    monkeypatch.setattr(subwords, "_learn_tokens", unexpected)
    assert train_bpe(text(PROSE * 20), ALL, 280).to_dict() == bpe.to_dict()
    with pytest.raises(AssertionError, match="learned again"):
        train_bpe(text(PROSE * 21), ALL, 280)  # another text
    with pytest.raises(AssertionError, match="learned again"):
        train_bpe(text(PROSE * 20), ALL, 281)  # another size


def test_a_bpe_has_room_for_every_byte() -> None:
    with pytest.raises(ValueError, match="data.vocab_size must be at least 257"):
        train_bpe(text(PROSE), ALL, 256)


def test_end_of_text_is_a_token_only_when_asked(bpe: SubwordTokenizer) -> None:
    assert bpe.encode(END_OF_TEXT, allow_special=True).tolist() == [279]
    assert len(bpe.encode(END_OF_TEXT)) > 1
    assert bpe.token_n_bytes[279] == 0  # it is no text
    assert encode_prompt(bpe, f"a{END_OF_TEXT}", allow_special=True)[-1] == 279


@needs_gpt2_encoding
def test_gpt2_is_gpt2() -> None:
    gpt2 = SubwordTokenizer.named("gpt2")
    assert gpt2.vocab_size == 50257
    assert gpt2.encode("Hello, I am").tolist() == [15496, 11, 314, 716]
    assert gpt2.encode(END_OF_TEXT, allow_special=True).tolist() == [50256]
    assert gpt2.decode(gpt2.encode(ANY_TEXT)) == ANY_TEXT


def test_an_encoding_that_cannot_be_had_names_both_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import tiktoken

    def unreachable(name: str) -> tiktoken.Encoding:
        raise ConnectionError("no network")

    monkeypatch.setattr(tiktoken, "get_encoding", unreachable)
    with pytest.raises(ValueError, match="set TIKTOKEN_CACHE_DIR .* --data.tokenizer bpe"):
        SubwordTokenizer.named("gpt2")
