"""`scale`: train a grid of small models, fit a scaling law, and predict the loss of larger ones."""

import json
import math
import shutil
import sys
from dataclasses import asdict
from operator import attrgetter, methodcaller
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import ArgumentParser, Namespace

from lit_gpt_scratch.data.atomic_write import atomic_write
from lit_gpt_scratch.data.progress_bar import print_above_bar, progress_bar
from lit_gpt_scratch.scaling.law import MIN_GRID, Law, bootstrap, confidence_interval, fit_law, training_flops
from lit_gpt_scratch.scaling.plot import draw_fit, save_png
from lit_gpt_scratch.scaling.published import show_reference
from lit_gpt_scratch.scaling.results import RunResult, read_result, read_results
from lit_gpt_scratch.tools.fit_subprocess import run_fit
from lit_gpt_scratch.training.run_folder import make_folder

N_BUDGETS = 4  # rows of the compute-optimal frontier, each with ten times the FLOPs of the previous one
DEFAULT_RUNS_FOLDER = "checkpoints"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of `scale`."""
    add = parser.add_argument
    add("--config", action="config", help="File with these options, such as configs/scaling.yaml.")
    add("--run_dir", type=str, default="checkpoints/scaling", help="Folder of the runs and the results.")
    add("--sizes", type=list[dict[str, Any]], default=[], help="Options of `model` for each size.")
    add("--tokens", type=list[int], default=[], help="Numbers of tokens to train each size on.")
    held_out = "Size and `tokens` of a larger run, which tests the law and is not used to fit it."
    add("--held_out", type=dict[str, Any] | None, default=None, help=held_out)
    add("--fit", type=dict[str, Any], default={}, help="Options of `fit` that all runs share.")
    reference = "Train nothing: show the losses of published models by published laws, and your own runs."
    add("--reference", action="store_true", help=reference)
    add("--runs", type=str, default=DEFAULT_RUNS_FOLDER, help="With --reference: folder of your own runs.")


def run(options: Namespace) -> None:
    """Train a grid of models and fit a scaling law, or show published models; print and plot the result.

    Raises:
        ValueError: An option is invalid.
    """
    folder = Path(options.run_dir).expanduser()
    if options.reference:
        runs_folder = Path(options.runs).expanduser()
        if options.runs != DEFAULT_RUNS_FOLDER and not runs_folder.is_dir():
            raise ValueError(f"no such folder: {options.runs}")
        make_folder(folder)
        show_reference(read_results(runs_folder), folder / "reference.png")
        return
    grid = make_grid(options.as_dict())
    make_folder(folder)
    runs = train_grid(grid, folder)
    held_out = runs.pop() if options.held_out is not None else None
    result = fit_runs(runs, held_out)
    with atomic_write(folder / "scaling.json") as file:
        file.write(json.dumps(result, indent=1).encode())
    save_png(draw_fit(Law(**result["law"]), runs, held_out), folder / "scaling.png")
    print(f"{format_law(result)}\n\nplot  {folder / 'scaling.png'}\nlaw   {folder / 'scaling.json'}")


def make_grid(options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the options of `fit` for each run, keyed by the run folder's name; a held-out run comes last.

    Raises:
        ValueError: Options are missing or contradict each other.
    """
    sizes, budgets, shared = options["sizes"], options["tokens"], options["fit"]
    if min(len(sizes), len(budgets)) < MIN_GRID:
        least = f"--sizes and --tokens with at least {MIN_GRID} values each"
        raise ValueError(
            f"a law of five constants needs more runs: give --config configs/scaling.yaml, or {least}"
        )
    runs = [{**size, "tokens": n_tokens} for size in sizes for n_tokens in budgets]
    if options["held_out"] is not None:
        runs.append(options["held_out"])
    grid = {}
    for run in runs:
        if not run.keys() >= {"n_layer", "n_embd", "tokens"}:
            raise ValueError(f"a size needs n_layer and n_embd, and held_out tokens as well: {run}")
        name = f"{run['n_layer']}x{run['n_embd']}-{run['tokens']}"
        if name in grid:
            raise ValueError(f"two runs have the same n_layer, n_embd and tokens: {name}")
        model = {**shared.get("model", {}), **run}
        n_tokens = model.pop("tokens")
        try:
            tokens_per_step = shared["data"]["batch_size"] * model["block_size"]
        except KeyError as error:
            raise ValueError(
                f"fit must set data.batch_size and model.block_size, the tokens of a step: {error} is missing"
            ) from error
        if n_tokens < tokens_per_step:
            raise ValueError(f"{n_tokens} tokens are less than a step, which takes {tokens_per_step}")
        steps = n_tokens // tokens_per_step
        trainer = {**shared.get("trainer", {}), "max_steps": steps}
        grid[name] = {**shared, "model": model, "trainer": trainer, "eval_every": steps}
    return grid


