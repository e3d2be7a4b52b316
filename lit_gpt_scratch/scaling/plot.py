"""Plots of loss against tokens and against training FLOPs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lit_gpt_scratch.data.atomic_write import atomic_write
from lit_gpt_scratch.scaling.law import Law
from lit_gpt_scratch.scaling.results import RunResult


def draw_fit(law: Law, runs: Sequence[RunResult], held_out: RunResult | None) -> Figure:
    """Return a figure with two plots of a law and runs: loss against tokens, and loss against FLOPs.

    Args:
        law: Law fitted on `runs`.
        runs: Runs on which the law was fitted.
        held_out: Run that tests the law; None if no run was held out.
    """
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    by_tokens, by_flops = figure.subplots(1, 2, sharey=True)
    sizes = sorted({run.n_parameters for run in runs})
    groups = [(f"{size:,} parameters", [run for run in runs if run.n_parameters == size]) for size in sizes]
    if held_out is not None:
        groups.append((f"{held_out.n_parameters:,}, held out", [held_out]))
    all_tokens = [run.n_tokens for _, group in groups for run in group]
    budgets = np.geomspace(min(all_tokens) / 1.5, max(all_tokens) * 1.5)
    for i, (label, group) in enumerate(groups):
        color, marker = ("black", "*") if group == [held_out] else (f"C{i}", "o")
        losses, size = [run.loss for run in group], group[0].n_parameters
        by_tokens.plot([run.n_tokens for run in group], losses, marker, color=color, label=label)
        by_tokens.plot(budgets, [law.loss(size, d) for d in budgets], color=color, alpha=0.5)
        by_flops.plot([run.flops for run in group], losses, marker, color=color)
    plot_frontier(by_flops, law, [run.flops for run in runs], "black")
    by_tokens.set(title="Runs (markers) and law (lines)", xlabel="training tokens")
    by_tokens.set_ylabel("validation loss (nats per token)")
    by_flops.set(title="Loss and compute", xlabel="training FLOPs (6 N D)")
    return figure


def plot_frontier(axes: Axes, law: Law, flops: Sequence[float], color: str) -> None:
    """Plot a law's lowest loss against training FLOPs, from min(`flops`) to 10 max(`flops`)."""
    budgets = np.geomspace(min(flops), 10 * max(flops))
    losses = [law.optimal_loss(budget) for budget in budgets]
    axes.plot(budgets, losses, "--", color=color, alpha=0.5, label="lowest loss for these FLOPs")


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file, with logarithmic x axes, grids and legends."""
    for axes in figure.axes:
        axes.set_xscale("log")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=110)
