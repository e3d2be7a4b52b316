"""Seconds that each recipe needs to reach its validation loss on Tiny Shakespeare.

    python benchmarks/time_to_loss.py [--only NAME ...] [--json FILE]

Each row is a separate process, timed from its start, with imports and evaluations; losses are means over
the whole validation text. The peer is a plain loop with nanoGPT's model and its laptop recipe (2000 steps
of 12 x 64 characters, AdamW, learning rate 1e-3 to 1e-4), evaluated after the last step.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

ROOT = Path(__file__).parent.parent
STEP = re.compile(r"step +(\d+)/\d+ · train \S+ · val ([\d.]+)")
MUON, CHAR, BPE = "configs/char_muon.yaml", "configs/char.yaml", "configs/bpe.yaml"
RUNS = {
    "char_muon, short": ["--config", MUON, "--trainer.max_steps", "270"],
    "char, short": ["--config", CHAR, "--trainer.max_steps", "520"],
    "char_muon": ["--config", MUON],
    "char": ["--config", CHAR],
    "bpe": ["--config", BPE],
}


def peer() -> None:
    """Train the plain loop and print its validation loss."""
    import math

    import torch
    from plain import plain_loop

    from lit_gpt_scratch.data.corpus import load_corpus

    (text,) = [piece for piece in load_corpus("shakespeare").pieces() if piece is not None] or [""]
    places = {char: i for i, char in enumerate(sorted(set(text)))}
    ids = torch.tensor([places[char] for char in text])
    train, val = ids.split([int(0.9 * len(ids)), len(ids) - int(0.9 * len(ids))])

    def rate(step: int) -> float:
        if step < 100:
            return 1e-3 * (step + 1) / 101
        return 1e-4 + 0.5 * 9e-4 * (1 + math.cos(math.pi * (step - 100) / 1900))

    def evaluate(step: int, model: torch.nn.Module) -> bool:
        if step == 1999:
            windows = len(val[:-1]) // 64
            x, y = (part[: windows * 64].view(-1, 64) for part in (val[:-1], val[1:]))
            model.eval()
            with torch.no_grad():
                losses = [float(model(a, b)) for a, b in zip(x.split(64), y.split(64), strict=True)]
            print(f"step 2000/2000 · train {math.nan} · val {sum(losses) / len(losses):.4f}", flush=True)
        return False

    torch.manual_seed(1337)
    plain_loop("nanogpt", train, 12, 2000, rate, evaluate, betas=(0.9, 0.99))


def timed(command: list[str]) -> list[tuple[float, int, float]]:
    """Return seconds since the start, step and validation loss of each evaluation that a command prints."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found = []
    for line in process.stdout:
        if match := STEP.search(line):
            found.append((time.perf_counter() - begun, int(match[1]), float(match[2])))
    if process.wait():
        raise SystemExit(1)
    return found


def main() -> None:
    """Print a table of all runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", action="store_true", help="Run the plain loop in this process.")
    parser.add_argument("--only", nargs="*", default=["peer", *RUNS])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.peer:
        return peer()
    figures = {}
    print("| run | steps | seconds to the last evaluation | of which after the first | validation loss |")
    print("|---|---|---|---|---|")
    for name in arguments.only:
        with tempfile.TemporaryDirectory() as folder:
            fit = [sys.executable, "-m", "lit_gpt_scratch", "fit"]
            if name == "peer":
                found = timed([sys.executable, __file__, "--peer"])
            else:
                found = timed([*fit, *RUNS[name], "--run_dir", f"{folder}/run"])
        seconds, steps, loss = found[-1]
        begun = found[0][0] if len(found) > 1 else float("nan")
        figures[name] = {"steps": steps, "seconds": seconds, "loss": loss, "evaluations": found}
        print(f"| {name} | {steps} | {seconds:.1f} | {seconds - begun:.1f} | {loss:.4f} |", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    return None


if __name__ == "__main__":
    main()
