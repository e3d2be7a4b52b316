"""Time of a training step of char.yaml's model, alone and beside a program that keeps one core busy.

    python benchmarks/busy_machine.py [--steps 200] [--rounds 5] [--json FILE]

OpenMP's threads spin for a while before they sleep, which delays a thread that waits for a core. In each
round, each setting of `THREAD_WAITING` is measured in a separate process. A figure is the median over all
rounds, without the first 15 steps of each.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from throughput import WARMUP, machine, our_steps, random_text

THREAD_WAITING: dict[str, dict[str, str]] = {
    "OpenMP's default": {"GOMP_SPINCOUNT": ""},
    "`GOMP_SPINCOUNT=1000`": {"GOMP_SPINCOUNT": "1000"},
    "`GOMP_SPINCOUNT=10000`": {"GOMP_SPINCOUNT": "10000"},
    "`OMP_WAIT_POLICY=PASSIVE`": {"OMP_WAIT_POLICY": "PASSIVE"},
}
CHAR = ["--model.arch", "modern", "--model.block_size", "128", "--data.batch_size", "8", "--compile", "false"]


def steps_in_a_process(variables: dict[str, str], n_steps: int) -> list[float]:
    """Return the seconds of each step of `fit` with these environment variables, without the first 15."""
    environment = {**os.environ, **variables}
    for name in [name for name, value in environment.items() if name in variables and not value]:
        del environment[name]
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "seconds.json"
        command = [sys.executable, __file__, "--steps", str(n_steps), "--one", str(figures)]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        seconds: list[float] = json.loads(figures.read_text())
    return seconds[WARMUP:]


def main() -> None:
    """Print a table of all settings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", type=Path, help="Measure one run in this process; write its seconds here.")
    arguments = parser.parse_args()
    if arguments.one:
        with tempfile.TemporaryDirectory() as folder:
            text = random_text(Path(folder))
            arguments.one.write_text(json.dumps(our_steps(text, arguments.steps, *CHAR)))
        return
    seconds: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in THREAD_WAITING}
    for _ in range(arguments.rounds):
        for name, variables in THREAD_WAITING.items():
            alone, beside = seconds[name]
            alone += steps_in_a_process(variables, arguments.steps)
            busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            try:
                beside += steps_in_a_process(variables, arguments.steps)
            finally:
                busy.kill()
                busy.wait()
    figures = {
        name: {"alone": 1e3 * statistics.median(alone), "beside": 1e3 * statistics.median(beside)}
        | {"slowest_beside": 1e3 * max(beside)}
        for name, (alone, beside) in seconds.items()
    }
    print(f"\n{machine()}\n")
    print("| waiting | alone, ms/step | beside a busy program | its slowest step |\n|---|---|---|---|")
    for name, row in figures.items():
        print(f"| {name} | " + " | ".join(f"{ms:.1f}" for ms in row.values()) + " |")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
