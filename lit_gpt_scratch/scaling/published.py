"""`scale --reference`: losses of published models by published scaling laws, and of the user's runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lit_gpt_scratch.scaling.law import BESIROGLU, HOFFMANN, training_flops
from lit_gpt_scratch.scaling.plot import plot_frontier, save_png
from lit_gpt_scratch.scaling.results import RunResult

LAWS = {"Hoffmann": HOFFMANN, "Besiroglu": BESIROGLU}
NOTE = "losses in nats per token of MassiveText, on which the laws were fitted, not of each model's own text"
# Number of parameters (computed from the model's shape, with token embeddings) and of training tokens.
MODELS = {
    "GPT-2 small": (124_439_808, 9e9),  # Radford et al. 2019: 40 GB at 4.5 bytes a token, assuming one epoch
    "GPT-2 XL": (1_557_611_200, 9e9),
    "Chinchilla": (70_056_681_472, 1.4e12),  # Hoffmann et al. 2022
    "Llama 3 70B": (70_553_706_496, 15e12),  # Llama Team 2024: more than 15e12
    "GPT-3": (174_604_259_328, 300e9),  # Brown et al. 2020
}


def show_reference(runs: Sequence[RunResult], plot: Path) -> None:
    """Print and plot published models, the losses that published laws predict for them, and the user's runs.

    Args:
        runs: The user's runs.
        plot: PNG file to write.
    """
    models: list[dict[str, Any]] = [
        {"name": name, "n_parameters": n, "n_tokens": d}
        | {author: law.loss(n, d) for author, law in LAWS.items()}
        for name, (n, d) in MODELS.items()
    ]
    save_png(draw_reference(models, runs), plot)
    columns = f"{'parameters':>16}{'tokens':>9}{'FLOPs':>9}{'D/N':>7}"
    print(f"{'model':<14}{columns}" + "".join(f"{author:>11}" for author in LAWS))
    for model in models:
        losses = "".join(f"{model[author]:>11.3f}" for author in LAWS)
        print(f"{_cells(model['name'], model['n_parameters'], model['n_tokens'])}{losses}")
    print(f"\n{NOTE}")
    if runs:
        print(f"\n{'your run':<14}{columns}{'val loss':>11}{'bits/byte':>11}")
    for run in runs:
        bits = "" if run.bits_per_byte is None else f"{run.bits_per_byte:>11.3f}"
        print(f"{_cells(run.name, run.n_parameters, run.n_tokens)}{run.loss:>11.3f}{bits}")
    print(f"\nplot  {plot}")


def draw_reference(models: Sequence[dict[str, Any]], runs: Sequence[RunResult]) -> Figure:
    """Return a plot of loss against training FLOPs, for published models and the user's runs.

    Args:
        models: Published models, each with its name, number of parameters, number of training tokens, and the
            loss that each published law predicts.
        runs: The user's runs.
    """
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    flops = [training_flops(model["n_parameters"], model["n_tokens"]) for model in models]
    for (author, law), color, marker in zip(LAWS.items(), ("C0", "C1"), "os", strict=True):
        losses = [model[author] for model in models]
        axes.plot(flops, losses, marker, color=color, label=f"published models, law of {author} et al.")
        plot_frontier(axes, law, flops, color)
    for model, x in zip(models, flops, strict=True):
        axes.text(x, model["Hoffmann"], f"  {model['name']}", fontsize=8, verticalalignment="bottom")
    if runs:
        label = "your runs, each on its own text and tokens"
        axes.plot([run.flops for run in runs], [run.loss for run in runs], "*", color="black", label=label)
    axes.set(title="Loss and compute", xlabel="training FLOPs (6 N D)", ylabel="loss (nats per token)")
    return figure


def _cells(name: str, n: int, d: float) -> str:
    """Return the first cells of a table row: name, parameters, tokens, FLOPs, tokens per parameter."""
    return f"{name:<14}{n:>16,}{d:>9.1e}{training_flops(n, d):>9.1e}{d / n:>7.1f}"
