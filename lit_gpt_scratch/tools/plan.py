"""`plan`: what a run will cost and reach, before it is begun."""

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from lit_gpt_scratch.data.datamodule import TextDataModule
from lit_gpt_scratch.model.gpt import GPT, ROPE_THETA, Block, GPTConfig
from lit_gpt_scratch.model.layers import rotations
from lit_gpt_scratch.tools.scaling_law import Law
from lit_gpt_scratch.tools.stopwatch import Measured
from lit_gpt_scratch.training.loss import logits_at_once
from lit_gpt_scratch.training.metrics import train_flops_per_token
from lit_gpt_scratch.training.module import LitGPT

BEST_RATIO = 20  # tokens per parameter for a given compute: Hoffmann et al. 2022
MANY_EPOCHS = 4  # after which a text read again teaches ever less: Muennighoff et al. 2023
BYTES_PER_PARAMETER = 16  # weight, gradient and AdamW's two moments, in float32
# What memory in use grows to: the gradients of what is kept, and the gaps between what was given back.
# Measured on a CPU with glibc; a GPU's is a guess.
GROWTH = {"cpu": 1.5, "cuda": 1.1}
LOGIT_COPIES = 3  # logits, their gradient, and what lies between
PARTS = {"wte": "token table", "wpe": "positions", "lm_head": "output head"}
LAW = "checkpoints/scaling/scaling.json"


@dataclass(frozen=True)
class Plan:
    """A run before it is begun.

    Args:
        parameters: By part of the model.
        n_parameters: In all.
        steps: Of the optimizer.
        tokens_per_step: Over all devices.
        n_tokens: That the run reads.
        epochs: Times that it reads its text.
        tokens_per_parameter: 20 are the best for a given compute (Hoffmann et al. 2022).
        flops: Of the run, attention included.
        estimated_peak_bytes: Of memory, from the model's shape and what the program takes before it trains.
        largest_micro_batch: Sequences that a device has room for at once, by the same estimate; None where
            nothing tells how much is free.
        expected_loss: Of the validation text in nats per token, by a law fitted on runs of the same text.
        measured: What some steps took; None if they were not to be run.
        total_seconds: Of the whole command.
        tokens_per_second: While it trains.
        warnings: What speaks against it.
    """

    parameters: dict[str, int]
    n_parameters: int
    steps: int
    tokens_per_step: int
    n_tokens: int
    epochs: float
    tokens_per_parameter: float
    flops: float
    estimated_peak_bytes: int
    largest_micro_batch: int | None
    expected_loss: float | None
    measured: Measured | None
    total_seconds: float | None
    tokens_per_second: float | None
    warnings: list[str]


