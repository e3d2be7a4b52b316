"""`plan`: what a run will cost and reach, before it is begun."""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from lit_gpt_scratch.data.datamodule import TextDataModule
from lit_gpt_scratch.model.gpt import GPT
from lit_gpt_scratch.tools.scaling_law import Law
from lit_gpt_scratch.tools.stopwatch import Measured
from lit_gpt_scratch.training.metrics import train_flops_per_token
from lit_gpt_scratch.training.module import LitGPT

BEST_RATIO = 20  # tokens per parameter for a given compute: Hoffmann et al. 2022
MANY_EPOCHS = 4  # after which a text read again teaches ever less: Muennighoff et al. 2023
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
    expected_loss: float | None
    measured: Measured | None
    total_seconds: float | None
    tokens_per_second: float | None
    warnings: list[str]


def make_plan(
    model: LitGPT,
    data: TextDataModule,
    steps: int,
    eval_every: int,
    measured: Measured | None,
    law: Path,
) -> Plan:
    """Work out what a run will cost and reach.

    Args:
        model: The model.
        data: The text and how it is cut.
        steps: Of the optimizer.
        eval_every: Steps between two evaluations.
        measured: What some steps took.
        law: A `scaling.json`; one of another text, or none at all, foretells nothing.
    """
    gpt, n_train = model.gpt, len(data.train_tokens)
    parameters = parameters_by_part(gpt)
    n_parameters, n_tokens = sum(parameters.values()), steps * data.tokens_per_step
    warnings = []
    if n_tokens > MANY_EPOCHS * n_train:
        times = n_tokens / n_train
        warnings.append(
            f"it will overfit, or have to be kept from it: {times:.0f} epochs over {n_train:,} tokens"
        )
    if steps and model.warmup_steps >= steps:
        warnings.append(f"{model.warmup_steps} steps of warmup are all of its {steps}: the rate never falls")
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


def expected_loss(
    path: Path, model: LitGPT, data: TextDataModule, n_parameters: int, n_tokens: int
) -> float | None:
    """What a law foretells that was fitted on runs of the same text, tokenizer and optimizer."""
    this = {
        "corpus_sha256": data.corpora["train"].sha256,
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
    }
    if plan.measured is not None and plan.total_seconds is not None:
        took = plan.measured
        extra = took.before_seconds + took.first_steps_extra_seconds + took.after_seconds
        rows["memory"] = f"{took.peak_bytes / 1e9:.2f} GB"
        rows["time"] = (
            f"{_clock(plan.total_seconds)} in all: steps of {took.step_seconds * 1000:.3g} ms, "
            f"evaluations of {took.evaluation_seconds:.2g} s, {extra:.0f} s before and after"
        )
        rows["speed"] = f"{plan.tokens_per_second:,.0f} tokens/s"
    if plan.expected_loss is not None:
        rows["loss"] = f"about {plan.expected_loss:.2f} on the validation text, by {law}"
    else:
        rows["loss"] = f"not foretold: {law} is no law of this text and optimizer (scale makes one)"
    return "\n".join(f"{name:<8} {value}" for name, value in rows.items())


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
