"""The cache folder: downloads, token files, statistics of texts and learned vocabularies."""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock
from platformdirs import user_cache_path

from lit_gpt_scratch.data.atomic_write import atomic_write

log = logging.getLogger(__name__)

FORMAT_VERSION = 2  # part of the names of cached files; incremented when the same text gives other contents


def cache_dir() -> Path:
    """Return the folder named by the environment variable `LIT_GPT_CACHE`, by default a user cache folder."""
    if chosen := os.environ.get("LIT_GPT_CACHE"):
        return Path(chosen).expanduser()
    with suppress(RuntimeError):
        path = user_cache_path("lit_gpt_scratch", appauthor=False)
        if path.is_absolute():
            return path
    # There is no home folder, as in some containers; older versions of platformdirs return a relative path.
    return Path(tempfile.gettempdir()) / f"lit_gpt_scratch-{os.getuid()}"


def write_cached(raw: bytes, path: Path) -> None:
    """Write a file of the cache atomically; warn if the cache cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(raw)
    except OSError as error:
        log.warning("cannot cache %s (%s): the next run computes it again", path, error.strerror)


def write_json(content: Any, path: Path) -> None:
    """Write a JSON-serializable object to the cache, with a checksum."""
    write_cached(json.dumps({"sha256": _checksum(content), "content": content}).encode(), path)


def read_json(path: Path) -> Any | None:
    """Return the object that `write_json` wrote; None if the file is missing or damaged.

    A damaged file causes a warning and is deleted.
    """
    try:
        cached = json.loads(path.read_bytes())
        if cached["sha256"] == _checksum(cached["content"]):
            return cached["content"]
    except OSError:
        return None
    except (ValueError, TypeError, KeyError):
        pass
    log.warning("%s is damaged and is computed again", path)
    with suppress(OSError):
        path.unlink()
    return None


def load_or_compute(path: Path, compute: Callable[[], Any]) -> Any:
    """Return the JSON object cached at `path`; if no object is cached, compute and cache it.

    One process at a time computes the object; other processes wait for its result.
    """
    content = read_json(path)
    if content is None:
        with file_lock(path):
            content = read_json(path)
            if content is None:
                content = compute()
                write_json(content, path)
    return content


@contextmanager
def file_lock(path: Path) -> Iterator[OSError | None]:
    """Hold the lock of a cache file in the ``with`` block; first wait while another process holds the lock.

    Yields:
        None if this process holds the lock; the OSError if the cache cannot be written, and therefore nothing
            is locked.
    """
    failure = None
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(path.with_name(f".{path.name}.lock")))
        except OSError as error:
            failure = error
        yield failure


def _checksum(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 hex digest of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
