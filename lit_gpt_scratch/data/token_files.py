"""Token files: tokenize a text into memory-mapped files, keyed by content and tokenizer."""

import hashlib
import json
import logging
import os
import re
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lit_gpt_scratch.data.atomic_write import atomic_write
from lit_gpt_scratch.data.cache import (
    FORMAT_VERSION,
    cache_dir,
    file_lock,
    file_sha256,
    read_json,
    write_json,
)
from lit_gpt_scratch.data.corpus import Corpus
from lit_gpt_scratch.data.progress_bar import progress_bar
from lit_gpt_scratch.data.readers import Piece, slice_chars
from lit_gpt_scratch.data.tokenizers import TokenArray, Tokenizer, id_type

log = logging.getLogger(__name__)

BATCH_CHARS = 2**18  # characters that a thread tokenizes at once
MAX_UNCUT_CHARS = 2**19  # longer text without a word boundary is cut anywhere; tiktoken fails on 10**6 spaces
MAX_THREADS = 8  # each has a copy of the encoding, which takes up to 40 MB


@dataclass(frozen=True)
class Tokens:
    """Tokens of a text, with a separator between consecutive documents.

    Args:
        ids: Token ids, separators included, (n_tokens,); memory-mapped if they come from a token file.
        n_bytes: Number of UTF-8 bytes of the documents, without the separators.
        n_separators: Number of separators; each separator consists of the tokens `Tokenizer.separator_ids`.
    """

    ids: TokenArray
    n_bytes: int
    n_separators: int = 0

    def __len__(self) -> int:
        return len(self.ids)


def load_tokens(corpus: Corpus, start: int, stop: int, tokenizer: Tokenizer) -> Tokens:
    """Return the tokens of characters `start` to `stop` (exclusive) of a text, from the cache if it has them.

    Otherwise, one process tokenizes the text, while other processes that need the tokens wait for it. If the
    cache cannot be written, the tokens are written to a temporary file, and a warning is logged.

    Raises:
        ValueError: The text has characters that the tokenizer lacks, or was changed while it was read.
        OSError: The disk is full; no partial file is left.
    """
    content = [corpus.sha256, start, stop, tokenizer.to_dict()]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    path = cache_dir() / f"tokens-{FORMAT_VERSION}-{digest[:32]}"
    if (tokens := _open(path)) is not None:
        return tokens
    with file_lock(path) as failure:
        if failure is None:
            tokens = _open(path)
            return _write(path, corpus, start, stop, tokenizer) if tokens is None else tokens
    log.warning("cannot write to the cache %s (%s): the tokens are not kept", path.parent, failure.strerror)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return _write(Path(folder) / path.name, corpus, start, stop, tokenizer)


def _open(path: Path) -> Tokens | None:
    """Map a token file into memory; return None if it is missing or, with a warning, if it is damaged."""
    header = read_json(path.with_suffix(".json"))
    if header is None:
        return None
    ids_file = path.with_suffix(".bin")
    if not ids_file.is_file() or file_sha256(ids_file) != header["sha256"]:
        log.warning("%s is damaged and is computed again", ids_file)
        with suppress(OSError):
            path.with_suffix(".json").unlink()
        return None
    return _map(ids_file, header)


def _map(ids_file: Path, header: dict[str, Any]) -> Tokens:
    dtype = np.dtype(header["dtype"])
    ids = np.asarray(np.memmap(ids_file, dtype, mode="r")) if header["n_bytes"] else np.empty(0, dtype)
    return Tokens(ids, header["n_bytes"], header["n_separators"])


