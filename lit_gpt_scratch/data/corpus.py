"""Corpora: texts by name or from files, folders, glob patterns and URLs, with their statistics."""

import hashlib
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lit_gpt_scratch.data.cache import (
    FORMAT_VERSION,
    cache_dir,
    file_lock,
    file_sha256,
    load_or_compute,
    write_cached,
)
from lit_gpt_scratch.data.download import DownloadError, download
from lit_gpt_scratch.data.progress_bar import progress_bar
from lit_gpt_scratch.data.readers import Piece, is_plain, join_documents, read_pieces
from lit_gpt_scratch.data.text_files import find_text_files

log = logging.getLogger(__name__)

SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
N_CODE_POINTS = 0x110000

HAMLET = """\
To be, or not to be, that is the question:
Whether 'tis nobler in the mind to suffer
The slings and arrows of outrageous fortune,
Or to take arms against a sea of troubles
And by opposing end them. To die, to sleep,
No more; and by a sleep to say we end
The heart-ache and the thousand natural shocks
That flesh is heir to: 'tis a consummation
Devoutly to be wish'd. To die, to sleep;
To sleep, perchance to dream. Ay, there's the rub,
For in that sleep of death what dreams may come,
When we have shuffled off this mortal coil,
Must give us pause. There's the respect
That makes calamity of so long life.
"""


@dataclass(frozen=True)
class Corpus:
    """A text and its statistics; the text itself is read as a stream.

    Args:
        name: Name or URL of the corpus, or the absolute path of its file, folder or glob pattern.
        sources: Parts of the text in order: paths of files, or strings with the text itself.
        sha256: SHA-256 hex digest. For a single source that is plain text, the digest of its bytes; in other
            cases, a digest of the digests of all sources, in order, with the suffixes of files that are not
            plain text.
        n_chars: Number of characters.
        n_bytes: Number of bytes in UTF-8.
        alphabet: Distinct characters, sorted.
        file_stats: Size in bytes and modification time in ns of each file when it was hashed.
    """

    name: str
    sources: tuple[Path | str, ...]
    sha256: str
    n_chars: int
    n_bytes: int
    alphabet: str
    file_stats: list[tuple[int, int]]

    @classmethod
    def read(cls, name: str, sources: tuple[Path | str, ...]) -> "Corpus":
        """Return a corpus with its digest and statistics; the statistics are cached under the digest.

        Raises:
            ValueError: A file cannot be read, or is not text.
        """
        try:
            file_stats = _stat_files(sources)
            sha256 = _sha256(sources)
        except OSError as error:
            raise ValueError(f"cannot read {error.filename}: {error.strerror}") from error
        path = cache_dir() / f"statistics-{FORMAT_VERSION}-{sha256[:32]}.json"
        statistics = load_or_compute(path, lambda: _count(name, sources))
        corpus = cls(name, sources, sha256, file_stats=file_stats, **statistics)
        corpus.check_unchanged()
        return corpus

    def pieces(self) -> Iterator[Piece]:
        """Yield the text in pieces, with None between two documents.

        Raises:
            ValueError: A file cannot be read, or is not text.
        """
        return _read_sources(self.sources)

    def check_unchanged(self) -> None:
        """Check that no file has changed since it was hashed.

        Raises:
            ValueError: A file was changed or deleted.
        """
        try:
            is_unchanged = _stat_files(self.sources) == self.file_stats
        except OSError:  # a file was deleted
            is_unchanged = False
        if not is_unchanged:
            raise ValueError(f"{self.name} was changed while it was read: start again")

    def fingerprint(self) -> dict[str, str | int]:
        """Return the fields that a checkpoint stores: name, number of characters and bytes, and sha256."""
        return {
            "name": self.name,
            "n_chars": self.n_chars,
            "n_bytes": self.n_bytes,
            "sha256": self.sha256,
        }


def _stat_files(sources: tuple[Path | str, ...]) -> list[tuple[int, int]]:
    stats = [source.stat() for source in sources if isinstance(source, Path)]
    return [(stat.st_size, stat.st_mtime_ns) for stat in stats]


def _sha256(sources: tuple[Path | str, ...]) -> str:
    digests = [_source_digest(source) for source in sources]
    if len(digests) == 1 and "." not in digests[0]:
        return digests[0]
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


def _source_digest(source: Path | str) -> str:
    """Return a source's SHA-256 hex digest, followed by the suffixes of a file that is not plain text."""
    if isinstance(source, str):
        return hashlib.sha256(source.encode()).hexdigest()
    return file_sha256(source) + ("" if is_plain(source) else "".join(source.suffixes).lower())


def _read_sources(sources: tuple[Path | str, ...]) -> Iterator[Piece]:
    return join_documents(
        piece
        for source in sources
        for piece in (read_pieces(source) if isinstance(source, Path) else (source, None))
    )


