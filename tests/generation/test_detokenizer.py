"""Detokenizer: complete characters only, and no part of a stop string."""

import random

import pytest

from lit_gpt_scratch.data.tokenizers import ByteTokenizer
from lit_gpt_scratch.generation.detokenizer import Detokenizer

BYTES = ByteTokenizer()


def decode(text: str | bytes, stop: list[str]) -> tuple[list[str], Detokenizer]:
    """Return the text that each byte adds and the rest, and the detokenizer."""
    detokenizer = Detokenizer(BYTES, stop)
    parts = []
    for byte in text if isinstance(text, bytes) else text.encode():
        parts.append(detokenizer.feed(byte))
        if detokenizer.stopped:
            break
    parts.append(detokenizer.finish())
    assert "".join(parts) == detokenizer.text
    return parts, detokenizer


def test_characters_are_returned_only_complete() -> None:
    assert decode("aé☃😀b", [])[0] == ["a", "", "é", "", "", "☃", "", "", "", "😀", "b", ""]


def test_invalid_bytes_are_not_held_back_until_the_end() -> None:
    parts, detokenizer = decode(b"a\xff\xff\xff\xff\xffb\xe2\x98", [])
    assert detokenizer.text == BYTES.decode(b"a\xff\xff\xff\xff\xffb\xe2\x98")
    assert "".join(parts[:-2]).startswith("a\ufffd")
    assert parts[-1] == "\ufffd"  # the text ends inside a character


@pytest.mark.parametrize(
    ("text", "stop", "decoded"),
    [
        ("ab##c##\nd", ["##\n"], ["a", "b", "", "", "##c", "", "", "", ""]),
        ("the en", ["end"], ["t", "h", "", "e ", "", "", "en"]),
    ],
)
def test_text_that_may_begin_a_stop_string_is_held_back(
    text: str, stop: list[str], decoded: list[str]
) -> None:
    assert decode(text, stop)[0] == decoded


@pytest.mark.parametrize(
    ("text", "stop", "decoded"),
    [
        ("one, two. three", [". ", "three", ", "], "one"),
        ("aab", ["aab", "ab"], ""),
        ("xaab", ["ab"], "xa"),
        ("one two", [". "], "one two"),
    ],
)
def test_text_ends_before_the_first_stop_string(text: str, stop: list[str], decoded: str) -> None:
    detokenizer = decode(text, stop)[1]
    assert (detokenizer.text, detokenizer.stopped) == (decoded, decoded != text)


@pytest.mark.parametrize("seed", range(100))
def test_bytes_decode_one_by_one_as_together(seed: int) -> None:
    rng = random.Random(seed)
    some = [b"\xff", b"\xe2", b"\x98", b"a", *(char.encode() for char in "é☃😀")]
    text = b"".join(rng.choice(some) for _ in range(12))
    parts, _ = decode(text, [])
    assert "".join(parts) == BYTES.decode(text)
    assert all(len(part) <= 2 for part in parts)  # at most one character is held back
