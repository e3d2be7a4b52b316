"""Where text comes from: named corpora, files, folders, glob patterns and URLs."""

import glob
import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

log = logging.getLogger(__name__)

SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
DOWNLOAD_TIMEOUT_SECONDS = 10
TEXT_SUFFIXES = (".txt", ".md")

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
class Corpus:
    """A text and what identifies it."""

    name: str
    text: str

    @cached_property
    def n_bytes(self) -> int:
        """Length in UTF-8 bytes."""
        return len(self.text.encode())

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the UTF-8 bytes."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def fingerprint(self) -> dict[str, str | int]:
        """What a checkpoint remembers of the text: name, characters, bytes, sha256."""
        return {"name": self.name, "n_chars": len(self.text), "n_bytes": self.n_bytes, "sha256": self.sha256}


def load_corpus(source: str, offline_corpus: str | None = None) -> Corpus:
    """Read a text.

    Args:
        source: A name (`shakespeare`, `python_docs`, `hamlet`), a file, a folder (its .txt and .md files,
            in order of path), a glob pattern, or a URL.
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
                f"cannot download {source}: {error}; set data.offline_corpus or use a file"
            ) from error
        if offline_corpus not in NAMED:
            known = ", ".join(NAMED)
            raise ValueError(f"data.offline_corpus {offline_corpus!r} is none of {known}") from error
        log.warning(
            "CANNOT DOWNLOAD %s (%s): TRAINING ON THE EMBEDDED %s INSTEAD", source, error, offline_corpus
        )
        return load_corpus(offline_corpus)
    if not corpus.text:
        raise ValueError(f"{source} is empty")
    return corpus


def _read(source: str) -> Corpus:
    if source in NAMED:
        return Corpus(source, NAMED[source]())
    if re.match(r"[a-z][a-z0-9+.-]+://", source):
        return Corpus(source, _decode(_download(source), source))
    path = Path(source).expanduser()
    if path.is_dir():
        files = sorted(
            file for file in path.rglob("*") if _is_text(file.relative_to(path)) and file.is_file()
        )
        if not files:
            raise ValueError(f"no {' or '.join(TEXT_SUFFIXES)} file in the folder {source}")
    elif path.is_file():
        files = [path]
    else:
        files = sorted(Path(match) for match in glob.glob(str(path), recursive=True) if os.path.isfile(match))
        if not files:
            raise ValueError(f"no such text: {source!r} is no file, no folder and none of {', '.join(NAMED)}")
    return Corpus(str(path.resolve()), "\n\n".join(_read_file(file) for file in files))


def _is_text(path: Path) -> bool:
    """Whether a folder's file is text by its name, and neither it nor a folder on its way is hidden."""
    return path.suffix.lower() in TEXT_SUFFIXES and not any(part.startswith(".") for part in path.parts)


def _read_file(path: Path) -> str:
    try:
        return _decode(path.read_bytes(), str(path))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error


def _decode(raw: bytes, source: str) -> str:
    """UTF-8 text with Unix line ends; a byte-order mark is left out."""
    if b"\0" in raw:
        raise ValueError(f"{source} is a binary file, not text (it has a zero byte at {raw.index(bytes(1))})")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{source} is not UTF-8 text (byte {error.start}); convert it, for example: "
            "iconv -f latin1 -t utf-8 IN > OUT"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _download(url: str) -> bytes:
    import fsspec  # not at the top: a local text needs no network client

    options = {}
    if url.startswith(("http://", "https://")):
        import aiohttp

        timeout = aiohttp.ClientTimeout(
            sock_connect=DOWNLOAD_TIMEOUT_SECONDS, sock_read=DOWNLOAD_TIMEOUT_SECONDS
        )
        options = {"client_kwargs": {"timeout": timeout, "trust_env": True}}
    try:
        filesystem, path = fsspec.core.url_to_fs(url, **options)
        return filesystem.cat_file(path)
    except FileNotFoundError as error:  # the host answered: a wrong address is no network trouble
        raise ValueError(f"there is nothing at {url}") from error
    except (ValueError, ImportError) as error:  # an unknown protocol, or one whose package is missing
        raise ValueError(f"cannot open {url}: {error}") from error
    except Exception as error:  # each protocol's client has its own family of errors
        if hasattr(error, "status"):  # so did a host that refused
            raise ValueError(f"cannot open {url}: its host answers {error.status}") from error
        raise DownloadError(f"{type(error).__name__}: {error}".split("\n")[0].rstrip(": ")) from error


def cache_dir() -> Path:
    """Where downloads are kept: `LIT_GPT_CACHE`, else a folder of the user's cache directory."""
    if chosen := os.environ.get("LIT_GPT_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lit_gpt_scratch"


def _shakespeare() -> str:
    """Tiny Shakespeare, downloaded once; its checksum is looked at on every read."""
    path = cache_dir() / "shakespeare.txt"
    if path.is_file() and _is_shakespeare(path.read_bytes()):
        return path.read_text(encoding="utf-8")
    raw = _download(SHAKESPEARE_URL)
    if not _is_shakespeare(raw):
        raise DownloadError("the download's checksum is wrong")
    keep(raw, path)
    return raw.decode()


def keep(raw: bytes, path: Path) -> None:
    """Write a file of the cache, whole or not at all; a cache that cannot be written is no error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as stream:
            stream.write(raw)
        os.replace(stream.name, path)
    except OSError as error:
        log.warning("cannot keep %s (%s): it will be made again", path, error.strerror)


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
