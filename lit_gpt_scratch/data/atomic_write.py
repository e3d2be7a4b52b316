"""Write files atomically."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file that replaces `path` once it is complete and synced to disk.

    The content is written to a temporary file in the same folder, which is then synced and renamed. An error
    or a kill leaves `path` unchanged. The next write overwrites a temporary file that a kill has left. Only
    one process at a time may write a path.

    Raises:
        OSError: The file cannot be written; `path` is unchanged.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
