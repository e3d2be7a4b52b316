"""Time and memory that a corpus of a gigabyte needs: to prepare it, and in each training step.

    TIKTOKEN_CACHE_DIR=... python benchmarks/corpus_size.py [--megabytes 1000] [--json FILE]

The text consists of random lines of Python's language reference. Preparing it (hashing, counting,
tokenizing with GPT-2's encoding, writing, syncing) is compared with tiktoken alone in one thread on the same
text in memory. Then char.yaml's model, on bytes, takes steps by turns on 1 MB and on the whole text.
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import tiktoken
import torch

from lit_gpt_scratch.data.batches import TrainBatches
from lit_gpt_scratch.data.corpus import load_corpus
from lit_gpt_scratch.data.datamodule import TextDataModule
from lit_gpt_scratch.model.gpt import GPT, GPTConfig
from lit_gpt_scratch.training.loss import cross_entropy

MEGABYTE = 10**6
PREPARE = """
import resource, sys, time
import lit_gpt_scratch.cli.main  # all that a run imports
from lit_gpt_scratch.data.datamodule import TextDataModule
def resident(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
before, started = resident(), time.perf_counter()
data = TextDataModule(sys.argv[1], tokenizer="gpt2", block_size=64, seed=0)
data.load("fit")
print(time.perf_counter() - started, before, resident())
"""


def write_text(path: Path, n_bytes: int) -> None:
    """Write random lines of Python's language reference, about `n_bytes` long."""
    lines = "".join(piece or "" for piece in load_corpus("python_docs").pieces()).splitlines(keepends=True)
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as stream:
        while stream.tell() < n_bytes:
            stream.write("".join(rng.choices(lines, k=10_000)))


def tiktoken_megabytes_per_second(path: Path) -> tuple[float, float]:
    """Return the speed of tiktoken in one thread without input and output: to lists, and to arrays."""
    encoding = tiktoken.get_encoding("gpt2")
    speeds = []
    for encode in (
        encoding.encode_ordinary,
        lambda text: encoding.encode_to_numpy(text, disallowed_special=()),
    ):
        seconds, n_bytes = 0.0, 0
        with path.open(encoding="utf-8") as stream:
            while text := stream.read(2**18):
                started = time.perf_counter()
                encode(text)
                seconds += time.perf_counter() - started
                n_bytes += len(text.encode())
        speeds.append(n_bytes / MEGABYTE / seconds)
    return speeds[0], speeds[1]


def prepare(path: Path) -> tuple[float, float, float]:
    """Prepare a text in a new process.

    Returns:
        The seconds, and the resident memory before and at its peak, in megabytes.
    """
    done = subprocess.run(
        [sys.executable, "-c", PREPARE, str(path)], check=True, stdout=subprocess.PIPE, text=True
    )
    seconds, before, peak = map(float, done.stdout.split())
    return seconds, before, peak


def milliseconds_per_step(batches: dict[str, TrainBatches]) -> dict[str, tuple[float, float]]:
    """Return the median milliseconds of drawing a batch and of a whole step, by corpus, over 200 steps."""
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(vocab_size=256, block_size=64, n_layer=4, n_head=4, n_embd=128))
    optimizer = torch.optim.AdamW(gpt.parameters(), fused=True)
    drawn: dict[str, list[float]] = {name: [] for name in batches}
    whole: dict[str, list[float]] = {name: [] for name in batches}
    for step in range(210):
        for name, source in batches.items():
            started = time.perf_counter()
            [(inputs, targets)] = source.micro_batches(step)
            drawn[name].append(time.perf_counter() - started)
            cross_entropy(gpt(inputs), targets).backward()
            optimizer.step()
            optimizer.zero_grad()
            whole[name].append(time.perf_counter() - started)
    median = statistics.median
    return {name: (1e3 * median(drawn[name][10:]), 1e3 * median(whole[name][10:])) for name in batches}


def main() -> None:
    """Print a table of all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    megabytes = arguments.megabytes
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, tiktoken "
    machine += f"{tiktoken.__version__}, Python {platform.python_version()}, {date.today()}"
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LIT_GPT_CACHE"] = f"{folder}/cache"
        small, large = Path(folder) / "small.txt", Path(folder) / "large.txt"
        write_text(small, MEGABYTE)
        write_text(large, megabytes * MEGABYTE)
        to_lists, to_arrays = tiktoken_megabytes_per_second(large)
        seconds, before, peak = prepare(large)
        speed = large.stat().st_size / MEGABYTE / seconds
        again, _, _ = prepare(large)
        figures = {
            "tiktoken alone, one thread, `encode_ordinary`, MB/s": to_lists,
            "tiktoken alone, one thread, `encode_to_numpy`, MB/s": to_arrays,
            f"preparing {megabytes} MB, seconds": seconds,
            "the same, MB/s": speed,
            "the same, relative to `encode_ordinary`": speed / to_lists,
            "the same, relative to `encode_to_numpy`": speed / to_arrays,
            "resident memory after importing torch and Lightning, MB": before,
            "peak resident memory, MB": peak,
            "opening the same text again, seconds": again,
        }
        batches = {}
        for name, path in (("1 MB", small), (f"{megabytes} MB", large)):
            data = TextDataModule(str(path), tokenizer="byte", block_size=64, seed=0)
            data.load("fit")
            batches[name] = TrainBatches(
                data.train_tokens.ids, 64, 16, 16, seed=0, first_step=0, n_steps=1000
            )
        for name, (draw, step) in milliseconds_per_step(batches).items():
            figures[f"a step on {name}, ms"] = step
            figures[f"of which drawing the batch of {name}, ms"] = draw
    print(f"{machine}\n\n| what | figure |\n|---|---|")
    for name, figure in figures.items():
        print(f"| {name} | {figure:.2f} |")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
