"""`fit` as a process of its own, for tools that train."""

import os
import subprocess
import sys

from lit_gpt_scratch.training.run_folder import RUN_DIR_VARIABLE

FIT = [sys.executable, "-m", "lit_gpt_scratch", "fit"]


def finish(arguments: list[str]) -> None:
    """Train to the end.

    Args:
        arguments: Those of `fit`.

    Raises:
        ValueError: It does not like its input.
        RuntimeError: It fails.
        KeyboardInterrupt: It was stopped by Ctrl-C.
    """
    done = subprocess.run(
        [*FIT, *arguments],
        env=fit_environment(),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    check(done.returncode, done.stderr)


def fit_environment() -> dict[str, str]:
    """Each run has a folder of its own."""
    return {name: value for name, value in os.environ.items() if name != RUN_DIR_VARIABLE}


def check(code: int, errors: str) -> None:
    """Raise what a process that has failed said last.

    Raises:
        ValueError: It did not like its input.
        RuntimeError: It failed.
        KeyboardInterrupt: It was stopped by Ctrl-C.
    """
    if code == 130:
        raise KeyboardInterrupt
    if code:
        last = errors.strip().splitlines()[-1:] or ["no reason given"]
        message = last[0].removeprefix("error: ")
        raise ValueError(message) if code == 2 else RuntimeError(message)
