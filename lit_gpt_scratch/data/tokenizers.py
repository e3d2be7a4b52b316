"""Tokenizers: text to token ids and back. A checkpoint stores a tokenizer as a plain dict."""

import logging
from collections.abc import Iterable
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lit_gpt_scratch.data.readers import unix_line_ends

log = logging.getLogger(__name__)

VISIBLE_WHITESPACE = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"}

TokenArray = npt.NDArray[np.unsignedinteger[Any]]


class Tokenizer(Protocol):
    """Interface of all tokenizers, with defaults for those without special tokens."""

    @property
    def vocab_size(self) -> int:
        """Number of distinct tokens."""

    @property
    def token_n_bytes(self) -> npt.NDArray[np.int64]:
        """Number of UTF-8 bytes of each token, (vocab_size,)."""

    def encode(self, text: str, allow_special: bool = False) -> TokenArray:
        """Return the token ids of a text, (n_tokens,).

        With `allow_special`, each `<|endoftext|>` in the text becomes the special token of this name, if the
        vocabulary has one. In all other cases, `<|endoftext|>` is encoded as ordinary text.

        Raises:
            ValueError: The text has characters outside the vocabulary.
        """

    @cached_property
    def separator_ids(self) -> TokenArray:
        """Token ids between two documents: `<|endoftext|>`, or a blank line if there is no such token."""
        return self.encode("\n\n")

    @property
    def separator_n_bytes(self) -> int:
        """Number of UTF-8 bytes of the separator between two documents; 0 if it is a special token."""
        return int(self.token_n_bytes[self.separator_ids].sum())

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids."""

    def unknown_chars(self, text: str) -> str:
        """Return the distinct characters of a text that are not in the vocabulary, sorted."""
        return ""

    def copy(self) -> "Tokenizer":
        """Return an equal tokenizer for another thread.

        Threads that share a tokenizer may wait for each other.
        """
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return a dict of built-in types from which `tokenizer_from_dict` builds an equal tokenizer."""


class CharTokenizer(Tokenizer):
    """One token per character; ids follow the order of Unicode code points."""

    def __init__(self, chars: str) -> None:
        """Use the distinct characters of `chars` as vocabulary."""
        self.chars = "".join(sorted(set(chars)))
        codes = _code_points(self.chars)
        # Token id of each code point, or len(codes) if it is not in the vocabulary. The last entry is for all
        # code points above the vocabulary's.
        self._id_of = np.full(int(codes[-1]) + 2, len(codes), dtype=np.uint32)
        self._id_of[codes] = np.arange(len(codes))

    @property
    def vocab_size(self) -> int:
        """Number of distinct characters."""
        return len(self.chars)

    @property
    def token_n_bytes(self) -> npt.NDArray[np.int64]:
        """Number of UTF-8 bytes of each character, (vocab_size,)."""
        return np.array([len(char.encode()) for char in self.chars], dtype=np.int64)

    def encode(self, text: str, allow_special: bool = False) -> TokenArray:
        """Return the token ids of a text, (n_chars,).

        `allow_special` has no effect, because this tokenizer has no special tokens.

        Raises:
            ValueError: The text has characters outside the vocabulary.
        """
        ids = self._id_of[np.minimum(_code_points(text), len(self._id_of) - 1)]
        if (ids == self.vocab_size).any():
            unknown = self.unknown_chars(text)
            raise ValueError(
                f"{len(unknown)} characters of the text are not in the tokenizer's vocabulary, such as "
                + " ".join(map(repr, unknown[:5]))
            )
        return ids.astype(id_type(self.vocab_size))

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids."""
        return "".join(self.chars[i] for i in ids)

    def unknown_chars(self, text: str) -> str:
        """Return the distinct characters of a text that are not in the vocabulary, sorted."""
        return "".join(sorted(set(text) - set(self.chars)))

    def to_dict(self) -> dict[str, Any]:
        """Return `{"kind": "char", "chars": ...}`."""
        return {"kind": "char", "chars": self.chars}


class ByteTokenizer(Tokenizer):
    """One token per UTF-8 byte, so that any text can be encoded."""

    vocab_size = 256
    token_n_bytes = np.ones(256, dtype=np.int64)

    def encode(self, text: str, allow_special: bool = False) -> TokenArray:
        """Return the UTF-8 bytes of a text as token ids, (n_bytes,).

        `allow_special` has no effect, because this tokenizer has no special tokens.
        """
        return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.uint16)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids; bytes that are not UTF-8 become U+FFFD."""
        return bytes(map(int, ids)).decode(errors="replace")

    def to_dict(self) -> dict[str, Any]:
        """Return `{"kind": "byte"}`."""
        return {"kind": "byte"}


def id_type(vocab_size: int) -> type[np.unsignedinteger[Any]]:
    """Return uint16 if it can represent every token id, otherwise uint32."""
    return np.uint16 if vocab_size <= 2**16 else np.uint32


def _code_points(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)


def token_label(tokenizer: Tokenizer, token: int) -> str:
    """Return a label for a token: its text on one line, with symbols for white space, or `#` and its id.

    The id stands for a token that is only a part of a character, or that has no text.
    """
    text = tokenizer.decode([token])
    if "\ufffd" in text or not text:
        return f"#{token}"
    return "".join(VISIBLE_WHITESPACE.get(c, c if c.isprintable() else f"\\x{ord(c):02x}") for c in text)


def encode_prompt(
    tokenizer: Tokenizer, prompt: str, allow_special: bool = False, source: str = "the prompt"
) -> TokenArray:
    """Return the token ids of a prompt, (n_tokens,), where n_tokens is at least 1.

    A byte-order mark is removed, and line endings are converted to Unix ones, as in the texts of a corpus.
    Characters outside the vocabulary are removed, with a warning; `source` is the name of the prompt in this
    warning. A prompt that is then empty becomes a newline, or token 0 if the vocabulary has no newline.
    """
    prompt = unix_line_ends(prompt.removeprefix("\ufeff"))
    if unknown := tokenizer.unknown_chars(prompt):
        log.warning("not in the vocabulary: %s; left out of %s", " ".join(map(repr, unknown)), source)
        prompt = "".join(char for char in prompt if char not in unknown)
    if not prompt and not tokenizer.unknown_chars("\n"):
        prompt = "\n"
    return tokenizer.encode(prompt, allow_special) if prompt else np.zeros(1, dtype=np.uint16)
