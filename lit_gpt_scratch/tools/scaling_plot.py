"""Pictures of how loss falls with size, text and compute."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lit_gpt_scratch.tools.published import Published
from lit_gpt_scratch.tools.runs import Run
from lit_gpt_scratch.tools.scaling_law import Law, training_flops

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = ("#2171b5", "#d94801", "#238b45", "#6a51a3", "#525252", "#c51b8a", "#8c6d31")
MARGIN = 10.0  # FLOPs beyond the runs that the frontier is drawn to


def draw_runs(law: Law, runs: Sequence[Run], held_out: Run | None) -> bytes:
    """Runs and the law through them as a PNG: loss against tokens, and against FLOPs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    by_tokens, by_flops = figure.subplots(1, 2, sharey=True)
    budgets = np.geomspace(min(run.n_tokens for run in runs) / 1.5, max(_all(runs, held_out)) * 1.5)
    for size, color in zip(
        sorted({run.n_parameters for run in runs}), np.resize(COLORS, len(runs)), strict=False
    ):
        own = [run for run in runs if run.n_parameters == size]
        label = f"{size:,} parameters"
        by_tokens.plot(
            [run.n_tokens for run in own], [run.loss for run in own], "o", color=color, label=label
        )
        by_tokens.plot(budgets, [law.loss(size, d) for d in budgets], color=color, alpha=0.5)
        by_flops.plot([run.flops for run in own], [run.loss for run in own], "o", color=color)
    if held_out is not None:
        label = f"{held_out.n_parameters:,}, held out"
        by_tokens.plot(held_out.n_tokens, held_out.loss, "*", color="black", markersize=12, label=label)
        line = [law.loss(held_out.n_parameters, d) for d in budgets]
        by_tokens.plot(budgets, line, ":", color="black", alpha=0.6)
        by_flops.plot(held_out.flops, held_out.loss, "*", color="black", markersize=12)
    flops = np.geomspace(min(run.flops for run in runs), max(run.flops for run in runs) * MARGIN)
    best = [law.best_loss(each) for each in flops]
    by_flops.plot(flops, best, "--", color="#525252", label="the best for so many FLOPs")
    by_tokens.set(
        title="Dots are runs, lines the law",
        xlabel="tokens trained on",
        ylabel="validation loss (nats per token)",
    )
    by_flops.set(title="What compute buys", xlabel="FLOPs (6 N D)")
    return _png(figure)


def draw_reference(models: Sequence[Published], laws: Mapping[str, Law], runs: Sequence[Run]) -> bytes:
    """Published models under published laws as a PNG, with one's own runs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    for (name, law), color, marker in zip(laws.items(), COLORS, "os", strict=False):
        costs = [training_flops(model.n_parameters, model.n_tokens) for model in models]
        losses = [law.loss(model.n_parameters, model.n_tokens) for model in models]
        axes.plot(costs, losses, marker, color=color, label=f"published models, the law of {name} et al.")
        flops = np.geomspace(min(costs) / 10, max(costs) * 10)
        best = [law.best_loss(each) for each in flops]
        axes.plot(flops, best, "--", color=color, alpha=0.5, label="the best for so many FLOPs")
        if law is next(iter(laws.values())):
            for model, cost, loss in zip(models, costs, losses, strict=True):
                axes.annotate(model.name, (cost, loss), textcoords="offset points", xytext=(6, 6), fontsize=8)
    if runs:
        label = "your runs, each on its own text and tokens"
        axes.plot([run.flops for run in runs], [run.loss for run in runs], "*", color="black", label=label)
    axes.set(title="What compute buys", xlabel="training FLOPs (6 N D)", ylabel="loss (nats per token)")
    return _png(figure)


def _all(runs: Sequence[Run], held_out: Run | None) -> list[int]:
    return [run.n_tokens for run in [*runs, *([held_out] if held_out is not None else [])]]


def _png(figure: "Figure") -> bytes:
    for axes in figure.axes:
        axes.set_xscale("log")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    png = io.BytesIO()
    figure.savefig(png, dpi=110)
    return png.getvalue()
