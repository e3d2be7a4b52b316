"""Token files: a text's tokens on disk, memory-mapped, made once for each content and tokenizer."""

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

from lit_gpt_scratch.atomic_write import atomic_write
from lit_gpt_scratch.data.cache import FORMAT, alone, cache_dir, file_sha256, keep_json, kept_json
from lit_gpt_scratch.data.corpus import Corpus
from lit_gpt_scratch.data.progress_bar import progress_bar
from lit_gpt_scratch.data.readers import Piece, take
from lit_gpt_scratch.data.tokenizer import TokenArray, Tokenizer, id_type

log = logging.getLogger(__name__)

BATCH_CHARS = 2**18  # what a thread tokenizes at once
UNCUT_CHARS = 2**19  # text without a place to cut is cut all the same: tiktoken fails at a million blanks
MAX_THREADS = 8  # each has a copy of the encoding, which takes up to 40 MB


@dataclass(frozen=True)
class Tokens:
    """Token ids, (n_tokens,), memory-mapped, and the UTF-8 bytes that they stand for."""

    ids: TokenArray
    n_bytes: int

    def __len__(self) -> int:
        return len(self.ids)


def load_tokens(corpus: Corpus, start: int, stop: int, tokenizer: Tokenizer) -> Tokens:
    """The tokens of a text's characters `start` to `stop`, from the cache where it has them.

    A process that finds another one at the same work waits for its result. Where the cache cannot be
    written, the file is a temporary one.

    Raises:
        ValueError: The text has characters that the tokenizer lacks, or was changed while it was read.
        OSError: The disk is full; nothing half-written is left.
    """
    content = [corpus.sha256, start, stop, tokenizer.to_dict()]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    path = cache_dir() / f"tokens-{FORMAT}-{digest[:32]}"
    if (tokens := _open(path)) is not None:
        return tokens
    with alone(path) as failure:
        if failure is None:
            tokens = _open(path)
            return _make(path, corpus, start, stop, tokenizer) if tokens is None else tokens
    log.warning("cannot write to the cache %s (%s): the tokens are not kept", path.parent, failure.strerror)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as passing:
        return _make(Path(passing) / path.name, corpus, start, stop, tokenizer)


def _open(path: Path) -> Tokens | None:
    """A token file that is whole; None where there is none, or, with a notice, a damaged one."""
    facts = kept_json(path.with_suffix(".json"))
    if facts is None:
        return None
    ids_file = path.with_suffix(".bin")
    if not ids_file.is_file() or file_sha256(ids_file) != facts["sha256"]:
        log.warning("%s is damaged: it is made again", ids_file)
        with suppress(OSError):
            path.with_suffix(".json").unlink()
        return None
    return _map(ids_file, facts)


def _map(ids_file: Path, facts: dict[str, Any]) -> Tokens:
    dtype = np.dtype(facts["dtype"])
    ids = np.asarray(np.memmap(ids_file, dtype, mode="r")) if facts["n_bytes"] else np.empty(0, dtype)
    return Tokens(ids, facts["n_bytes"])


def _make(path: Path, corpus: Corpus, start: int, stop: int, tokenizer: Tokenizer) -> Tokens:
    """Write a token file. It counts once its .json, which comes last, is there."""
    ids_file = path.with_suffix(".bin")
    n_bytes_of = tokenizer.token_n_bytes
    n_bytes = 0
    digest = hashlib.sha256()
    label = f"tokenizing {Path(corpus.name).name}"
    share = (stop - start) / corpus.census.n_chars
    try:
        n_all_bytes = int(share * corpus.census.n_bytes)
        with atomic_write(ids_file) as stream, progress_bar(label, n_all_bytes, "B") as advance:
            for ids in tokenize(take(corpus.pieces(), start, stop), tokenizer):
                stream.write(ids.data)
                digest.update(ids.data)
                n_more_bytes = int(n_bytes_of[ids].sum())
                n_bytes += n_more_bytes
                advance(n_more_bytes)
            corpus.check_unchanged()
    except OSError as error:
        raise OSError(
            f"cannot write the tokens of {corpus.name} to {path.parent} ({error.strerror}); make room there, "
            "or name another folder by LIT_GPT_CACHE"
        ) from error
    dtype = np.dtype(id_type(tokenizer.vocab_size)).name
    facts = {"dtype": dtype, "n_bytes": n_bytes, "sha256": digest.hexdigest()}
    keep_json(facts, path.with_suffix(".json"))
    return _map(ids_file, facts)


def tokenize(pieces: Iterator[Piece], tokenizer: Tokenizer) -> Iterator[TokenArray]:
    """The tokens of a stream of text in several arrays, by all the cores, in order and in bounded memory.

    They are those of each document by itself, with `separator_ids` between two.
    """
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    n_threads = min(n_cores, MAX_THREADS)
    thread = threading.local()

    def get_ready() -> None:
        thread.tokenizer = tokenizer.copy()

    def encode(batch: list[Piece]) -> TokenArray:
        own = thread.tokenizer
        return np.concatenate([own.separator_ids if piece is None else own.encode(piece) for piece in batch])

    pending: deque[Future[TokenArray]] = deque()
    # Tiktoken works outside of Python's global lock.
    with ThreadPoolExecutor(n_threads, initializer=get_ready) as pool:
        for batch in batches(pieces):
            pending.append(pool.submit(encode, batch))
            if len(pending) > 2 * n_threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def batches(pieces: Iterator[Piece], n_chars: int = BATCH_CHARS) -> Iterator[list[Piece]]:
    """A stream of text in batches of about `n_chars`, documents cut only where no token reaches across."""
    batch: list[Piece] = []
    size, rest = 0, ""
    for piece in pieces:
        if piece is None:
            batch += [rest, None]
            size, rest = size + len(rest), ""
        else:
            stretches, rest = cut(rest + piece, n_chars)
            for stretch in stretches:
                batch.append(stretch)
                size += len(stretch)
                if size >= n_chars:
                    yield batch
                    batch, size = [], 0
        if size >= n_chars:
            yield batch
            batch, size = [], 0
    yield [*batch, rest]


def cut(text: str, n_chars: int) -> tuple[list[str], str]:
    """Stretches of at least about `n_chars` that end where no token reaches across, and the rest."""
    stretches, start = [], 0
    longest = max(n_chars, UNCUT_CHARS)
    while len(text) - start >= n_chars:
        ahead = text[start : start + longest]
        end = last_border(ahead) or (longest if len(ahead) == longest else 0)
        if not end:
            break
        stretches.append(ahead[:end])
        start += end
    return stretches, text[start:]


def last_border(text: str) -> int:
    """The last place between a letter and the white space after it; 0 where there is none.

    No token of GPT-2's or a later encoding reaches across it: their patterns end a word at white space,
    which belongs to what follows.
    """
    for start in (max(0, len(text) - 1000), 0):
        if borders := [match.end() for match in re.finditer(r"[^\W\d_](?=\s)", text[start:])]:
            return start + borders[-1]
    return 0
