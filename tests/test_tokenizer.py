"""Characters to ids and back."""

import json
import random

import numpy as np
import pytest

from lit_gpt_scratch.data.tokenizer import CharTokenizer, encode_prompt, tokenizer_from_dict


def test_ids_follow_the_sorted_characters() -> None:
    tokenizer = CharTokenizer("hello\n")
    assert tokenizer.chars == "\nehlo"
    assert tokenizer.encode("hole").tolist() == [2, 4, 3, 1]
    assert tokenizer.decode([2, 4, 3, 1]) == "hole"


def test_the_tutorial_vocabulary(shakespeare: str) -> None:
    assert CharTokenizer(shakespeare).vocab_size == 65


def test_any_text_comes_back() -> None:
    rng = random.Random(0)
    text = "".join(
        chr(rng.choice([rng.randrange(32, 0xD800), rng.randrange(0xE000, 0x110000)])) for _ in range(5000)
    )
    tokenizer = CharTokenizer(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.token_n_bytes[tokenizer.encode(text)].sum() == len(text.encode())


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


def test_it_travels_as_plain_data() -> None:
    tokenizer = CharTokenizer("né\n")
    again = tokenizer_from_dict(json.loads(json.dumps(tokenizer.to_dict())))
    assert again.encode("né").tolist() == tokenizer.encode("né").tolist()
    assert again.to_dict() == tokenizer.to_dict()


@pytest.mark.parametrize(
    "state", [{}, {"kind": "char"}, {"kind": "char", "chars": ""}, {"kind": "other", "chars": "a"}]
)
def test_other_dicts_are_refused(state: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="not a tokenizer"):
        tokenizer_from_dict(state)
