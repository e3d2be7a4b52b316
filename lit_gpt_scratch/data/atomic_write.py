"""Write files atomically."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file that replaces `path` once it is complete and on the disk.

    It is written beside `path`, synced and renamed: an error or a kill leaves the old file. The next write
    replaces what a kill leaves beside it. One process at a time may write a path.

    Raises:
        OSError: The file cannot be written; the old one stays.
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        with beside.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
