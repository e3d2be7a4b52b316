"""The folder of things that can be made again: downloads, token files, what was learnt from a text."""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock
from platformdirs import user_cache_path

from lit_gpt_scratch.atomic_write import atomic_write

log = logging.getLogger(__name__)

FORMAT = 1  # part of each made file's name: to be raised when the same text would give another one


def cache_dir() -> Path:
    """Return `LIT_GPT_CACHE`, else the system's folder for a user's caches."""
    if chosen := os.environ.get("LIT_GPT_CACHE"):
        return Path(chosen).expanduser()
    with suppress(RuntimeError):
        path = user_cache_path("lit_gpt_scratch", appauthor=False)
        if path.is_absolute():
            return path
    # No home folder, as in some containers, for which older versions of platformdirs give a relative path.
    return Path(tempfile.gettempdir()) / f"lit_gpt_scratch-{os.getuid()}"


def keep(raw: bytes, path: Path) -> None:
    """Write a file of the cache, whole or not at all; a cache that cannot be written is no error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(raw)
    except OSError as error:
        log.warning("cannot keep %s (%s): it will be made again", path, error.strerror)


def keep_json(content: Any, path: Path) -> None:
    """Write builtins as JSON, with a checksum, whole or not at all."""
    keep(json.dumps({"sha256": _checksum(content), "content": content}).encode(), path)


def kept_json(path: Path) -> Any | None:
    """What `keep_json` wrote; None where there is nothing, or, with a notice, something damaged."""
    try:
        kept = json.loads(path.read_bytes())
        if kept["sha256"] == _checksum(kept["content"]):
            return kept["content"]
    except OSError:
        return None
    except (ValueError, TypeError, KeyError):
        pass
    log.warning("%s is damaged: it is made again", path)
    with suppress(OSError):
        path.unlink()
    return None


def kept_or_made(path: Path, make: Callable[[], Any]) -> Any:
    """Builtins from the cache, or made and kept there; a process that finds another one at it waits."""
    content = kept_json(path)
    if content is None:
        with alone(path):
            content = kept_json(path)
            if content is None:
                content = make()
                keep_json(content, path)
    return content


@contextmanager
def alone(path: Path) -> Iterator[OSError | None]:
    """Wait until no other process is at work on a file of the cache.

    Yields:
        None, or why the cache cannot be written: then nobody waits for anybody.
    """
    failure = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock")).acquire()
    except OSError as error:
        failure = error
    if failure is not None:
        yield failure
    else:
        with lock:
            yield None


def _checksum(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Hex digest of a file, read a block at a time."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()
