"""Run folders: create one for each run, and write into it."""

import itertools
import logging
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lit_gpt_scratch.data.atomic_write import atomic_write

log = logging.getLogger(__name__)

CONFIG = "config.yaml"


def create_run_folder(path: Path) -> Path:
    """Create the folder of a run: `path`, or the first of `path-2`, `path-3`, ... if `path` is in use.

    An existing empty folder is not in use. An empty `config.yaml`, which only one process can create,
    reserves the folder, so that runs that start at the same time do not share a folder.

    Raises:
        ValueError: The folder cannot be created or is not writable.
    """
    if not path.name:
        raise ValueError(f"run_dir must name a folder of its own, not {str(path)!r}")
    if sys.platform == "win32" and (wrong := set(path.name) & set('<>:"|?*')):
        raise ValueError(f"run_dir {str(path)!r}: Windows allows no {wrong.pop()} in the name of a folder")
    for number in itertools.count(1):
        folder = path if number == 1 else path.with_name(f"{path.name}-{number}")
        if folder.exists() and not folder.is_dir():
            continue
        make_folder(folder)
        try:
            if any(folder.iterdir()):
                continue
            (folder / CONFIG).touch(exist_ok=False)
        except FileExistsError:  # another run reserved it in between
            continue
        except OSError as error:
            raise ValueError(f"cannot write into the run folder {folder}: {error.strerror}") from error
        return folder
    raise AssertionError("itertools.count has no end")


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, unless they exist.

    Raises:
        ValueError: The folder cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        links = [path for path in (folder, *folder.parents) if path.is_symlink() and not path.exists()]
        reason = f"{links[0]} is a link to nothing" if links else error.strerror
        raise ValueError(f"cannot make the folder {folder}: {reason}") from error


def shell_path(path: Path | str) -> str:
    """Return a path as an argument of a shell command: quoted if necessary, and never parsed as an option."""
    text = f".{os.sep}{path}" if str(path).startswith("-") else str(path)
    return subprocess.list2cmdline([text]) if sys.platform == "win32" else shlex.quote(text)


def write_config(folder: Path, yaml: str) -> None:
    """Write a run's options to its `config.yaml`, atomically.

    Raises:
        ValueError: The folder is not writable.
    """
    try:
        with atomic_write(folder / CONFIG) as file:
            file.write(yaml.encode())
    except OSError as error:
        raise ValueError(f"cannot write into the run folder {folder}: {error.strerror}") from error


@contextmanager
def warn_on_os_error(name: str) -> Iterator[None]:
    """Log an OSError in the `with` block as a warning that the file `name` could not be written.

    For files that a resumed run does not need.
    """
    try:
        yield
    except OSError as error:
        log.warning("%s could not be written: %s; the run continues", name, error.strerror or error)
