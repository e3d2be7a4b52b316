"""Read text files of several formats as a stream: at most a block or a document is in memory."""

import bz2
import codecs
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

BLOCK_BYTES = 2**20
FORMATS = (".txt", ".md", ".jsonl", ".parquet")  # all but .parquet may be compressed, as in .txt.gz
JSON_LINES = {".ndjson", ".jsonlines", ".json"}  # other suffixes of .jsonl
FOREIGN_TEXTS = {  # first characters of files that are text, but not the text that was meant
    "<!doctype html": "an HTML page",
    "<html": "an HTML page",
    "version https://git-lfs": "a Git LFS pointer",
}
DECOMPRESS: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}

Piece = str | None  # part of a document; None separates documents


def file_format(path: Path) -> str | None:
    """Return the format that a file's name implies, as a suffix from `FORMATS`, or None if it implies none.

    A compressed file without a second suffix, such as enwik9.gz, has the format .txt.
    """
    suffixes = [".jsonl" if suffix.lower() in JSON_LINES else suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in DECOMPRESS:
        inner = suffixes[-2] if len(suffixes) > 1 else ".txt"
        return inner if inner in FORMATS[:-1] else None
    return suffixes[-1] if suffixes and suffixes[-1] in FORMATS else None


def is_plain(path: Path) -> bool:
    """Return whether a file is plain text: neither compressed nor .jsonl nor .parquet."""
    return path.suffix.lower() not in DECOMPRESS and file_format(path) in (None, ".txt", ".md")


def read_pieces(path: Path) -> Iterator[Piece]:
    """Yield a file's documents in pieces, with None after each document.

    A plain-text file is one document, as is each line of a .jsonl file and each row of a .parquet file. A
    file with any other suffix (notes.log) is read as plain text. Line endings are converted to Unix ones, and
    a byte-order mark is removed.

    Raises:
        ValueError: The file cannot be read, or does not have the format that its name implies.
    """
    try:
        if file_format(path) == ".parquet":
            yield from _read_parquet(path)
            return
        with DECOMPRESS.get(path.suffix.lower(), partial(open, mode="rb"))(path) as stream:
            read = _read_jsonl if file_format(path) == ".jsonl" else _read_text
            yield from read(stream, str(path))
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _read_text(stream: BinaryIO, name: str) -> Iterator[Piece]:
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8-sig")(), translate=True)
    n_bytes = 0
    while True:
        block = stream.read(BLOCK_BYTES)
        if n_bytes == 0 and block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise ValueError(f"{name} is UTF-16, not UTF-8; convert it: iconv -f utf-16 -t utf-8 IN > OUT")
        if (zero := block.find(b"\0")) >= 0:
            raise ValueError(f"{name} is a binary file, not text (it has a zero byte at {n_bytes + zero})")
        try:
            piece = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            n_carried_over = len(error.object) - len(block)  # start of a character, in the previous block
            raise ValueError(
                f"{name} is not UTF-8 text (byte {n_bytes + error.start - n_carried_over}); convert it: "
                f"iconv -f {_likely_encoding(block)} -t utf-8 IN > OUT"
            ) from None
        if n_bytes == 0:
            for start, kind in FOREIGN_TEXTS.items():
                if piece[:1000].lstrip().lower().startswith(start):
                    raise ValueError(f"{name} is {kind}, not a plain text")
        if piece:
            yield piece
        if not block:
            yield None
            return
        n_bytes += len(block)


def _likely_encoding(block: bytes) -> str:
    """Return "cp1252" if a block of bytes is probably in this encoding, otherwise the placeholder "ENCODING".

    The encoding is probable if the block is valid cp1252 and has a byte from 0x80 to 0x9F; in Latin-1, these
    bytes are not printable characters.
    """
    try:
        block.decode("cp1252")
    except UnicodeDecodeError:
        return "ENCODING"
    return "cp1252" if any(0x80 <= byte <= 0x9F for byte in block) else "ENCODING"


def _read_jsonl(stream: BinaryIO, name: str) -> Iterator[Piece]:
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)["text"]
            text.encode()  # fails for an unpaired surrogate, which JSON allows
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ValueError(f'{name}: line {number} is not a JSON object with a text under "text"') from None
        yield unix_line_ends(text)
        yield None


def _read_parquet(path: Path) -> Iterator[Piece]:
    try:
        from pyarrow import ArrowInvalid
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise ValueError(f"{path} needs pyarrow: pip install pyarrow") from None
    try:
        with ParquetFile(path) as table:
            names = table.schema_arrow.names
            kind = str(table.schema_arrow.field("text").type) if names.count("text") == 1 else ""
            if not re.match(r"(large_)?string(_view)?$|dictionary<values=(large_)?string,", kind):
                raise ValueError(
                    f"{path} needs one string column named text; its columns: {', '.join(names)}"
                )
            for batch in table.iter_batches(batch_size=256, columns=["text"]):
                for text in batch.column(0).to_pylist():
                    yield unix_line_ends(text or "")
                    yield None
    except (ArrowInvalid, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a parquet file, or damaged: {error}") from error


def unix_line_ends(text: str) -> str:
    """Return a text with its Windows (CR LF) and old Mac (CR) line endings replaced by Unix ones (LF)."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def join_documents(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Yield the pieces with None only between two documents; empty documents are left out."""
    has_begun = has_ended = False
    for piece in pieces:
        if piece is None:
            has_ended = has_begun
        elif piece:
            if has_ended:
                yield None
            has_begun, has_ended = True, False
            yield piece


def slice_chars(pieces: Iterator[Piece], start: int, stop: int) -> Iterator[Piece]:
    """Yield the pieces of a stream from character `start` up to, but not including, character `stop`.

    None between two documents is yielded, too, but does not count as a character.
    """
    position = 0
    for piece in pieces:
        if position >= stop:
            return
        if piece is None:
            if position > start:
                yield None
            continue
        if position + len(piece) > start:
            yield piece[max(0, start - position) : stop - position]
        position += len(piece)
