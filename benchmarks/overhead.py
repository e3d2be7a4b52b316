"""Overhead of Lightning: a step of `fit` with all callbacks, against a bare loop over the same parts.

    python benchmarks/overhead.py [--steps 60] [--rounds 5] [--json FILE]

Both are measured by turns in one process. A figure is the median over all rounds, without the first 15 steps
of each.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from throughput import WARMUP, machine, our_steps, random_text  # noqa: I001  # sets the environment

import numpy as np
from torch.nn.utils import clip_grad_norm_

from lit_gpt_scratch.data.batches import gather, random_starts
from lit_gpt_scratch.model.gpt import GPT, GPTConfig
from lit_gpt_scratch.training.loss import next_token_loss
from lit_gpt_scratch.training.optim import make_adamw
from lit_gpt_scratch.training.lr_schedule import learning_rate

SIZES = {"32 x 64": (32, 64), "8 x 128": (8, 128)}
ARCHS = ("gpt2", "modern")


def bare_steps(arch: str, batch_size: int, block_size: int, n_steps: int) -> list[float]:
    """Return the seconds of each step of a loop over this project's model, batches, loss and optimizer."""
    gpt = GPT(GPTConfig(vocab_size=65, arch=arch, block_size=block_size)).train()
    optimizer = make_adamw(list(gpt.parameters()), (0.9, 0.95), 0.1, fused=True)
    ids = np.random.default_rng(0).integers(65, size=270_000).astype(np.uint16)
    seconds = []
    for step in range(n_steps):
        started = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate("cosine", step, 1e-3, 1e-4, 100, 1000)
        starts = random_starts(len(ids), block_size, batch_size, 0, step)
        next_token_loss(gpt, *gather(ids, starts, block_size)).backward()
        clip_grad_norm_(gpt.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
    return seconds


def main() -> None:
    """Print a table by architecture and batch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        text = random_text(Path(folder))
        for arch in ARCHS:
            for name, (batch_size, block_size) in SIZES.items():
                bare: list[float] = []
                ours: list[float] = []
                options = ["--model.arch", arch, "--model.block_size", str(block_size), "--compile", "false"]
                options += ["--data.batch_size", str(batch_size), "--precision", "32-true"]
                for _ in range(arguments.rounds):
                    bare += bare_steps(arch, batch_size, block_size, arguments.steps)[WARMUP:]
                    ours += our_steps(text, arguments.steps, *options)[WARMUP:]
                figures[f"{arch}, {name}"] = [1e3 * statistics.median(times) for times in (bare, ours)]
    print(f"\n{machine()}\n")
    print("| 0.8 M parameters, eager, float32 | bare loop, ms/step | `fit`, ms/step | overhead |")
    print("|---|---|---|---|")
    for name, (bare_ms, fit_ms) in figures.items():
        print(f"| {name} | {bare_ms:.2f} | {fit_ms:.2f} | {fit_ms / bare_ms - 1:.1%} |")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
