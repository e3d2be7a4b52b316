"""Seconds until --help and --version answer, until the first training step, and until the end of char.yaml.

    python benchmarks/startup.py [--json FILE]

Each figure is the median of several processes, except the last, which is one run. Tiny Shakespeare is
downloaded if it is not in the cache.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import lightning
import torch

ROOT = Path(__file__).parent.parent
PROGRAM = [sys.executable, "-m", "lit_gpt_scratch"]


def seconds_of(*args: str) -> float:
    """Return the wall-clock seconds of a command."""
    started = time.perf_counter()
    subprocess.run([*PROGRAM, *args], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def seconds_to_first_step(run_dir: str) -> float:
    """Return the seconds from the command to the end of the first optimizer step of char.yaml."""
    config = ["--config", "configs/char.yaml", "--run_dir", run_dir]
    marker = "import time; from lightning.pytorch import Callback\n"
    marker += "class FirstStep(Callback):\n"
    marker += "    def on_train_batch_end(self, *_):\n"
    marker += "        print('first step', time.time(), flush=True); import os; os._exit(0)\n"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "first_step.py").write_text(marker)
        environment = {**os.environ, "PYTHONPATH": folder}
        command = [*PROGRAM, "fit", *config, "--trainer.callbacks", "first_step.FirstStep"]
        started = time.time()
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    ended = next(line for line in done.stdout.splitlines() if line.startswith("first step"))
    return float(ended.split()[-1]) - started


def main() -> None:
    """Print a table of all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, lightning "
    machine += f"{lightning.__version__}, Python {platform.python_version()}, {date.today()}"
    figures = {
        f"`{option}`": statistics.median(seconds_of(option) for _ in range(9))
        for option in ("--help", "--version")
    }
    with tempfile.TemporaryDirectory() as folder:
        waits = [seconds_to_first_step(f"{folder}/{i}") for i in range(5)]
        figures["command to first step of char.yaml"] = statistics.median(waits)
        whole = seconds_of("fit", "--config", "configs/char.yaml", "--run_dir", f"{folder}/whole")
        figures["all of char.yaml (one run)"] = whole
    print(f"{machine}\n\n| what | median seconds |\n|---|---|")
    for name, seconds in figures.items():
        print(f"| {name} | {seconds:.2f} |")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "seconds": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
