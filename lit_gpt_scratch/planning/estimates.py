"""Estimates of a run: size, length, time, memory and final loss."""

import json
from collections import Counter
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from lit_gpt_scratch.data.datamodule import TextDataModule
from lit_gpt_scratch.model.gpt import GPT
from lit_gpt_scratch.planning.stopwatch import Measurement
from lit_gpt_scratch.scaling.law import Law
from lit_gpt_scratch.training.lr_schedule import warmup_warning
from lit_gpt_scratch.training.metrics import train_flops_per_token
from lit_gpt_scratch.training.module import LitGPT

OPTIMAL_RATIO = 20  # compute-optimal number of tokens per parameter: Hoffmann et al. 2022
MAX_EPOCHS = 4  # more repetitions of a text help less and less: Muennighoff et al. 2023
PARTS = {
    "wte": "token embeddings",
    "wpe": "position embeddings",
    "attn": "attention",
    "mlp": "MLPs",
    "lm_head": "output head",
}


def make_plan(
    model: LitGPT, data: TextDataModule, steps: int, eval_every: int, measured: Measurement | None, law: Path
) -> dict[str, Any]:
    """Return a run's numbers of parameters and tokens, and estimates of its time, memory and loss.

    Args:
        model: Model to train, with its network built.
        data: Data module with its tokens loaded.
        steps: Number of optimizer steps.
        eval_every: Optimizer steps between two evaluations.
        measured: Time and memory of the first steps; if None, the estimates of time and memory are None.
        law: File with a scaling law, written by `scale`. The estimated loss is None if the file cannot be
            read, or if its law was fitted on runs with another text, vocabulary size or optimizer.

    Returns:
        JSON-serializable dict.
    """
    parameters, n_train = parameters_by_part(model.gpt), len(data.train_tokens)
    n_parameters, n_tokens = sum(parameters.values()), steps * data.tokens_per_step
    warnings = []
    if n_tokens > MAX_EPOCHS * n_train:
        epochs = f"{n_tokens / n_train:.0f} epochs over {n_train:,} tokens"
        warnings.append(f"{epochs} will overfit: give more text, fewer steps, or dropout")
    if warning := warmup_warning(model.warmup_steps, steps):
        warnings.append(warning)
    return {
        "parameters": parameters,  # by part of the model
        "n_parameters": n_parameters,
        "steps": steps,
        "tokens_per_step": data.tokens_per_step,  # over all devices
        "n_tokens": n_tokens,
        "epochs": n_tokens / n_train,
        "tokens_per_parameter": n_tokens / n_parameters,
        "flops": float(n_tokens * train_flops_per_token(model.gpt)),  # attention included
        "expected_loss": predict_loss(law, model, data, n_parameters, n_tokens),
        "measured": asdict(measured) if measured else None,
        "total_seconds": measured.total_seconds(steps, eval_every) if measured else None,
        "tokens_per_second": data.tokens_per_step / measured.step_seconds if measured else None,
        "warnings": warnings,
    }


def parameters_by_part(gpt: GPT) -> dict[str, int]:
    """Return the number of parameters of each part of a model; tied weights count as token embeddings."""
    counts: Counter[str] = Counter()
    for name, parameter in gpt.named_parameters():
        part = next((PARTS[module] for module in name.split(".") if module in PARTS), "norms")
        counts[part] += parameter.numel()
    return dict(counts)


def predict_loss(
    law: Path, model: LitGPT, data: TextDataModule, n_parameters: int, n_tokens: int
) -> float | None:
    """Return the validation loss that a scaling law predicts, in nats per token.

    The result is None if the file `law` is unreadable or was not written by `scale`, or if its law was fitted
    on runs with another text, vocabulary size or optimizer.
    """
    this = {
        "corpus_sha256": data.corpora["train"].sha256,
        "vocab_size": data.vocab_size,
        "optimizer": model.optimizer,
    }
    try:
        fitted = json.loads(law.read_text(encoding="utf-8"))
        if not all(this.items() <= run.items() for run in fitted["runs"]):
            return None
        return Law(**fitted["law"]).loss(n_parameters, n_tokens)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def format_plan(plan: dict[str, Any], law: Path) -> str:
    """Return a plan as text, with one line per quantity.

    Args:
        plan: Result of `make_plan`.
        law: Path of the scaling law's file, shown in the line about the loss.
    """
    parts = " · ".join(f"{name} {count:,}" for name, count in plan["parameters"].items())
    length = f"{plan['n_tokens']:,} in all, {plan['epochs']:.2f} epochs"
    rows = {
        "model": f"{plan['n_parameters']:,} parameters: {parts}",
        "steps": f"{plan['steps']:,} of {plan['tokens_per_step']:,} tokens: {length}",
        "ratio": f"{plan['tokens_per_parameter']:.1f} tokens per parameter; compute-optimal: {OPTIMAL_RATIO}",
        "compute": f"{plan['flops']:.1e} FLOPs",
    }
    if (measured := plan["measured"]) is not None:
        step = f"{measured['step_seconds'] * 1000:.3g} ms a step"
        evaluation = f"{measured['evaluation_seconds']:.2g} s an evaluation"
        rows["memory"] = f"{measured['peak_bytes'] / 1e9:.2f} GB"
        rows["time"] = f"{timedelta(seconds=round(plan['total_seconds']))} in all: {step}, {evaluation}"
        rows["speed"] = f"{plan['tokens_per_second']:,.0f} tokens/s"
    if plan["expected_loss"] is not None:
        rows["loss"] = f"about {plan['expected_loss']:.2f} on the validation text, by {law}"
    else:
        rows["loss"] = f"no estimate: {law} is missing or was fitted on other data; `scale` fits one"
    return "\n".join(f"{name:<8} {value}" for name, value in rows.items())
