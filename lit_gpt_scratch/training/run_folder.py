"""A run's folder: taken by one run alone, never overwritten."""

import itertools
import os
from pathlib import Path


def claim_folder(wanted: Path) -> Path:
    """Make a folder of its own for a run: `wanted` if it is new or empty, else `wanted-2`, `wanted-3`, ...

    Raises:
        ValueError: The folder cannot be made.
    """
    numbered = (wanted.with_name(f"{wanted.name}-{number}") for number in itertools.count(2))
    for folder in itertools.chain([wanted], numbered):
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not folder.is_dir() or any(folder.iterdir()):
                continue
        except OSError as error:
            raise ValueError(f"cannot make the run folder {folder}: {error.strerror}") from error
        return folder
    raise AssertionError("there is always a next number")


def write_config(folder: Path, yaml: str) -> None:
    """Leave a run's settings in its folder as `config.yaml`, whole or not at all.

    Raises:
        ValueError: The folder cannot be written.
    """
    beside = folder / ".config.yaml"
    try:
        beside.write_text(yaml, encoding="utf-8")
        os.replace(beside, folder / "config.yaml")
    except OSError as error:
        raise ValueError(f"cannot write into the run folder {folder}: {error.strerror}") from error
