"""Where text comes from: named corpora, files, folders, glob patterns and URLs."""

import atexit
import glob
import hashlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from lit_gpt_scratch.data.cache import FORMAT, alone, cache_dir, file_sha256, keep, kept_or_made
from lit_gpt_scratch.data.progress_bar import progress_bar
from lit_gpt_scratch.data.readers import FORMATS, Piece, between_documents, file_format, read_pieces

log = logging.getLogger(__name__)

SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
DOWNLOAD_TIMEOUT_SECONDS = 10
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


class DownloadError(OSError):
    """The network, or what it brought, is not as it should be."""


@dataclass(frozen=True)
class Census:
    """What is counted in a text: its characters, its UTF-8 bytes, and which characters there are, sorted."""

    n_chars: int
    n_bytes: int
    chars: str


@dataclass(frozen=True)
class Corpus:
    """A text, read as a stream, and what identifies it.

    Args:
        name: What it is called; where it is a file or a folder, its whole path.
        sources: Files, and texts that are at hand.
    """

    name: str
    sources: tuple[Path | str, ...]

    def pieces(self) -> Iterator[Piece]:
        """The text in pieces, with None between two documents.

        Raises:
            ValueError: A file cannot be read, or is no text.
        """
        return between_documents(self._all_pieces())

    def _all_pieces(self) -> Iterator[Piece]:
        for source in self.sources:
            yield from read_pieces(source) if isinstance(source, Path) else (source, None)

    @cached_property
    def sha256(self) -> str:
        """Hex digest of a single plain text's bytes; of several or others, of all their digests and formats.

        Raises:
            ValueError: A file cannot be read.
        """
        try:
            self._stamps  # noqa: B018  # from here on the files must stay as they are
            digests = [_digest(source) for source in self.sources]
        except OSError as error:
            raise ValueError(f"cannot read {error.filename}: {error.strerror}") from error
        alone = len(digests) == 1 and "." not in digests[0]
        return digests[0] if alone else hashlib.sha256(" ".join(digests).encode()).hexdigest()

    @cached_property
    def _stamps(self) -> list[tuple[int, int]]:
        return self._look()

    def _look(self) -> list[tuple[int, int]]:
        stats = [source.stat() for source in self.sources if isinstance(source, Path)]
        return [(stat.st_size, stat.st_mtime_ns) for stat in stats]

    def check_unchanged(self) -> None:
        """Make sure that what was read is what `sha256` is of.

        Raises:
            ValueError: A file changed since.
        """
        try:
            is_same = self._look() == self._stamps
        except OSError:  # it is gone
            is_same = False
        if not is_same:
            raise ValueError(f"{self.name} was changed while it was read: start again")

    @cached_property
    def census(self) -> Census:
        """Its counts, taken in one pass and kept in the cache by content.

        Raises:
            ValueError: A file cannot be read, or is no text.
        """
        return Census(**kept_or_made(cache_dir() / f"census-{FORMAT}-{self.sha256[:32]}.json", self._count))

    def _count(self) -> dict[str, int | str]:
        n_chars = n_bytes = 0
        seen = np.zeros(N_CODE_POINTS, dtype=bool)
        with progress_bar(f"reading {Path(self.name).name}", self._size(), "B") as advance:
            for piece in self.pieces():
                if piece is None:
                    seen[ord("\n")] = True  # what stands between documents, for those who read characters
                    continue
                raw = piece.encode()
                n_chars += len(piece)
                n_bytes += len(raw)
                # What is left without the ASCII characters that were seen before: as a rule, very little.
                rest = raw.translate(None, bytes(np.flatnonzero(seen[:128]).tolist())).decode()
                seen[np.frombuffer(rest.encode("utf-32-le"), dtype=np.uint32)] = True
                advance(len(raw))
        self.check_unchanged()
        return {"n_chars": n_chars, "n_bytes": n_bytes, "chars": "".join(map(chr, np.flatnonzero(seen)))}

    def _size(self) -> int | None:
        """Bytes of the text, if they are those of the sources as they lie there."""
        if any(isinstance(s, Path) and s.suffix in (".gz", ".jsonl", ".parquet") for s in self.sources):
            return None
        return sum(s.stat().st_size if isinstance(s, Path) else len(s) for s in self.sources)

    def fingerprint(self) -> dict[str, str | int]:
        """What a checkpoint remembers of the text: name, characters, bytes, sha256."""
        counts = self.census
        return {
            "name": self.name,
            "n_chars": counts.n_chars,
            "n_bytes": counts.n_bytes,
            "sha256": self.sha256,
        }


def _digest(source: Path | str) -> str:
    """A source's sha256, and the suffixes of its name where it isn't plain text."""
    if isinstance(source, str):
        return hashlib.sha256(source.encode()).hexdigest()
    plain = source.suffix.lower() != ".gz" and file_format(source) in (None, ".txt", ".md")
    return file_sha256(source) + ("" if plain else "".join(source.suffixes).lower())


