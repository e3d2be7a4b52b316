"""Byte pair encodings: those that tiktoken publishes, and one learned from a text."""

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tiktoken
from tiktoken_ext.openai_public import r50k_pat_str

from lit_gpt_scratch.data.cache import FORMAT_VERSION, cache_dir, load_or_compute
from lit_gpt_scratch.data.corpus import Corpus
from lit_gpt_scratch.data.progress_bar import progress_bar
from lit_gpt_scratch.data.readers import slice_chars
from lit_gpt_scratch.data.token_files import batch_pieces
from lit_gpt_scratch.data.tokenizers import ByteTokenizer, CharTokenizer, TokenArray, Tokenizer, id_type

END_OF_TEXT = "<|endoftext|>"
# Maximum number of characters to learn from: learning takes seconds, and up to a gigabyte of memory for text
# without repeated words (random Chinese).
MAX_TRAINING_CHARS = 3 * 10**6
MAX_WORD_CHARS = 200  # longer words are cut, because the time to learn from a word is quadratic in its length
LONG_WORD = re.compile(rf"(?s).*?(?:\S{{{MAX_WORD_CHARS}}}|\s{{{MAX_WORD_CHARS}}})|.+")
MAX_VOCAB_SIZE = 2**32  # token ids have at most 32 bits


class SubwordTokenizer(Tokenizer):
    """Byte pair encoding (Sennrich et al. 2016) of UTF-8 bytes (Radford et al. 2019), run by tiktoken."""

    def __init__(self, encoding: tiktoken.Encoding, state: dict[str, Any]) -> None:
        """Wrap an encoding; `to_dict` returns `state`."""
        self.encoding = encoding
        self.state = state

    @classmethod
    def from_name(cls, name: str) -> "SubwordTokenizer":
        """Return a tokenizer with one of tiktoken's encodings, such as gpt2, which tiktoken downloads once.

        Raises:
            ValueError: tiktoken has no encoding of this name, or the encoding is not on disk and cannot be
                downloaded.
        """
        try:
            return cls(tiktoken.get_encoding(name), {"kind": "tiktoken", "name": name})
        except OSError as error:  # requests' errors are OSErrors
            raise ValueError(
                f"cannot download the encoding {name}: set TIKTOKEN_CACHE_DIR to a folder that has it, "
                "or train one of your own with --data.tokenizer bpe"
            ) from error

    @classmethod
    def from_tokens(cls, tokens: list[str]) -> "SubwordTokenizer":
        """Return a tokenizer whose vocabulary is `tokens`, followed by `<|endoftext|>`.

        Args:
            tokens: Bytes of each token, decoded as Latin-1, in the order of the merges.
        """
        ranks = {token.encode("latin-1"): rank for rank, token in enumerate(tokens)}
        special = {END_OF_TEXT: len(ranks)}
        encoding = tiktoken.Encoding(
            "bpe", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens=special
        )
        return cls(encoding, {"kind": "bpe", "tokens": tokens})

    @property
    def vocab_size(self) -> int:
        """Number of token ids, including special tokens and unused ids."""
        return self.encoding.n_vocab

    @cached_property
    def token_n_bytes(self) -> npt.NDArray[np.int64]:
        """Number of text bytes in each token, (vocab_size,); 0 for special tokens and unused ids."""
        n_bytes = np.zeros(self.vocab_size, dtype=np.int64)
        for token, i in self.encoding._mergeable_ranks.items():
            n_bytes[i] = len(token)
        return n_bytes

    def encode(self, text: str, allow_special: bool = False) -> TokenArray:
        """Return the token ids of a text, (n_tokens,)."""
        special = {END_OF_TEXT} if allow_special else set()
        ids = self.encoding.encode_to_numpy(text, allowed_special=special, disallowed_special=())
        return ids.astype(id_type(self.vocab_size))

    @cached_property
    def separator_ids(self) -> TokenArray:
        """Token id of `<|endoftext|>`, which separates documents, (1,)."""
        return self.encode(END_OF_TEXT, allow_special=True)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids; bytes that are not UTF-8 become U+FFFD."""
        return self.encoding.decode([i for i in ids if i in self._used_ids], errors="replace")

    @cached_property
    def _used_ids(self) -> frozenset[int]:
        """Ids that have a token; cl100k_base also has unused ids, which an untrained model may sample."""
        encoding = self.encoding
        return frozenset([*encoding._mergeable_ranks.values(), *encoding._special_tokens.values()])

    def copy(self) -> "SubwordTokenizer":
        """Return an equal tokenizer for another thread.

        Threads that share an encoding wait for each other when they use its regular expressions.
        """
        encoding = self.encoding
        own = tiktoken.Encoding(
            encoding.name,
            pat_str=encoding._pat_str,
            mergeable_ranks=encoding._mergeable_ranks,
            special_tokens=encoding._special_tokens,
        )
        return SubwordTokenizer(own, self.state)

    def to_dict(self) -> dict[str, Any]:
        """Return `{"kind": "tiktoken", "name": ...}` or `{"kind": "bpe", "tokens": ...}`.

        The list ``tokens`` has the bytes of each token, decoded as Latin-1.
        """
        return self.state


def train_bpe(corpus: Corpus, stop: int, vocab_size: int) -> SubwordTokenizer:
    """Learn a byte-level BPE from a text; the result is cached by text, `stop` and `vocab_size`.

    Args:
        corpus: The text.
        stop: Number of characters, from the start of the text, to learn from. If this is more than
            `MAX_TRAINING_CHARS`, only evenly spread pieces of these characters are used.
        vocab_size: Number of tokens, `<|endoftext|>` included; a short text may give fewer.

    Raises:
        ValueError: vocab_size is below 257 (256 bytes and `<|endoftext|>`), or above `MAX_VOCAB_SIZE`.
    """
    if not 257 <= vocab_size <= MAX_VOCAB_SIZE:
        raise ValueError(
            f"data.vocab_size must be at least 257 (256 bytes, {END_OF_TEXT}) and at most {MAX_VOCAB_SIZE}, "
            f"not {vocab_size}"
        )
    stop = min(stop, corpus.n_chars)
    path = cache_dir() / f"bpe-{FORMAT_VERSION}-{corpus.sha256[:32]}-{stop}-{vocab_size}.json"
    tokens = load_or_compute(path, lambda: _learn_tokens(corpus, stop, vocab_size - 1))
    return SubwordTokenizer.from_tokens(tokens)


def _learn_tokens(corpus: Corpus, stop: int, n_tokens: int) -> list[str]:
    """Return at most `n_tokens` tokens: the 256 bytes, then the merged tokens in merge order.

    Each token is given as its bytes, decoded as Latin-1.
    """
    import tokenizers  # not at the top: importing it is slow

    learner = tokenizers.Tokenizer(tokenizers.models.BPE())
    learner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    max_tokens = min(n_tokens, 256 + corpus.n_bytes)  # the trainer allocates memory for each
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=max_tokens, initial_alphabet=letters, show_progress=False
    )
    _run_interruptibly(lambda: learner.train_from_iterator(_learning_text(corpus, stop), trainer))
    corpus.check_unchanged()
    id_of = learner.get_vocab()
    return [token.translate(BYTE_OF_LETTER) for token in sorted(id_of, key=id_of.__getitem__)]


def _run_interruptibly(function: Callable[[], None]) -> None:
    """Call a function in a thread, so that Ctrl-C ends the program while the function runs native code."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.1)  # between two calls, Python handles signals
    if errors:
        raise errors[0]


