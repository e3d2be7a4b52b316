"""Write files atomically."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary binary file for writing; the file replaces `path` when the ``with`` block ends.

    The temporary file is in the same folder as `path`. At the end of the block, the file is synced to disk
    and renamed. If the block fails or the process is killed, `path` is unchanged. The next write overwrites a
    temporary file that a killed process has left. Only one process at a time may write to the same path.

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