def _write(path: Path, corpus: Corpus, start: int, stop: int, tokenizer: Tokenizer) -> Tokens:
    """Tokenize characters `start` to `stop` of a text into a token file, and return its memory-mapped tokens.

    The token ids (.bin) are written first, then the header (.json), which marks the token file as complete.
    """
    ids_file = path.with_suffix(".bin")
    n_bytes_of = tokenizer.token_n_bytes
    n_bytes = n_separators = 0

    def documents() -> Iterator[Piece]:
        nonlocal n_separators
        for piece in slice_chars(corpus.pieces(), start, stop):
            n_separators += piece is None
            yield piece

    digest = hashlib.sha256()
    label = f"tokenizing {Path(corpus.name).name}"
    total_bytes = corpus.n_bytes * (stop - start) // corpus.n_chars  # estimate
    try:
        with atomic_write(ids_file) as stream, progress_bar(label, total_bytes, "B") as advance:
            for ids in tokenize(documents(), tokenizer):
                stream.write(ids.data)
                digest.update(ids.data)
                n_new_bytes = int(n_bytes_of[ids].sum())
                n_bytes += n_new_bytes
                advance(n_new_bytes)
            corpus.check_unchanged()
    except OSError as error:
        raise OSError(
            f"cannot write the tokens of {corpus.name} to {path.parent} ({error.strerror}); free space "
            "there, or set LIT_GPT_CACHE to another folder"
        ) from error
    dtype = np.dtype(id_type(tokenizer.vocab_size)).name
    if n_separators:
        n_bytes -= n_separators * tokenizer.separator_n_bytes
    header = {"dtype": dtype, "n_bytes": n_bytes, "n_separators": n_separators, "sha256": digest.hexdigest()}
    write_json(header, path.with_suffix(".json"))
    return _map(ids_file, header)


def tokenize(pieces: Iterator[Piece], tokenizer: Tokenizer) -> Iterator[TokenArray]:
    """Tokenize a stream of text in several threads and bounded memory; yield its tokens in order, as arrays.

    Each document is tokenized separately; the tokenizer's `separator_ids` are inserted between documents.
    """
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    n_threads = min(n_cores, MAX_THREADS)
    thread = threading.local()

    def copy_tokenizer() -> None:
        thread.tokenizer = tokenizer.copy()

    def encode(batch: list[Piece]) -> TokenArray:
        own = thread.tokenizer
        return np.concatenate([own.separator_ids if piece is None else own.encode(piece) for piece in batch])

    pending: deque[Future[TokenArray]] = deque()
    # Threads suffice: tiktoken releases the global interpreter lock.
    with ThreadPoolExecutor(n_threads, initializer=copy_tokenizer) as pool:
        for batch in batch_pieces(pieces):
            pending.append(pool.submit(encode, batch))
            if len(pending) > 2 * n_threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def batch_pieces(pieces: Iterator[Piece], n_chars: int = BATCH_CHARS) -> Iterator[list[Piece]]:
    """Yield the pieces of a stream of text in lists, each list with about `n_chars` characters in all.

    `split_at_words` splits the pieces; None separates documents, as in the stream.
    """
    batch: list[Piece] = []
    size, rest = 0, ""
    for piece in pieces:
        if piece is None:
            parts, rest = [rest, None], ""
        else:
            parts, rest = split_at_words(rest + piece, n_chars)
        for part in parts:
            batch.append(part)
            size += len(part or "")
            if size >= n_chars:
                yield batch
                batch, size = [], 0
    yield [*batch, rest]


def split_at_words(text: str, n_chars: int) -> tuple[list[Piece], str]:
    """Split a text at word boundaries, which no token crosses; return the parts and the remaining text.

    Each part ends at the last word boundary (`last_word_boundary`) among the next N characters, where N is
    the larger of `n_chars` and `MAX_UNCUT_CHARS`. If these have no word boundary, all N characters are one
    part. The remaining text has fewer than `n_chars` characters, or fewer than N if it has no word boundary.
    """
    parts: list[Piece] = []
    start = 0
    longest = max(n_chars, MAX_UNCUT_CHARS)
    while len(text) - start >= n_chars:
        ahead = text[start : start + longest]
        end = last_word_boundary(ahead) or (longest if len(ahead) == longest else 0)
        if not end:
            break
        parts.append(ahead[:end])
        start += end
    return parts, text[start:]


def last_word_boundary(text: str) -> int:
    """Return the last position between a letter and the white space after it; 0 if there is none.

    No token of GPT-2's encoding, or of tiktoken's later encodings, extends across this position. These
    encodings first split a text with a regular expression that ends a word before white space, so that the
    white space begins the next token.
    """
    match = re.match(r"(?s:.*)[^\W\d_](?=\s)", text)  # .* is greedy: the last boundary
    return match.end() if match else 0
