"""Command lines run as separate processes, and options that many of them share."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TINY = ["--config", str(ROOT / "tests" / "tiny.yaml")]
LOG_EVERY_STEP = ["--trainer.log_every_n_steps", "1"]
ONE_DEVICE = ["--trainer.devices", "1", "--trainer.strategy", "auto"]
# Set by a run for the processes of its other devices.
DISTRIBUTED_VARIABLES = {"MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE"}


@dataclass
class Result:
    """Exit code and output of a command line."""

    code: int
    out: str
    err: str


Run = Callable[..., Result]


def two_devices(strategy: str) -> list[str]:
    """Return the options of a run of two processes on the CPU."""
    return ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", strategy]


def environment() -> dict[str, str]:
    """Return the environment variables of a separate process."""
    return {name: value for name, value in os.environ.items() if name not in DISTRIBUTED_VARIABLES}


def command(*args: object, code: str | None = None) -> list[str]:
    """Return the command of a process that runs `lit_gpt_scratch`, or Python code, with arguments."""
    start = ["-m", "lit_gpt_scratch"] if code is None else ["-c", code]
    return [sys.executable, *start, *map(str, args)]


def run_process(*args: object, code: str | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `command(*args, code=code)` and return its output as text."""
    defaults = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment(), "timeout": 300}
    return subprocess.run(command(*args, code=code), text=True, **(defaults | options))


def start_process(*args: object, code: str | None = None, **options: Any) -> subprocess.Popen[str]:
    """Start `command(*args, code=code)`, whose output is text."""
    defaults = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment()}
    return subprocess.Popen(command(*args, code=code), text=True, **(defaults | options))


def run_with_file_size_limit(n_bytes: int, folder: Path, *args: object) -> subprocess.CompletedProcess[str]:
    """Run a command line that cannot write more than `n_bytes` to a file, as on a full disk."""
    import resource  # not on Windows

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))

    return run_process(*args, cwd=folder, preexec_fn=limit)