def make_plan(
    model: LitGPT,
    data: TextDataModule,
    device: torch.device,
    steps: int,
    eval_every: int,
    bytes_before: int,
    free: int | None,
    measured: Measured | None,
    law: Path,
) -> Plan:
    """Work out what a run will cost and reach.

    Args:
        model: The model.
        data: The text and how it is cut.
        device: That it will train on.
        steps: Of the optimizer.
        eval_every: Steps between two evaluations.
        bytes_before: What the program takes before it trains.
        free: Bytes of memory that the device had left then; None where nothing told.
        measured: What some steps took.
        law: A `scaling.json`; one of another text, or none at all, foretells nothing.
    """
    gpt, n_train = model.gpt, len(data.train_tokens)
    parameters = parameters_by_part(gpt)
    n_parameters, n_tokens = sum(parameters.values()), steps * data.tokens_per_step
    rows = data.micro_batch_size or data.rows_per_device
    fixed, per_row = estimated_bytes(gpt, 0, device), estimated_bytes(gpt, 1, device)
    per_row -= fixed
    largest = None if free is None else max(0, (free - fixed) // per_row)
    warnings = []
    if n_tokens > MANY_EPOCHS * n_train:
        times = n_tokens / n_train
        warnings.append(
            f"it will overfit, or have to be kept from it: {times:.0f} epochs over {n_train:,} tokens"
        )
    if steps and model.warmup_steps >= steps:
        warnings.append(f"{model.warmup_steps} steps of warmup are all of its {steps}: the rate never falls")
    if largest is not None and largest < rows:
        need, have = (_gigabytes(n) for n in (estimated_bytes(gpt, rows, device), free or 0))
        warnings.append(
            f"a micro-batch of {rows} sequences takes about {need}, and {have} are free: "
            f"data.micro_batch_size {largest} would fit"
            if largest
            else f"one sequence takes more than {have}"
        )
    n_evaluations = -(-steps // eval_every)
    return Plan(
        parameters=parameters,
        n_parameters=n_parameters,
        steps=steps,
        tokens_per_step=data.tokens_per_step,
        n_tokens=n_tokens,
        epochs=n_tokens / n_train,
        tokens_per_parameter=n_tokens / n_parameters,
        flops=float(n_tokens * train_flops_per_token(gpt)),
        estimated_peak_bytes=bytes_before + estimated_bytes(gpt, rows, device),
        largest_micro_batch=largest,
        expected_loss=expected_loss(law, model, data, n_parameters, n_tokens),
        measured=measured,
        total_seconds=measured.total_seconds(steps, n_evaluations) if measured else None,
        tokens_per_second=data.tokens_per_step / measured.step_seconds if measured else None,
        warnings=warnings,
    )


def parameters_by_part(gpt: GPT) -> dict[str, int]:
    """How many parameters each part of a model has; what is shared counts where it comes first."""
    counts: dict[str, int] = defaultdict(int)
    for name, parameter in gpt.named_parameters():
        within = name.split(".")
        inner = "attention" if "attn" in within else "MLPs" if "mlp" in within else "norms"
        counts[PARTS.get(within[0], inner)] += parameter.numel()
    return dict(counts)


def estimated_bytes(gpt: GPT, rows: int, device: torch.device) -> int:
    """What training takes with micro-batches of so many rows, in float32, beyond what is there before.

    On a CPU the weights are there already. bfloat16 takes up to half of it for what is kept of each row.
    """
    config = gpt.config
    logits = min(rows * config.block_size * config.vocab_size, logits_at_once(device))
    kept = kept_bytes_per_row(config)
    if gpt.activation_checkpointing:  # one block's at a time, and what goes into each
        kept += config.n_layer * 4 * config.block_size * config.n_embd
    else:
        kept *= config.n_layer
    n_parameters = sum(parameter.numel() for parameter in gpt.parameters())
    per_parameter = BYTES_PER_PARAMETER - (4 if device.type == "cpu" else 0)
    growing = rows * kept + 4 * LOGIT_COPIES * logits
    return per_parameter * n_parameters + round(GROWTH.get(device.type, 1.0) * growing)


@cache
def kept_bytes_per_row(config: GPTConfig) -> int:
    """What a block of a model keeps of a sequence for the backward pass."""
    block = Block(config)
    return _kept_bytes(block, config, 2) - _kept_bytes(block, config, 1)  # its weights are no part of a row


def _kept_bytes(block: Block, config: GPTConfig, rows: int) -> int:
    """What autograd holds after a block has read so many sequences."""
    kept: dict[int, Tensor] = {}  # by where they lie: several may be views of one

    def keep(tensor: Tensor) -> Tensor:
        return kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)

    x = torch.zeros(rows, config.block_size, config.n_embd, requires_grad=True)
    rope = None if config.arch == "gpt2" else rotations(config.block_size, config.head_width, ROPE_THETA)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        block(x, rope)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def free_bytes(device: torch.device) -> int | None:
    """Memory that a device has left; None where nothing tells."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        known = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:  # not on Linux
        return None
    available = re.search(r"MemAvailable:\s+(\d+) kB", known)  # with what only caches files
    return 1024 * int(available[1]) if available else None


def expected_loss(
    path: Path, model: LitGPT, data: TextDataModule, n_parameters: int, n_tokens: int
) -> float | None:
    """What a law foretells that was fitted on runs of the same text, tokenizer and optimizer."""
    this = {
        "corpus_sha256": data.corpus.sha256,
        "vocab_size": data.vocab_size,
        "optimizer": model.optimizer,
    }
    try:
        fitted = json.loads(path.read_text(encoding="utf-8"))
        if not all(this.items() <= run.items() for run in fitted["runs"]):
            return None
        return Law(**fitted["law"]).loss(n_parameters, n_tokens)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def report(plan: Plan, law: Path) -> str:
    """A plan for people."""
    parts = " · ".join(f"{name} {count:,}" for name, count in plan.parameters.items())
    size = f"{plan.n_tokens:,} in all, {plan.epochs:.2f} epochs"
    rows = {
        "model": f"{plan.n_parameters:,} parameters: {parts}",
        "steps": f"{plan.steps:,} of {plan.tokens_per_step:,} tokens: {size}",
        "ratio": f"{plan.tokens_per_parameter:.1f} tokens per parameter; {BEST_RATIO} use compute best",
        "compute": f"{plan.flops:.1e} FLOPs",
        "memory": f"about {_gigabytes(plan.estimated_peak_bytes)}",
    }
    if plan.measured is not None and plan.total_seconds is not None:
        took = plan.measured
        extra = took.before_seconds + took.first_steps_extra_seconds + took.after_seconds
        rows["memory"] = (
            f"{_gigabytes(took.peak_bytes)} measured, {_gigabytes(plan.estimated_peak_bytes)} estimated"
        )
        rows["time"] = (
            f"{_clock(plan.total_seconds)} in all: steps of {took.step_seconds * 1000:.3g} ms, "
            f"evaluations of {took.evaluation_seconds:.2g} s, {extra:.0f} s before and after"
        )
        rows["speed"] = f"{plan.tokens_per_second:,.0f} tokens/s"
    if plan.largest_micro_batch is not None:
        rows["memory"] += f"; room for micro-batches of about {plan.largest_micro_batch:,} sequences"
    if plan.expected_loss is not None:
        rows["loss"] = f"about {plan.expected_loss:.2f} on the validation text, by {law}"
    else:
        rows["loss"] = f"not foretold: {law} is no law of this text and optimizer (scale makes one)"
    return "\n".join(f"{name:<8} {value}" for name, value in rows.items())


def _gigabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.2f} GB"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
