"""Training GPT-2 124 M on one GPU: milliseconds per step, tokens per second, MFU, synchronizations.

    python benchmarks/gpu.py [--steps 60] [--batch 16] [--block 1024] [--json FILE]

The peer is a plain loop with nanoGPT's model, compiled, in bfloat16, with a fused AdamW and batches of the
same size; both are measured by turns in one process. Synchronizations are those that PyTorch's sync debug
mode reports between two log steps, without the callback step_control, which has to read each step's loss
and norm.
"""

import argparse
import json
import statistics
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from throughput import WARMUP, machine, our_steps, random_text  # noqa: I001  # sets the environment

import torch
from plain import plain_loop

from lit_gpt_scratch.data.datamodule import TextDataModule
from lit_gpt_scratch.model.gpt import GPT, GPTConfig
from lit_gpt_scratch.training.metrics import peak_flops_per_second, train_flops_per_token
from lit_gpt_scratch.training.module import LitGPT

VOCAB_SIZE = 50304  # GPT-2's 50257, up to a multiple of 64
SIZES = {"n_layer": 12, "n_head": 12, "n_embd": 768}


def count_synchronizations(text: Path, n_steps: int, options: list[str]) -> int:
    """Return the number of synchronizations in the steps after the first 15, without logging."""
    reports: list[Any] = []
    hook = LitGPT.on_train_batch_start

    def watched(self: LitGPT, *args: Any) -> None:
        torch.cuda.set_sync_debug_mode("warn" if self.global_step >= WARMUP else "default")
        hook(self, *args)

    LitGPT.on_train_batch_start = watched  # type: ignore[method-assign]  # restored below
    try:
        with warnings.catch_warnings(record=True) as reports:
            warnings.simplefilter("always")
            quiet = ["--trainer.log_every_n_steps", "1000000", "--callbacks.step_control", "false"]
            our_steps(text, n_steps, *options, *quiet, wait=False)
    finally:
        torch.cuda.set_sync_debug_mode("default")
        LitGPT.on_train_batch_start = hook  # type: ignore[method-assign]
    return sum("synchronizing" in str(report.message) for report in reports)


def main() -> None:
    """Print a table of all loops."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--block", type=int, default=1024)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("error: this benchmark needs a GPU")
    torch.set_float32_matmul_precision("high")
    batch, block = arguments.batch, arguments.block
    options = ["--data.tokenizer", "byte", "--data.batch_size", str(batch), "--model.block_size", str(block)]
    options += [part for name, value in SIZES.items() for part in (f"--model.{name}", str(value))]
    options += ["--precision", "bf16-mixed", "--compile", "true"]
    shape = {"n_layer": 12, "n_head": 12, "width": 768, "block_size": block, "vocab_size": VOCAB_SIZE}
    TextDataModule.vocab_size = VOCAB_SIZE  # type: ignore[assignment,method-assign]  # bytes, with GPT-2's head
    ids = torch.randint(VOCAB_SIZE, (1_000_000,))
    seconds: dict[str, list[float]] = {"plain loop: nanogpt": [], "ours: gpt2": [], "ours: modern": []}
    with tempfile.TemporaryDirectory() as folder:
        text = random_text(Path(folder))
        with torch.device("meta"):
            gpt = GPT(GPTConfig(VOCAB_SIZE, block_size=block, **SIZES))
        for _ in range(arguments.rounds):
            torch._dynamo.reset()
            steps = plain_loop(
                "nanogpt", ids, batch, arguments.steps, lambda step: 6e-4, device="cuda",
                autocast=torch.bfloat16, compiled=True, **shape,
            )  # fmt: skip
            seconds["plain loop: nanogpt"] += steps[WARMUP:]
            for arch in ("gpt2", "modern"):
                steps = our_steps(text, arguments.steps, *options, "--model.arch", arch)
                seconds[f"ours: {arch}"] += steps[WARMUP:]
        synchronizations = count_synchronizations(text, arguments.steps, options)
    peak = peak_flops_per_second(torch.device("cuda"), torch.bfloat16)
    flops = train_flops_per_token(gpt) * batch * block
    figures = {name: statistics.median(times) for name, times in seconds.items()}
    print(f"\n{torch.cuda.get_device_name()}, {machine()}\n")
    print(f"| 124 M parameters, {batch} x {block} tokens | ms/step | thousand tokens/s | MFU |")
    print("|---|---|---|---|")
    for name, time in figures.items():
        mfu = f"{flops / time / peak:.1%}" if peak else "not known"
        print(f"| {name} | {1e3 * time:.1f} | {batch * block / time / 1e3:.0f} | {mfu} |")
    print(f"\nsynchronizations between logs: {synchronizations} in {arguments.steps - WARMUP} steps")
    if arguments.json:
        content = {
            "machine": machine(),
            "seconds": figures,
            "synchronizations": synchronizations,
            "flops_per_step": flops,
        }
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
