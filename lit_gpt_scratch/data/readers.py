"""Text files of several formats as a stream of pieces: never more than a block or a document in memory."""

import codecs
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

BLOCK_BYTES = 2**20
FORMATS = (".txt", ".md", ".jsonl", ".parquet")  # each but the last may be packed, as in .txt.gz

Piece = str | None  # a stretch of text; None stands between two documents


def file_format(path: Path) -> str | None:
    """What a file's name promises, one of `FORMATS`; None for a name that promises no text.

    A packed file without a second suffix, such as enwik9.gz, is taken for plain text.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        inner = suffixes[-2] if len(suffixes) > 1 else ".txt"
        return inner if inner in FORMATS[:-1] else None
    return suffixes[-1] if suffixes and suffixes[-1] in FORMATS else None


def read_pieces(path: Path) -> Iterator[Piece]:
    """A file's documents, with None after each: a text is one, a line of .jsonl or row of .parquet another.

    A name that promises nothing (notes.log) is read as plain text. Line ends become Unix ones, and a
    byte-order mark is left out.

    Raises:
        ValueError: The file cannot be read, or is not what its name promises.
    """
    try:
        if file_format(path) == ".parquet":
            yield from _read_parquet(path)
            return
        packed = path.suffix.lower() == ".gz"
        with cast(BinaryIO, gzip.open(path)) if packed else path.open("rb") as stream:
            read = _read_jsonl if file_format(path) == ".jsonl" else _read_text
            yield from read(stream, str(path))
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _read_text(stream: BinaryIO, name: str) -> Iterator[Piece]:
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8-sig")(), translate=True)
    n_bytes = 0
    while True:
        block = stream.read(BLOCK_BYTES)
        if (zero := block.find(b"\0")) >= 0:
            raise ValueError(f"{name} is a binary file, not text (it has a zero byte at {n_bytes + zero})")
        try:
            piece = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            kept_back = len(error.object) - len(block)  # bytes of a character that the last block began
            raise ValueError(
                f"{name} is not UTF-8 text (byte {n_bytes + error.start - kept_back}); convert it, for "
                "example: iconv -f latin1 -t utf-8 IN > OUT"
            ) from None
        if piece:
            yield piece
        if not block:
            yield None
            return
        n_bytes += len(block)


def _read_jsonl(stream: BinaryIO, name: str) -> Iterator[Piece]:
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)["text"]
            text.encode()  # half of a surrogate pair, which JSON can hold, is no text
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ValueError(f'{name}: line {number} is no JSON object with a text under "text"') from None
        yield _unix_line_ends(text)
        yield None


def _read_parquet(path: Path) -> Iterator[Piece]:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise ValueError(f"{path} takes pyarrow to read: pip install pyarrow") from None
    try:
        with ParquetFile(path) as table:
            names = table.schema_arrow.names
            kind = str(table.schema_arrow.field("text").type) if "text" in names else None
            if kind not in ("string", "large_string"):
                raise _NoTexts(f"{path} has no column text of strings, but {', '.join(names)}")
            for batch in table.iter_batches(batch_size=256, columns=["text"]):
                for text in batch.column(0).to_pylist():
                    yield _unix_line_ends(text or "")
                    yield None
    except _NoTexts:
        raise
    except ValueError as error:  # pyarrow's ArrowInvalid, or bytes that are no UTF-8
        raise ValueError(f"{path} is no parquet file, or damaged: {error}") from error


class _NoTexts(ValueError):
    """A table without texts."""


def _unix_line_ends(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def between_documents(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """The same, with None between two documents only, and none of them empty."""
    begun = ended = False
    for piece in pieces:
        if piece is None:
            ended = begun
        elif piece:
            if ended:
                yield None
            begun, ended = True, False
            yield piece


def take(pieces: Iterator[Piece], start: int, stop: int) -> Iterator[Piece]:
    """The characters `start` to `stop` of a stream, counted without what stands between documents."""
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