def load_corpus(source: str, offline_corpus: str | None = None) -> Corpus:
    """Read a text.

    Args:
        source: A name (`shakespeare`, `python_docs`, `hamlet`), a file, a folder (its .txt, .md, .jsonl and
            .parquet files, in order of path), a glob pattern, or a URL.
        offline_corpus: The named corpus that stands in when a download fails; None makes that an error.

    Raises:
        ValueError: There is no such text, it is not readable as UTF-8 text, it is empty, or its download
            failed and nothing may stand in.
    """
    try:
        corpus = _read(source)
    except DownloadError as error:
        if offline_corpus is None:
            raise ValueError(
                f"cannot download {source}: {error}; name a file, or for data.corpus a data.offline_corpus"
            ) from error
        if offline_corpus not in NAMED:
            known = ", ".join(NAMED)
            raise ValueError(f"data.offline_corpus {offline_corpus!r} is none of {known}") from error
        log.warning(
            "CANNOT DOWNLOAD %s (%s): TRAINING ON THE EMBEDDED %s INSTEAD", source, error, offline_corpus
        )
        return load_corpus(offline_corpus)
    if not corpus.census.n_chars:
        raise ValueError(f"{source} is empty")
    return corpus


def _read(source: str) -> Corpus:
    if source in NAMED:
        return Corpus(source, (NAMED[source](),))
    if re.match(r"[a-z][a-z0-9+.-]+://", source):
        return Corpus(source, (_downloaded_file(source),))
    path = Path(source).expanduser()
    if path.is_dir():
        files = sorted(
            file for file in path.rglob("*") if _is_text(file.relative_to(path)) and file.is_file()
        )
        if not files:
            raise ValueError(f"no {', '.join(FORMATS)} or .gz file in the folder {source}")
    elif path.is_file():
        files = [path]
    else:
        files = sorted(Path(match) for match in glob.glob(str(path), recursive=True) if os.path.isfile(match))
        if not files:
            raise ValueError(f"no such text: {source!r} is no file, no folder and none of {', '.join(NAMED)}")
    return Corpus(str(path.resolve()), tuple(files))


def _is_text(path: Path) -> bool:
    """Whether a folder's file is text by its name, and neither it nor a folder on its way is hidden."""
    return file_format(path) is not None and not any(part.startswith(".") for part in path.parts)


def _downloaded_file(url: str) -> Path:
    """A file with what is at a URL, and its name there; it is gone with the process."""
    folder = Path(tempfile.mkdtemp(prefix="lit_gpt_scratch-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / (Path(urlsplit(url).path).name or "text")
    _download(url, path)
    return path


def _download(url: str, path: Path) -> None:
    import fsspec  # not at the top: a local text needs no network client

    options = {}
    if url.startswith(("http://", "https://")):
        import aiohttp

        timeout = aiohttp.ClientTimeout(
            sock_connect=DOWNLOAD_TIMEOUT_SECONDS, sock_read=DOWNLOAD_TIMEOUT_SECONDS
        )
        options = {"client_kwargs": {"timeout": timeout, "trust_env": True}}
    try:
        filesystem, remote = fsspec.core.url_to_fs(url, **options)
        filesystem.get_file(remote, str(path))
    except FileNotFoundError as error:  # the host answered: a wrong address is no network trouble
        raise ValueError(f"there is nothing at {url}") from error
    except (ValueError, ImportError) as error:  # an unknown protocol, or one whose package is missing
        raise ValueError(f"cannot open {url}: {error}") from error
    except Exception as error:  # each protocol's client has its own family of errors
        if hasattr(error, "status"):  # so did a host that refused
            raise ValueError(f"cannot open {url}: its host answers {error.status}") from error
        raise DownloadError(f"{type(error).__name__}: {error}".split("\n")[0].rstrip(": ")) from error


def _shakespeare() -> str:
    """Tiny Shakespeare, downloaded once; its checksum is looked at on every read."""
    path = cache_dir() / "shakespeare.txt"
    if path.is_file() and _is_shakespeare(path.read_bytes()):
        return path.read_text(encoding="utf-8")
    raw = _downloaded_file(SHAKESPEARE_URL).read_bytes()
    if not _is_shakespeare(raw):
        raise DownloadError("the download's checksum is wrong")
    with alone(path):
        keep(raw, path)
    return raw.decode()


def _is_shakespeare(raw: bytes) -> bool:
    return hashlib.sha256(raw).hexdigest() == SHAKESPEARE_SHA256


def _python_docs() -> str:
    """Python's own language reference, which comes with every Python's standard library.

    Rows and rules of tables, and underlines of headings, are left out: they are drawing, not prose.
    """
    from pydoc_data.topics import topics

    text = "\n\n".join(topics[name] for name in sorted(topics))
    prose = [line for line in text.split("\n") if re.match(r"\s*$|\s*[^|+\s].*\w", line)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(prose))


NAMED: dict[str, Callable[[], str]] = {
    "shakespeare": _shakespeare,
    "python_docs": _python_docs,
    "hamlet": lambda: HAMLET,
}
