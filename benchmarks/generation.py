"""Tokens generated per second: this project, the tutorial's loop, Hugging Face, and the memory bound.

    python benchmarks/generation.py [--device cpu] [--rounds 5] [--only char gpt2] [--json FILE]

Random weights and greedy decoding, by turns in one process. A figure is the median over the rounds, without
prefill. The memory bound is the rate at which the device can read all weights in float32 once per token.
GB/s counts the bytes of weights, read once for all rows of a batch. The peers have the architecture gpt2;
Hugging Face's small model has positions for the whole text, while this project and the tutorial slide over
blocks of 64.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from throughput import machine  # noqa: I001  # sets the environment

import torch
import transformers
from plain import PlainGPT

from lit_gpt_scratch.generation.generate import SamplingOptions, generate_tokens
from lit_gpt_scratch.model.cpu_linear import quantize_linear_layers
from lit_gpt_scratch.model.gpt import GPT, GPTConfig
from lit_gpt_scratch.training.hardware import keep_freed_memory

SMALL = {"n_layer": 4, "n_head": 4, "n_embd": 128}
GPT2 = {"n_layer": 12, "n_head": 12, "n_embd": 768}
PROMPT = list(range(8))
Rate = Callable[[], float]  # makes one run and returns its tokens per second


@dataclass(frozen=True)
class Contestant:
    """A generation to measure, and the bytes of weights that it reads per token (0: unknown)."""

    rate: Rate
    bytes_per_token: float = 0


def ours(config: GPTConfig, n_tokens: int, batch_size: int = 1, int8: bool = False) -> Rate:
    """Return a run of this project."""
    gpt = GPT(config)
    if int8:
        quantize_linear_layers(gpt)
    options = SamplingOptions(max_new_tokens=n_tokens, temperature=0.0)

    def rate() -> float:
        generated = generate_tokens(gpt, [PROMPT] * batch_size, options)
        return batch_size * (n_tokens - 1) / generated.decode_seconds

    return rate


def huggingface(shape: dict[str, int], vocab_size: int, n_tokens: int, batch_size: int = 1) -> Rate:
    """Return a run of `transformers`; the time of a run with one token is subtracted as prefill."""
    settings = {"vocab_size": vocab_size, "n_positions": 1024, "bos_token_id": 0, "eos_token_id": None}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, **settings)).eval()
    ids = torch.tensor([PROMPT] * batch_size, device=model.device)

    def seconds(n: int) -> float:
        started = time.perf_counter()
        model.generate(ids, max_new_tokens=n, do_sample=False, pad_token_id=0).tolist()  # waits for a GPU
        return time.perf_counter() - started

    def rate() -> float:
        with torch.inference_mode():
            return batch_size * (n_tokens - 1) / (seconds(n_tokens) - seconds(1))

    return rate


def tutorial(n_tokens: int) -> Rate:
    """Return a run of the tutorial's loop, which computes the whole block for every token."""
    model = PlainGPT(fused=False).eval()
    device = next(model.parameters()).device

    @torch.no_grad()
    def rate() -> float:
        ids = torch.tensor([PROMPT], device=device)
        started = time.perf_counter()
        for _ in range(n_tokens):
            x = ids[:, -64:]
            logits = model.logits(x)[:, -1]
            ids = torch.cat([ids, logits.argmax(dim=-1, keepdim=True)], dim=1)
        ids.tolist()
        return n_tokens / (time.perf_counter() - started)

    return rate


def weights_read(config: GPTConfig) -> int:
    """Return the number of weights that are read for each token: all but the position embeddings."""
    with torch.device("meta"):
        gpt = GPT(config)
    return sum(p.numel() for p in gpt.parameters()) - gpt.wpe.weight.numel()


def bound(config: GPTConfig) -> Rate:
    """Return a run that only reads as many weights, by the fastest of several matrix-vector products."""
    matrices = [torch.randn(16384, 4096) for _ in range(3)]  # 0.8 GB: no cache holds them
    vector = torch.randn(4096)

    def rate() -> float:
        seconds = []
        for _ in range(3):
            for matrix in matrices:
                started = time.perf_counter()
                for _ in range(10):  # the latency of a GPU's answer counts once
                    y = torch.mv(matrix, vector)
                y.sum().item()
                seconds.append((time.perf_counter() - started) / 10)
        return matrices[0].numel() / min(seconds) / weights_read(config)

    return rate


def contestants(which: list[str], device: str) -> dict[str, dict[str, Contestant]]:
    """Return what to measure, by model and name."""
    found: dict[str, dict[str, Contestant]] = {}
    if "char" in which:
        found["0.8 M characters"] = {
            "the tutorial's loop": Contestant(tutorial(300)),
            "Hugging Face": Contestant(huggingface(SMALL, 65, 300)),
            "ours, gpt2": Contestant(ours(GPTConfig(65, block_size=64, **SMALL), 1000)),
            "ours, modern": Contestant(ours(GPTConfig(65, block_size=64, arch="modern", **SMALL), 1000)),
        }
    if "gpt2" in which:
        config = GPTConfig(50257, block_size=1024, attn_bias=True, **GPT2)
        read = weights_read(config)
        found["GPT-2 124 M"] = {
            "the memory's bound in float32": Contestant(bound(config), 4 * read),
            "Hugging Face": Contestant(huggingface(GPT2, 50257, 50), 4 * read),
            "ours": Contestant(ours(config, 50), 4 * read),
        }
        found["GPT-2 124 M, batch 16"] = {
            "Hugging Face": Contestant(huggingface(GPT2, 50257, 20, 16), 4 * read / 16),
            "ours": Contestant(ours(config, 20, 16), 4 * read / 16),
        }
        if device == "cpu":
            name = "ours, int8 weights"
            found["GPT-2 124 M"][name] = Contestant(ours(config, 100, int8=True), read)
            found["GPT-2 124 M, batch 16"][name] = Contestant(ours(config, 20, 16, int8=True), read / 16)
    return found


def main() -> None:
    """Print a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=["char", "gpt2"], choices=["char", "gpt2"])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    keep_freed_memory()
    with torch.device(arguments.device):
        measured = contestants(arguments.only, arguments.device)
    figures = {}
    for model, runs in measured.items():
        rates: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(arguments.rounds):
            for name, run in runs.items():
                rates[name].append(run.rate())
        figures[model] = {name: statistics.median(found) for name, found in rates.items()}
    print(f"{machine()}, transformers {transformers.__version__}\n")
    for model, of_it in figures.items():
        first = next(iter(of_it.values()))
        print(f"| {model} | tokens/s | relative to the first | GB/s |\n|---|---|---|---|")
        for name, found in of_it.items():
            read = measured[model][name].bytes_per_token * found / 1e9
            print(f"| {name} | {found:.0f} | {found / first:.2f} | {f'{read:.1f}' if read else ''} |")
        print()
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