def _learning_text(corpus: Corpus, stop: int) -> Iterator[list[str]]:
    """Yield the first `stop` characters of a text, as lists of pieces.

    If `stop` is above `MAX_TRAINING_CHARS`, only some of these lists, spread evenly over the characters, are
    yielded.
    """
    share = min(1.0, MAX_TRAINING_CHARS / max(1, stop))
    due = 0.0
    label = f"learning tokens from {Path(corpus.name).name}"
    with progress_bar(label, stop, " characters") as advance:
        for batch in batch_pieces(slice_chars(corpus.pieces(), 0, stop)):
            pieces = [piece for piece in batch if piece]
            n_chars = sum(map(len, pieces))
            due += n_chars * share
            if due >= n_chars:
                due -= n_chars
                yield [part for piece in pieces for part in LONG_WORD.findall(piece)]
            advance(n_chars)


def _byte_of_letter() -> dict[int, int]:
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: byte for byte in printable} | {256 + i: byte for i, byte in enumerate(others)}


# Table for `str.translate` from the letters of GPT-2's byte-level alphabet to bytes; the letters of
# unprintable bytes are the code points from U+0100 on.
BYTE_OF_LETTER = _byte_of_letter()


def tokenizer_from_dict(state: dict[str, Any]) -> Tokenizer:
    """Return the tokenizer that a checkpoint describes.

    Raises:
        ValueError: The dict is not from a tokenizer's `to_dict`.
    """
    match state:
        case {"kind": "char", "chars": str(chars)} if chars:
            return CharTokenizer(chars)
        case {"kind": "byte"}:
            return ByteTokenizer()
        case {"kind": "tiktoken", "name": str(name)}:
            return SubwordTokenizer.from_name(name)
        case {"kind": "bpe", "tokens": list(tokens)} if tokens:
            return SubwordTokenizer.from_tokens(tokens)
    raise ValueError(f"not a tokenizer: {str(state)[:80]}")
