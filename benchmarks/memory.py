"""Peak memory of training against parameters, block and batch: measured, beside a formula.

    python benchmarks/memory.py [--device cpu|cuda] [--json FILE]

Each row is a process of its own that takes three optimizer steps in float32. On a CPU the figure is how much
resident memory grows over that of a process that has trained a tiny model; on a GPU, what PyTorch allocated.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

SIZES = [  # arch, layers, width, block, batch, vocabulary, activation checkpointing
    ("gpt2", 4, 128, 64, 32, 65, False),
    ("gpt2", 6, 384, 256, 8, 65, False),
    ("gpt2", 6, 384, 256, 32, 65, False),
    ("gpt2", 6, 384, 1024, 8, 65, False),
    ("gpt2", 6, 384, 256, 32, 65, True),
    ("modern", 6, 384, 256, 8, 65, False),
    ("modern", 6, 384, 256, 32, 65, False),
    ("modern", 6, 384, 256, 32, 65, True),
    ("gpt2", 12, 768, 256, 2, 50257, False),
    ("gpt2", 12, 768, 256, 8, 50257, False),
]
# Numbers of width C that a block keeps for its backward pass, per token. gpt2: inputs of two norms (2), what
# they give (2), queries, keys and values (3), attention's result (1), the inner layer around GELU (8).
# modern: four inner parts of 8/3 for gate, its SiLU, layer and product, and queries and keys some times more.
KEPT = {"gpt2": 16, "modern": 2 + 2 + 3 + 4 * 2 + 1 + 4 * 8 / 3}
MEGA = 2**20


def formula(n_parameters: int, size: tuple) -> float:
    """Megabytes: weights, gradients and AdamW's two averages, activations, and logits with their gradient."""
    arch, n_layer, width, block_size, batch_size, vocab_size, again = size
    n_tokens = batch_size * block_size
    kept = KEPT[arch] * width * (1 if again else n_layer) + (n_layer * width if again else 0)
    logits = min(3 * vocab_size * n_tokens, 4 * 2**24)
    return (16 * n_parameters + 4 * (kept * n_tokens + logits)) / MEGA


def measure(device: str, size: tuple) -> tuple[int, float]:
    """Number of parameters, and megabytes at the peak of three steps."""
    import torch

    from lit_gpt_scratch.model.gpt import GPT, GPTConfig
    from lit_gpt_scratch.training.loss import next_token_loss
    from lit_gpt_scratch.training.optim import adamw

    def train(
        arch: str, n_layer: int, width: int, block_size: int, batch_size: int, vocab_size: int, again: bool
    ) -> int:
        config = GPTConfig(
            vocab_size, arch, block_size=block_size, n_layer=n_layer, n_head=max(1, width // 64), n_embd=width
        )
        gpt = GPT(config).to(device)
        gpt.activation_checkpointing = again
        optimizer = adamw(list(gpt.parameters()), (0.9, 0.95), 0.1, fused=True)
        for _ in range(3):
            idx = torch.randint(vocab_size, (batch_size, block_size), device=device)
            next_token_loss(gpt, idx, idx).backward()
            optimizer.step()
            optimizer.zero_grad()
        return sum(p.numel() for p in gpt.parameters())

    train("gpt2", 1, 16, 16, 2, 65, False)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return train(*size), torch.cuda.max_memory_allocated() / MEGA
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / MEGA
    n_parameters = train(*size)
    return n_parameters, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--row", type=int)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.row is not None:
        print(json.dumps(measure(arguments.device, SIZES[arguments.row])))
        return
    figures = []
    print("| model | batch x block | checkpointing | parameters | measured, MB | formula, MB | ratio |")
    print("|---|---|---|---|---|---|---|")
    for row, size in enumerate(SIZES):
        command = [sys.executable, __file__, "--device", arguments.device, "--row", str(row)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        n_parameters, peak = json.loads(done.stdout)
        arch, n_layer, width, block_size, batch_size, vocab_size, again = size
        said = formula(n_parameters, size)
        figures.append({"size": size, "parameters": n_parameters, "measured_mb": peak, "formula_mb": said})
        model = f"{arch}, {n_layer} layers, {width} wide, vocabulary {vocab_size}"
        shape = f"{batch_size} x {block_size} | {'yes' if again else 'no'}"
        numbers = f"{n_parameters:,} | {peak:.0f} | {said:.0f} | {peak / said:.2f}"
        print(f"| {model} | {shape} | {numbers} |", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