def train_grid(grid: dict[str, dict[str, Any]], folder: Path) -> list[RunResult]:
    """Train one run after the other, print the loss of each, and return the results."""
    print_above_bar(f"{len(grid)} runs, in {folder}", sys.stderr)
    results = []
    with progress_bar("training", len(grid)) as advance:
        for name, options in grid.items():
            result = train_run(folder / name, options)
            results.append(result)
            count = f"run {f'{len(results)}/{len(grid)}':>6}  {name:<16}"
            size = f"{result.n_parameters:>10,} parameters  val loss {result.loss:.4f}"
            print_above_bar(f"{count}{size}", sys.stderr)
            advance(1)
    return results


def train_run(run_dir: Path, options: dict[str, Any]) -> RunResult:
    """Train or resume a run unless it is finished, and return its result.

    Raises:
        ValueError: `fit` rejects an option, or the folder has a run with other options.
        RuntimeError: Training failed.
    """
    config = run_dir.with_name(f"{run_dir.name}.yaml")
    content = json.dumps(options, indent=1).encode()
    if not (run_dir / "last.ckpt").is_file():
        shutil.rmtree(run_dir, ignore_errors=True)  # of a run that was stopped before its first save
        with atomic_write(config) as file:
            file.write(content)
        run_fit(["--config", str(config), "--run_dir", str(run_dir)])
    elif not config.is_file() or config.read_bytes() != content:
        raise ValueError(f"{run_dir} is a run with other options: name another --run_dir")
    elif read_result(run_dir).step < options["trainer"]["max_steps"]:
        run_fit(["--ckpt_path", str(run_dir)])
    return read_result(run_dir)


def fit_runs(runs: list[RunResult], held_out: RunResult | None) -> dict[str, Any]:
    """Fit a scaling law to runs, and test the law on the held-out run if there is one.

    Returns:
        Content of scaling.json: the law and its confidence intervals, the runs, the relative error of the
        loss predicted for the held-out run, and the lowest loss that the law predicts for each of N_BUDGETS
        compute budgets in FLOPs.
    """
    points = np.array([(run.n_parameters, run.n_tokens, run.loss) for run in runs])
    law = fit_law(points)
    laws = bootstrap(law, points)
    frontier = []
    for i in range(N_BUDGETS):
        flops = 10.0 ** (math.floor(math.log10(max(run.flops for run in runs))) + i)
        n_parameters, n_tokens = law.optimal(flops)
        low, high = confidence_interval(laws, methodcaller("optimal_loss", flops))
        row = {"flops": flops, "n_parameters": n_parameters, "n_tokens": n_tokens}
        frontier.append({**row, "loss": law.optimal_loss(flops), "loss_low": low, "loss_high": high})
    tested = None
    if held_out is not None:
        error = law.loss(held_out.n_parameters, held_out.n_tokens) / held_out.loss - 1
        tested = {**asdict(held_out), "error": error}
    return {
        "law": asdict(law),
        "intervals": {name: confidence_interval(laws, attrgetter(name)) for name in asdict(law)},
        "runs": [asdict(run) for run in runs],
        "held_out": tested,
        "frontier": frontier,
    }


def format_law(result: dict[str, Any]) -> str:
    """Return the content of scaling.json as tables for the terminal."""
    law, held_out = Law(**result["law"]), result["held_out"]
    lines = [f"{'parameters':>12}{'tokens':>13}{'FLOPs':>10}{'val loss':>10}{'predicted':>11}"]
    for run in result["runs"]:
        n, d = run["n_parameters"], run["n_tokens"]
        loss = f"{run['loss']:>10.4f}{law.loss(n, d):>11.4f}"
        lines.append(f"{n:>12,}{d:>13,}{training_flops(n, d):>10.1e}{loss}")
    lines += ["", "L(N, D) = E + A / N^alpha + B / D^beta, in nats per token"]
    for name, (low, high) in result["intervals"].items():
        lines.append(f"  {name:<6}{result['law'][name]:>10.4g}  ({low:.4g} to {high:.4g})")
    lines += ["", f"{'FLOPs':>9}{'optimal N':>13}{'optimal D':>15}{'D/N':>7}{'loss':>8}"]
    for row in result["frontier"]:
        n, d = row["n_parameters"], row["n_tokens"]
        loss = f"{row['loss']:>8.3f}  ({row['loss_low']:.3f} to {row['loss_high']:.3f})"
        lines.append(f"{row['flops']:>9.0e}{n:>13,.0f}{d:>15,.0f}{d / n:>7.1f}{loss}")
    lines += ["", "in parentheses: 95 % confidence intervals"]
    if held_out is not None:
        n, d = held_out["n_parameters"], held_out["n_tokens"]
        losses = (
            f"predicted {law.loss(n, d):.4f}, measured {held_out['loss']:.4f}, error {held_out['error']:+.1%}"
        )
        lines += ["", f"held out: {n:,} parameters on {d:,} tokens: {losses}"]
    return "\n".join(lines)
