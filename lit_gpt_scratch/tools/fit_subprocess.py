"""Run `fit` as a separate process, for commands that train."""

import subprocess
import sys


def start_fit(arguments: list[str]) -> subprocess.Popen[str]:
    """Start `fit` in a separate process."""
    return subprocess.Popen(
        [sys.executable, "-m", "lit_gpt_scratch", "fit", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )


def finish_fit(process: subprocess.Popen[str]) -> None:
    """Wait for `fit` to end; kill the process if an exception interrupts the wait.

    Raises:
        ValueError: The input of `fit` is invalid.
        RuntimeError: `fit` failed.
        KeyboardInterrupt: Ctrl-C stopped `fit`.
    """
    try:
        _, errors = process.communicate()
    finally:
        process.kill()  # does nothing to a process that has ended
    if process.returncode == 130:
        raise KeyboardInterrupt
    if process.returncode:
        last_line = (errors.strip().splitlines() or ["no reason given"])[-1].removeprefix("error: ")
        raise ValueError(last_line) if process.returncode == 2 else RuntimeError(last_line)


def run_fit(arguments: list[str]) -> None:
    """Run `fit` in a separate process until it ends; raise the exceptions of `finish_fit`."""
    finish_fit(start_fit(arguments))
