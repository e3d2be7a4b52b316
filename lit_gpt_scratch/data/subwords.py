"""Byte pair encodings: tiktoken's published ones, and one trained on a text of one's own."""

import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tiktoken
from tiktoken_ext.openai_public import r50k_pat_str

from lit_gpt_scratch.data.cache import FORMAT, cache_dir, kept_or_made
from lit_gpt_scratch.data.corpus import Corpus
from lit_gpt_scratch.data.progress_bar import progress_bar
from lit_gpt_scratch.data.readers import take
from lit_gpt_scratch.data.tokenizer import ByteTokenizer, CharTokenizer, TokenArray, Tokenizer, id_type
from lit_gpt_scratch.data.tokens import batches

END_OF_TEXT = "<|endoftext|>"
LEARNING_CHARS = 3 * 10**6  # takes seconds; random Chinese, which has no words to share, takes a gigabyte
MAX_VOCAB_SIZE = 2**32  # ids are of 32 bits at most


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

    @cached_property
    def separator_ids(self) -> TokenArray:
        """`<|endoftext|>`, (1,)."""
        return self.encode(END_OF_TEXT, allow_special=True)

    def decode(self, ids: Iterable[int]) -> str:
        """The text that token ids stand for; bytes that are no UTF-8 become U+FFFD."""
        return self.encoding.decode([i for i in ids if i not in self._unused], errors="replace")

    @cached_property
    def _unused(self) -> frozenset[int]:
        """Ids below `vocab_size` that no token has (cl100k_base has some); a young model may draw them."""
        known = {self.encoding.encode_single_token(token) for token in self.encoding.token_byte_values()}
        special = {self.encoding.encode_single_token(name) for name in self.encoding.special_tokens_set}
        return frozenset(range(self.vocab_size)) - known - special

    def unknown(self, text: str) -> str:
        """Nothing: every character has bytes, and every byte is a token."""
        return ""

    def copy(self) -> "SubwordTokenizer":
        """An equal one: threads that share an encoding wait for each other at its regular expressions."""
        encoding = self.encoding
        own = tiktoken.Encoding(
            encoding.name,
            pat_str=encoding._pat_str,
            mergeable_ranks=encoding._mergeable_ranks,
            special_tokens=encoding._special_tokens,
        )
        return SubwordTokenizer(own, self.state)

    def to_dict(self) -> dict[str, Any]:
        """`{"kind": "tiktoken", "name": ...}`, or `{"kind": "bpe", "tokens": ...}` with bytes as Latin-1."""
        return self.state


def train_bpe(corpus: Corpus, stop: int, vocab_size: int) -> SubwordTokenizer:
    """Learn a byte-level BPE from a text; the result is kept in the cache, by content and size.

    Args:
        corpus: What to learn from.
        stop: Only its characters before this one are read; of more than `LEARNING_CHARS`, pieces that are
            spread over them.
        vocab_size: Tokens to end with, `<|endoftext|>` included; a short text may give fewer.

    Raises:
        ValueError: vocab_size leaves no room for the 256 bytes and `<|endoftext|>`, or is too large.
    """
    if not 257 <= vocab_size <= MAX_VOCAB_SIZE:
        raise ValueError(
            f"data.vocab_size must be at least 257 (256 bytes, {END_OF_TEXT}) and at most {MAX_VOCAB_SIZE}, "
            f"not {vocab_size}"
        )
    stop = min(stop, corpus.census.n_chars)
    kept = cache_dir() / f"bpe-{FORMAT}-{corpus.sha256[:32]}-{stop}-{vocab_size}.json"
    tokens = kept_or_made(kept, lambda: _learn_tokens(corpus, stop, vocab_size - 1))
    return SubwordTokenizer.from_tokens(token.encode("latin-1") for token in tokens)


def _learn_tokens(corpus: Corpus, stop: int, n_tokens: int) -> list[str]:
    """The 256 bytes and the merges that follow them, in the order in which they were learnt, as Latin-1."""
    import tokenizers  # takes a while, and is needed here only

    learner = tokenizers.Tokenizer(tokenizers.models.BPE())
    learner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    possible = min(n_tokens, 256 + corpus.census.n_bytes)  # it takes memory for each, learnt or not
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=possible, initial_alphabet=letters, show_progress=False
    )
    learner.train_from_iterator(_learning_text(corpus, stop), trainer)
    corpus.check_unchanged()
    id_of, byte_of = learner.get_vocab(), byte_of_letter()
    tokens = [bytes(byte_of[letter] for letter in token) for token in sorted(id_of, key=id_of.__getitem__)]
    return [token.decode("latin-1") for token in tokens]


def _learning_text(corpus: Corpus, stop: int) -> Iterator[list[str]]:
    """What is learnt from: all of the text, or of a long one as many pieces as are due."""
    share = min(1.0, LEARNING_CHARS / stop)
    due = 0.0
    label = f"learning from {Path(corpus.name).name}"
    with progress_bar(label, stop, " characters") as advance:
        for batch in batches(take(corpus.pieces(), 0, stop)):
            pieces = [piece for piece in batch if piece]
            n_chars = sum(map(len, pieces))
            due += n_chars * share
            if due >= n_chars:
                due -= n_chars
                yield pieces
            advance(n_chars)


def byte_of_letter() -> dict[str, int]:
    """GPT-2's way to write bytes as letters: printable ones as themselves, the others from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


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


def tokenizer_from_json(text: str) -> Tokenizer:
    """Make the tokenizer whose dict is written as JSON.

    Raises:
        ValueError: It is no such text.
    """
    try:
        state = json.loads(text)
    except ValueError:
        raise ValueError(f"not a tokenizer: {text[:80]}") from None
    return tokenizer_from_dict(state)
