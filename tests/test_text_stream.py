"""Text that comes token by token: whole characters only, and nothing of a stop string."""

import random

import pytest

from lit_gpt_scratch.data.tokenizer import ByteTokenizer
from lit_gpt_scratch.tools.text_stream import TextStream

BYTES = ByteTokenizer()


def shown(text: str | bytes, stop: list[str]) -> tuple[list[str], TextStream]:
    """What each byte of a text makes visible, and then its end."""
    stream = TextStream(BYTES, stop)
    parts = []
    for byte in text if isinstance(text, bytes) else text.encode():
        parts.append(stream.feed(byte))
        if stream.ended:
            break
    parts.append(stream.finish())
    assert "".join(parts) == stream.text
    return parts, stream


def test_characters_come_whole() -> None:
    assert shown("aé☃😀b", [])[0] == ["a", "", "é", "", "", "☃", "", "", "", "😀", "b", ""]


def test_bytes_that_are_no_character_are_not_held_for_ever() -> None:
    parts, stream = shown(b"a\xff\xff\xff\xff\xffb\xe2\x98", [])
    assert stream.text == BYTES.decode(b"a\xff\xff\xff\xff\xffb\xe2\x98")
    assert "".join(parts[:-2]).startswith("a\ufffd")
    assert parts[-1] == "\ufffd"  # the text ends inside a character


def test_a_stop_string_is_never_shown() -> None:
    parts, stream = shown("ab##c##\nd", ["##\n"])
    assert parts == ["a", "b", "", "", "##c", "", "", "", ""]
    assert stream.ended
    assert stream.text == "ab##c"


def test_the_first_of_several_stops() -> None:
    assert shown("one, two. three", [". ", "three", ", "])[1].text == "one"
    assert not shown("one two", [". "])[1].ended
    assert shown("aab", ["aab", "ab"])[1].text == ""
    assert shown("xaab", ["ab"])[1].text == "xa"


def test_what_looked_like_a_stop_is_shown_at_the_end() -> None:
    parts, stream = shown("the en", ["end"])
    assert parts[-1] == "en"
    assert stream.text == "the en"


@pytest.mark.parametrize("seed", range(100))
def test_any_bytes_make_the_same_text_as_at_once(seed: int) -> None:
    rng = random.Random(seed)
    some = [b"\xff", b"\xe2", b"\x98", b"a", *(char.encode() for char in "é☃😀")]
    text = b"".join(rng.choice(some) for _ in range(12))
    parts, _ = shown(text, [])
    assert "".join(parts) == BYTES.decode(text)
    assert all(len(part) <= 2 for part in parts)  # no more is ever held than a character


@pytest.mark.parametrize("seed", range(200))
def test_any_text_ends_before_its_first_stop(seed: int) -> None:
    rng = random.Random(seed)
    text = "".join(rng.choice("ab☃") for _ in range(30))
    stop = ["".join(rng.choice("ab☃") for _ in range(rng.randint(1, 5))) for _ in range(2)]
    # Found as soon as it is complete: of two, the one that ends first; then the one that begins first.
    ends = [text.find(string) + len(string) for string in stop if string in text]
    whole = text[: min(ends)] if ends else text
    cut = min((whole.find(string) for string in stop if string in whole), default=len(whole))
    assert shown(text, stop)[1].text == whole[:cut]
