"""Byte pair encodings: tiktoken's published ones, and one trained on a text of one's own."""

import json
from collections.abc import Iterable
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
import tiktoken
from tiktoken_ext.openai_public import r50k_pat_str

from lit_gpt_scratch.data.corpus import cache_dir, keep
from lit_gpt_scratch.data.tokenizer import ByteTokenizer, CharTokenizer, TokenArray, Tokenizer, id_type

END_OF_TEXT = "<|endoftext|>"


class SubwordTokenizer:
    """Byte pair encoding (Sennrich et al. 2016; on bytes, Radford et al. 2019), run by tiktoken."""

    def __init__(self, encoding: tiktoken.Encoding, state: dict[str, Any]) -> None:
        """Wrap an encoding; `state` is what `to_dict` gives."""
        self.encoding = encoding
        self.state = state

    @classmethod
    def named(cls, name: str) -> "SubwordTokenizer":
        """One of tiktoken's encodings, such as gpt2; tiktoken downloads it once.

        Raises:
            ValueError: There is no such encoding, or it can neither be found nor downloaded.
        """
        try:
            return cls(tiktoken.get_encoding(name), {"kind": "tiktoken", "name": name})
        except OSError as error:  # requests' errors are OSErrors
            raise ValueError(
                f"cannot download the encoding {name}: set TIKTOKEN_CACHE_DIR to a folder that has it, "
                "or train one of your own with --data.tokenizer bpe"
            ) from error

    @classmethod
    def from_tokens(cls, tokens: Iterable[bytes]) -> "SubwordTokenizer":
        """The encoding whose merges make these tokens, in this order; `<|endoftext|>` comes after them."""
        ranks = {token: rank for rank, token in enumerate(tokens)}
        special = {END_OF_TEXT: len(ranks)}
        encoding = tiktoken.Encoding(
            "bpe", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens=special
        )
        return cls(encoding, {"kind": "bpe", "tokens": [token.decode("latin-1") for token in ranks]})

    @property
    def vocab_size(self) -> int:
        """Number of token ids, special ones included."""
        return self.encoding.n_vocab

    @cached_property
    def token_n_bytes(self) -> npt.NDArray[np.int64]:
        """Bytes of text that each token stands for, (vocab_size,); none for special tokens and unused ids."""
        n_bytes = np.zeros(self.vocab_size, dtype=np.int64)
        for token in self.encoding.token_byte_values():
            n_bytes[self.encoding.encode_single_token(token)] = len(token)
        return n_bytes

    def encode(self, text: str, allow_special: bool = False) -> TokenArray:
        """Token ids of a text, (n_tokens,)."""
        special = {END_OF_TEXT} if allow_special else set()
        ids = self.encoding.encode_to_numpy(text, allowed_special=special, disallowed_special=())
        return ids.astype(id_type(self.vocab_size))

    def decode(self, ids: Iterable[int]) -> str:
        """The text that token ids stand for; bytes that are no UTF-8 become U+FFFD."""
        return self.encoding.decode(list(ids), errors="replace")

    def unknown(self, text: str) -> str:
        """Nothing: every character has bytes, and every byte is a token."""
        return ""

    def to_dict(self) -> dict[str, Any]:
        """`{"kind": "tiktoken", "name": ...}`, or `{"kind": "bpe", "tokens": ...}` with bytes as Latin-1."""
        return self.state


def train_bpe(text: str, vocab_size: int) -> SubwordTokenizer:
    """Learn a byte-level BPE from a text; the result is kept in the cache, by content and size.

    Args:
        text: What to learn from.
        vocab_size: Tokens to end with, `<|endoftext|>` included; a short text may give fewer.

    Raises:
        ValueError: vocab_size leaves no room for the 256 bytes and `<|endoftext|>`.
    """
    if vocab_size < 257:
        raise ValueError(f"data.vocab_size must be at least 257 (256 bytes, {END_OF_TEXT}), not {vocab_size}")
    kept = cache_dir() / f"bpe-{sha256(text.encode()).hexdigest()[:16]}-{vocab_size}.json"
    if kept.is_file():
        return SubwordTokenizer.from_tokens(
            token.encode("latin-1") for token in json.loads(kept.read_bytes())
        )
    tokenizer = SubwordTokenizer.from_tokens(_learn_tokens(text, vocab_size - 1))
    keep(json.dumps(tokenizer.state["tokens"]).encode(), kept)
    return tokenizer


def _learn_tokens(text: str, n_tokens: int) -> list[bytes]:
    """The 256 bytes and the merges that follow them, in the order in which they were learnt."""
    import tokenizers  # takes a while, and is needed here only

    learner = tokenizers.Tokenizer(tokenizers.models.BPE())
    learner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=n_tokens, initial_alphabet=letters, show_progress=False
    )
    learner.train_from_iterator(text.splitlines(keepends=True), trainer)
    id_of, byte_of = learner.get_vocab(), _byte_of_letter()
    return [bytes(byte_of[letter] for letter in token) for token in sorted(id_of, key=id_of.__getitem__)]


def _byte_of_letter() -> dict[str, int]:
    """GPT-2's way to write bytes as letters: printable ones as themselves, the others from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def make_tokenizer(name: str, text: str, vocab_size: int) -> Tokenizer:
    """The tokenizer that `data.tokenizer` names, made from the text where it has to be.

    Raises:
        ValueError: An encoding cannot be had, or vocab_size is too small.
    """
    if name == "char":
        return CharTokenizer(text)
    if name == "byte":
        return ByteTokenizer()
    if name == "bpe":
        return train_bpe(text, vocab_size)
    return SubwordTokenizer.named(name)


def tokenizer_from_dict(state: dict[str, Any]) -> Tokenizer:
    """Make the tokenizer that a checkpoint describes.

    Raises:
        ValueError: The dict is not one that a tokenizer's `to_dict` gave.
    """
    match state:
        case {"kind": "char", "chars": str(chars)} if chars:
            return CharTokenizer(chars)
        case {"kind": "byte"}:
            return ByteTokenizer()
        case {"kind": "tiktoken", "name": str(name)}:
            return SubwordTokenizer.named(name)
        case {"kind": "bpe", "tokens": list(tokens)} if tokens:
            return SubwordTokenizer.from_tokens(token.encode("latin-1") for token in tokens)
    raise ValueError(f"not a tokenizer: {str(state)[:80]}")
