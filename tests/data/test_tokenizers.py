"""Character and byte tokenizers."""

import numpy as np
import pytest

from helpers.text import UNICODE_TEXT
from lit_gpt_scratch.data.tokenizers import ByteTokenizer, CharTokenizer, encode_prompt, token_label


def test_char_ids_follow_the_sorted_characters() -> None:
    tokenizer = CharTokenizer("hello\n")
    assert tokenizer.chars == "\nehlo"
    assert tokenizer.encode("hole").tolist() == [2, 4, 3, 1]
    assert tokenizer.decode([2, 4, 3, 1]) == "hole"


def test_tiny_shakespeare_has_65_characters(shakespeare: str) -> None:
    assert CharTokenizer(shakespeare).vocab_size == 65


def test_char_ids_have_the_smallest_integer_type() -> None:
    assert CharTokenizer("ab").encode("ab").dtype == np.uint16
    large = "".join(map(chr, range(0xE000, 0x1E001)))
    assert len(large) == 2**16 + 1
    assert CharTokenizer(large).encode(large).tolist() == list(range(2**16 + 1))


def test_characters_outside_the_vocabulary_are_reported() -> None:
    with pytest.raises(ValueError, match="2 characters .* such as 'x' 'y'"):
        CharTokenizer("abc").encode("xabcy")


def test_prompt_loses_characters_outside_the_vocabulary(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = CharTokenizer("ab\n")
    assert tokenizer.decode(encode_prompt(tokenizer, "azb")) == "ab"
    assert "'z'" in caplog.text


def test_empty_prompt_becomes_a_newline_or_the_first_token() -> None:
    assert encode_prompt(CharTokenizer("ab\n"), "").tolist() == [0]
    assert encode_prompt(CharTokenizer("ba"), "").tolist() == [0]  # no newline: the first token
    assert CharTokenizer("\tb\n").decode(encode_prompt(CharTokenizer("\tb\n"), "xyz")) == "\n"


def test_byte_tokenizer_encodes_utf8() -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.encode("né").tolist() == [110, 195, 169]
    assert tokenizer.decode(tokenizer.encode(UNICODE_TEXT)) == UNICODE_TEXT
    assert tokenizer.decode([110, 195]) == "n�"  # an incomplete character


def test_token_label_is_one_nonempty_line() -> None:
    """TensorBoard drops blank lines, which shifts the labels after them."""
    tokenizer = ByteTokenizer()
    labels = [token_label(tokenizer, i) for i in range(256)]
    assert all(label.split() == [label] for label in labels)
    assert labels[ord("A")] == "A"
    assert labels[ord(" ")] == "␣"
    assert labels[0x0B] == "\\x0b"
    assert labels[0xE5] == "#229"  # part of a character
    wide = CharTokenizer("\u3000字")
    assert sorted(token_label(wide, i) for i in range(2)) == ["\\x3000", "字"]


def test_prompt_is_cleaned_as_texts_are(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = CharTokenizer("ab\n")
    assert tokenizer.decode(encode_prompt(tokenizer, "\ufeffa\r\nb\ra")) == "a\nb\na"
    assert caplog.text == ""