def _count(name: str, sources: tuple[Path | str, ...]) -> dict[str, Any]:
    """Return the fields n_chars, n_bytes and alphabet of a corpus, computed in one pass over the text."""
    n_chars = n_bytes = 0
    seen = np.zeros(N_CODE_POINTS, dtype=bool)
    are_plain = all(isinstance(source, str) or is_plain(source) for source in sources)
    total = sum(len(s) if isinstance(s, str) else s.stat().st_size for s in sources) if are_plain else None
    with progress_bar(f"reading {Path(name).name}", total, "B") as advance:
        for piece in _read_sources(sources):
            if piece is None:
                seen[ord("\n")] = True  # character and byte tokenizers separate documents with it
                continue
            raw = piece.encode()
            n_chars += len(piece)
            n_bytes += len(raw)
            # ASCII characters that were seen before are dropped first: as a rule, very little is left.
            rest = raw.translate(None, bytes(np.flatnonzero(seen[:128]).tolist())).decode()
            seen[np.frombuffer(rest.encode("utf-32-le"), dtype=np.uint32)] = True
            advance(len(raw))
    return {"n_chars": n_chars, "n_bytes": n_bytes, "alphabet": "".join(map(chr, np.flatnonzero(seen)))}


def load_corpus(source: str, offline_corpus: str | None = None) -> Corpus:
    """Find a text, download it if necessary, and return it with its statistics.

    Args:
        source: A name (`shakespeare`, `python_docs`, `hamlet`), a file, a folder (its .txt, .md, .jsonl and
            .parquet files, in order of path), a glob pattern, or a URL.
        offline_corpus: Name of the embedded corpus (`python_docs` or `hamlet`) that replaces a named corpus
            whose download failed; None makes the failure an error.

    Raises:
        ValueError: The text does not exist, cannot be read as UTF-8 text or is empty, or its download failed
            and no offline_corpus replaces it.
    """
    try:
        name, sources = _find_sources(source)
    except DownloadError as error:
        if source not in NAMED_CORPORA:
            raise ValueError(f"cannot download {source}: {error}") from error
        if offline_corpus is None:
            raise ValueError(
                f"cannot download {source}: {error}; use a file or, for data.corpus, set data.offline_corpus"
            ) from error
        if offline_corpus not in NAMED_CORPORA:
            known = ", ".join(NAMED_CORPORA)
            raise ValueError(f"data.offline_corpus {offline_corpus!r} is none of {known}") from error
        log.warning(
            "CANNOT DOWNLOAD %s (%s): TRAINING ON THE EMBEDDED %s INSTEAD", source, error, offline_corpus
        )
        return load_corpus(offline_corpus)
    try:
        corpus = Corpus.read(name, sources)
    except ValueError as error:
        if "://" not in name:
            raise
        raise ValueError(str(error).replace(str(sources[0]), name)) from error  # not the temporary file
    if not corpus.n_chars:
        raise ValueError(f"{source} is empty")
    return corpus


def _find_sources(source: str) -> tuple[str, tuple[Path | str, ...]]:
    """Return the fields `name` and `sources` of a corpus; download the text if necessary."""
    if source in NAMED_CORPORA:
        if Path(source).exists():
            log.warning("%s is the embedded text: for the file of this name, give ./%s", source, source)
        return source, (NAMED_CORPORA[source](),)
    if re.match(r"[a-z][a-z0-9+.-]+://", source):
        return source, (download(source),)
    name, files = find_text_files(source)
    if not files:
        raise ValueError(
            f"no such text: {source!r} is not a file, folder or one of {', '.join(NAMED_CORPORA)}"
        )
    return name, tuple(files)


def _shakespeare() -> Path:
    """Return the path of Tiny Shakespeare, downloaded once; its checksum is verified each time."""
    cached = cache_dir() / "shakespeare.txt"
    if cached.is_file() and file_sha256(cached) == SHAKESPEARE_SHA256:
        return cached
    downloaded = download(SHAKESPEARE_URL)
    if file_sha256(downloaded) != SHAKESPEARE_SHA256:
        raise DownloadError("the download's checksum is wrong")
    with file_lock(cached):
        write_cached(downloaded.read_bytes(), cached)
    return downloaded


def _python_docs() -> str:
    """Return Python's language reference, which the standard library has in `pydoc_data.topics`.

    Table borders and underlines of headings are left out.
    """
    from pydoc_data.topics import topics

    text = "\n\n".join(topics[name] for name in sorted(topics))
    prose = [line for line in text.split("\n") if re.match(r"\s*$|\s*[^|+\s].*\w", line)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(prose))


NAMED_CORPORA: dict[str, Callable[[], Path | str]] = {
    "shakespeare": _shakespeare,
    "python_docs": _python_docs,
    "hamlet": lambda: HAMLET,
}
