"""Milliseconds per training step: `fit` with all callbacks, and plain loops.

    python benchmarks/throughput.py [--steps 60] [--rounds 3] [--device cpu|cuda] [--json FILE]
    python benchmarks/throughput.py --precision 32-true bf16-mixed
    python benchmarks/throughput.py --sizes    tokens per second by model size, batch size and block size

All are measured by turns in one process. A figure is the median over all rounds, without the first 15 steps
of each.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from lit_gpt_scratch.__main__ import configure_process  # noqa: I001

configure_process()  # before torch is imported
import lightning  # noqa: E402
import torch  # noqa: E402
from plain import plain_loop  # noqa: E402

from lit_gpt_scratch.cli.main import main as run  # noqa: E402
from lit_gpt_scratch.training.module import LitGPT  # noqa: E402

WARMUP = 15  # steps, in which compiling falls
OURS = {
    "gpt2, eager": ["--compile", "false", "--model.activation", "gelu"],
    "gpt2 without biases, eager": [
        "--compile",
        "false",
        "--model.activation",
        "gelu",
        "--model.bias",
        "false",
    ],
    "gpt2, compiled": ["--compile", "true", "--model.activation", "gelu"],
    "modern, eager": ["--compile", "false", "--model.arch", "modern"],
    "modern, compiled": ["--compile", "true", "--model.arch", "modern"],
    "modern and Muon, compiled": ["--compile", "true", "--model.arch", "modern", "--model.optimizer", "muon"],
}


def our_steps(text: Path, n_steps: int, *options: str, wait: bool = True) -> list[float]:
    """Return the seconds of each step of `fit`, from its start to the start of the next step."""
    begun: list[float] = []
    hook = LitGPT.on_train_batch_start

    def timed(self: LitGPT, *args: Any) -> None:
        if wait and self.device.type == "cuda":
            torch.cuda.synchronize()
        begun.append(time.perf_counter())
        hook(self, *args)

    LitGPT.on_train_batch_start = timed  # type: ignore[method-assign]  # restored below
    torch._dynamo.reset()
    try:
        with tempfile.TemporaryDirectory() as folder:
            steps = ["--trainer.max_steps", str(n_steps + 1), "--eval_every", "100000"]
            few = ["--trainer.limit_val_batches", "1", "--samples.max_new_tokens", "1"]
            corpus = ["--data.corpus", str(text), "--run_dir", f"{folder}/run"]
            if run(["fit", *corpus, *steps, *few, *options]):
                raise SystemExit(1)
    finally:
        LitGPT.on_train_batch_start = hook  # type: ignore[method-assign]
    return [after - before for before, after in zip(begun, begun[1:], strict=False)]


def measure(arguments: argparse.Namespace, text: Path, ids: torch.Tensor) -> dict[str, float]:
    """Return the median milliseconds of a step by name of the loop."""
    seconds: dict[str, list[float]] = {}
    device = arguments.device

    def record(name: str, steps: list[float]) -> None:
        seconds.setdefault(name, []).extend(steps[WARMUP:])

    for _ in range(arguments.rounds):
        for kind, compiled in (("tutorial", False), ("nanogpt", False), ("nanogpt", True)):
            torch._dynamo.reset()
            options = {"device": device, "compiled": compiled}
            steps = plain_loop(kind, ids, 32, arguments.steps, lambda step: 1e-3, **options)
            record(f"plain loop: {kind}{', compiled' if compiled else ''}", steps)
        for name, options in OURS.items():
            for precision in arguments.precision:
                label = f"ours: {name}" + (f", {precision}" if len(arguments.precision) > 1 else "")
                record(label, our_steps(text, arguments.steps, "--precision", precision, *options))
    return {name: 1e3 * statistics.median(times) for name, times in seconds.items()}


def measure_sizes(arguments: argparse.Namespace, text: Path, ids: torch.Tensor) -> dict[str, float]:
    """Return thousands of tokens per second of `fit`, compiled, by model and batch."""
    rates = {}
    for width, layers in ((128, 4), (256, 6)):
        for batch, block in ((8, 64), (32, 64), (8, 256), (32, 256)):
            sizes = {"n_embd": width, "n_layer": layers, "n_head": width // 32, "block_size": block}
            shape = [part for name, value in sizes.items() for part in (f"--model.{name}", str(value))]
            shape += ["--data.batch_size", str(batch), "--precision", arguments.precision[0]]
            for arch in ("gpt2", "modern"):
                options = ["--model.arch", arch, "--compile", "true"]
                times = our_steps(text, arguments.steps, *shape, *options)[WARMUP:]
                name = f"{arch}, {layers} layers, {width} wide, {batch} x {block}"
                rates[name] = batch * block / statistics.median(times) / 1e3
    return rates


def machine() -> str:
    """Return a description of the hardware and the versions."""
    return (
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, lightning "
        f"{lightning.__version__}, Python {platform.python_version()}, {date.today()}"
    )


def random_text(folder: Path) -> Path:
    """Write a random text of 65 distinct characters, as many as Tiny Shakespeare has; return its path."""
    letters = "".join(chr(33 + i) for i in range(64)) + "\n"
    path = folder / "text.txt"
    path.write_text("".join(letters[i] for i in torch.randint(65, (300_000,))))
    return path


def main() -> None:
    """Print a table of all loops."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    precision = "One or several, for `fit`; the plain loops are in float32."
    parser.add_argument("--precision", nargs="+", default=["auto"], help=precision)
    parser.add_argument("--sizes", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text, ids = random_text(Path(folder)), torch.randint(65, (270_000,))
        figures = (measure_sizes if arguments.sizes else measure)(arguments, text, ids)
    print(f"\n{machine()}\n")
    if arguments.sizes:
        print("| model and batch | thousand tokens/s |\n|---|---|")
        for name, rate in figures.items():
            print(f"| {name} | {rate:.1f} |")
    else:
        first, second = list(figures.values())[:2]
        print("| 0.8 M parameters, 32 x 64 tokens | ms/step | tutorial's : this | nanogpt's : this |")
        print("|---|---|---|---|")
        for name, ms in figures.items():
            print(f"| {name} | {ms:.1f} | {first / ms:.2f} | {second / ms:.2f} |")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
