"""Compare the time and memory that `plan` estimates with those of the run, for each config.

    python benchmarks/plan.py [--configs configs/char.yaml ...] [--max_steps N] [--json FILE]

`plan` and `fit` run as commands, once each, for the config's length or for max_steps.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from throughput import machine

PROGRAM = [sys.executable, "-m", "lit_gpt_scratch"]


def main() -> None:
    """Print a table of all configs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configs", nargs="+", default=["configs/char.yaml", "configs/char_muon.yaml"])
    parser.add_argument("--max_steps", type=int)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    length = ["--trainer.max_steps", str(arguments.max_steps)] if arguments.max_steps else []
    figures = {config: measured(["--config", config, *length]) for config in arguments.configs}
    print(f"\n{machine()}\n\n| config | planned | took | | planned | took | |")
    print("|---|---|---|---|---|---|---|")
    for config, found in figures.items():
        cells = []
        for name, unit in (("seconds", "s"), ("gigabytes", "GB")):
            planned, took = found[f"planned_{name}"], found[name]
            cells.append(f"{planned:.3g} {unit} | {took:.3g} {unit} | {planned / took - 1:+.1%}")
        print(f"| {config} | {' | '.join(cells)} |")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "figures": figures}, indent=2) + "\n")


def measured(options: list[str]) -> dict[str, float]:
    """Return estimated and measured seconds and gigabytes of a run."""
    done = subprocess.run(
        [*PROGRAM, "plan", *options, "--json"], stdout=subprocess.PIPE, text=True, check=True
    )
    plan = json.loads(done.stdout)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        run = subprocess.Popen([*PROGRAM, "fit", *options, "--run_dir", f"{folder}/run"])
        _, status, usage = os.wait4(run.pid, 0)
        seconds = time.perf_counter() - begun
    if status:
        raise SystemExit(1)
    return {
        "planned_seconds": plan["total_seconds"],
        "seconds": seconds,
        "planned_gigabytes": plan["measured"]["peak_bytes"] / 1e9,
        "gigabytes": 1024 * usage.ru_maxrss / 1e9,
    }


if __name__ == "__main__":
    main()
