"""A run's folder: taken by one run alone, never overwritten."""

import itertools
import logging
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lit_gpt_scratch.atomic_write import atomic_write

log = logging.getLogger(__name__)

CONFIG = "config.yaml"
RUN_DIR_VARIABLE = "LIT_GPT_RUN_DIR"  # tells the processes of further devices which folder rank 0 took


def claim_folder(wanted: Path) -> Path:
    """Take a folder for a run: `wanted` if it is new or empty, else `wanted-2`, `wanted-3`, ...

    An empty `config.yaml`, which only one process can be the one to create, marks it as taken.

    Raises:
        ValueError: The folder cannot be made or written.
    """
    if not wanted.name:
        raise ValueError(f"run_dir must name a folder of its own, not {str(wanted)!r}")
    if sys.platform == "win32" and (wrong := set(wanted.name) & set('<>:"|?*')):
        raise ValueError(f"run_dir {str(wanted)!r}: Windows allows no {wrong.pop()} in the name of a folder")
    numbered = (wanted.with_name(f"{wanted.name}-{number}") for number in itertools.count(2))
    for folder in itertools.chain([wanted], numbered):
        if folder.exists() and not folder.is_dir():
            continue
        make_folder(folder)
        try:
            if any(folder.iterdir()):
                continue
            (folder / CONFIG).touch(exist_ok=False)
        except FileExistsError:  # another run was quicker
            continue
        except OSError as error:
            raise ValueError(f"cannot write into the run folder {folder}: {error.strerror}") from error
        return folder
    raise AssertionError("there is always a next number")


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, unless they are there.

    Raises:
        ValueError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        links = [path for path in (folder, *folder.parents) if path.is_symlink() and not path.exists()]
        reason = f"{links[0]} is a link to nothing" if links else error.strerror
        raise ValueError(f"cannot make the folder {folder}: {reason}") from error


def shell_path(path: Path | str) -> str:
    """Return a path as a command has it: quoted where the shell needs it, and not to be read as an option."""
    text = f".{os.sep}{path}" if str(path).startswith("-") else str(path)
    return subprocess.list2cmdline([text]) if sys.platform == "win32" else shlex.quote(text)


def give_up_folder(folder: Path) -> None:
    """Remove the folder of a run that never took a step."""
    shutil.rmtree(folder, ignore_errors=True)


def write_config(folder: Path, yaml: str) -> None:
    """Leave a run's settings in its folder as `config.yaml`, whole or not at all.

    Raises:
        ValueError: The folder cannot be written.
    """
    try:
        with atomic_write(folder / CONFIG) as file:
            file.write(yaml.encode())
    except OSError as error:
        raise ValueError(f"cannot write into the run folder {folder}: {error.strerror}") from error


@contextmanager
def warn_on_os_error(name: str) -> Iterator[None]:
    """Let a run go on without a file that cannot be written and is not needed to resume it."""
    try:
        yield
    except OSError as error:
        log.warning("%s could not be written: %s; the run goes on without", name, error.strerror or error)
