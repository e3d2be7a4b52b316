"""`scale`: what a larger model and more text would bring, from runs of small ones."""

import json
import math
import shutil
import sys
from dataclasses import asdict, dataclass
from operator import attrgetter, methodcaller
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from lit_gpt_scratch.atomic_write import atomic_write
from lit_gpt_scratch.data.progress_bar import print_above_bar, progress_bar
from lit_gpt_scratch.tools.fit_process import finish
from lit_gpt_scratch.tools.reference import show_reference
from lit_gpt_scratch.tools.runs import Run, run_of
from lit_gpt_scratch.tools.scaling_law import N_BOOTSTRAP, Fit, check_enough, fit_law
from lit_gpt_scratch.tools.scaling_plot import draw_runs
from lit_gpt_scratch.training.run_folder import make_folder

RESULT = "scaling.json"
FRONTIER_STEPS = 4  # rows of the frontier, each of ten times the FLOPs
RUNS = "checkpoints"


def add_arguments(parser: ArgumentParser) -> None:
    """The options of `scale`."""
    add = parser.add_argument
    parser.add_argument("--config", action="config", help="File of these options: configs/scaling.yaml.")
    run_dir = "Folder of the runs and of what came of them."
    add("--run_dir", type=str, default="checkpoints/scaling", help=run_dir)
    add("--sizes", type=list[dict[str, Any]], default=[], help="Options of `model`, for each size.")
    add("--tokens", type=list[int], default=[], help="Tokens to train each size on.")
    held_out = "Size and `tokens` of a larger run, which the law does not see and has to foretell."
    add("--held_out", type=dict[str, Any] | None, default=None, help=held_out)
    add("--fit", type=dict[str, Any], default={}, help="Options of `fit` that all runs share.")
    reference = "Train nothing: print what the published laws say of published models, and your own runs."
    add("--reference", action="store_true", help=reference)
    add("--runs", type=str, default=RUNS, help="With --reference: folder of your own runs.")
    add("--json", action="store_true", help="Print JSON.")


def run(options: Namespace) -> None:
    """Train the grid, fit the law and say what follows from it; or show the published ones."""
    folder = Path(options.run_dir).expanduser()
    if options.reference:
        if options.runs != RUNS and not Path(options.runs).expanduser().is_dir():
            raise ValueError(f"no such folder: {options.runs}")
        make_folder(folder)
        show_reference(Path(options.runs).expanduser(), folder / "reference.png", options.json)
        return
    if not options.sizes or not options.tokens:
        raise ValueError(
            "there is nothing to train: give --config configs/scaling.yaml, or --sizes and --tokens"
        )
    grid = [planned_run(size, tokens) for size in options.sizes for tokens in options.tokens]
    planned = list(grid)
    if options.held_out is not None:
        planned.append(planned_run(options.held_out, options.held_out.get("tokens", 0)))
    if len({one.name for one in planned}) < len(planned):
        raise ValueError("two runs have the same n_layer, n_embd and tokens, by which they are told apart")
    check_enough(len({str(one.model) for one in grid}), len({one.n_tokens for one in grid}), len(grid))
    make_folder(folder)
    common = options.fit.as_dict() if isinstance(options.fit, Namespace) else options.fit
    runs = train_all(planned, common, folder)
    held_out = runs.pop() if options.held_out is not None else None
    with progress_bar("fitting the law", N_BOOTSTRAP + 1) as advance:
        fit = fit_law([one.point for one in runs], advance=advance)
    result = Scaling(fit, runs, held_out)
    with atomic_write(folder / RESULT) as file:
        file.write(json.dumps(result.to_dict(), indent=1).encode())
    with atomic_write(folder / "scaling.png") as file:
        file.write(draw_runs(fit.law, runs, held_out))
    print(json.dumps(result.to_dict(), indent=1) if options.json else result.report(folder))


@dataclass(frozen=True)
class Planned:
    """A run of the grid.

    Args:
        name: What its folder is called, such as 2x64-131072: layers, width, tokens.
        model: The options of its model.
        n_tokens: To train it on.
    """

    name: str
    model: dict[str, Any]
    n_tokens: int


def planned_run(size: dict[str, Any], n_tokens: int) -> Planned:
    """A run of a size.

    Raises:
        ValueError: The size lacks its layers or its width.
    """
    model = {name: value for name, value in size.items() if name != "tokens"}
    if not model.keys() >= {"n_layer", "n_embd"}:
        raise ValueError(f"a size needs n_layer and n_embd: {model}")
    return Planned(f"{model['n_layer']}x{model['n_embd']}-{n_tokens}", model, n_tokens)


def train_all(planned: list[Planned], common: dict[str, Any], folder: Path) -> list[Run]:
    """Train one run after the other, and say what has come of each."""
    print_above_bar(f"{len(planned)} runs, in {folder}", sys.stderr)
    runs = []
    with progress_bar("training", len(planned)) as advance:
        for i, one in enumerate(planned, start=1):
            done = train(one, common, folder)
            learnt = f"{done.n_parameters:>10,} parameters  val loss {done.loss:.4f}"
            print_above_bar(f"run {f'{i}/{len(planned)}':>6}  {one.name:<16}{learnt}", sys.stderr)
            advance(1)
            runs.append(done)
    return runs


def train(planned: Planned, common: dict[str, Any], folder: Path) -> Run:
    """Train a run, or go on with it, or take it as it is: whatever is left to do.

    Raises:
        ValueError: The tokens are not enough for a step, `fit` does not like an option, or the folder has a
            run with others.
    """
    run_dir, config = folder / planned.name, folder / f"{planned.name}.yaml"
    settings = {**common, "model": {**common.get("model", {}), **planned.model}}
    try:
        tokens_per_step = settings["data"]["batch_size"] * settings["model"]["block_size"]
    except KeyError as error:
        raise ValueError(f"fit must say how many tokens a step takes: {error} is missing") from error
    steps = planned.n_tokens // tokens_per_step
    if not steps:
        raise ValueError(f"{planned.n_tokens} tokens are less than a step, which takes {tokens_per_step}")
    content = json.dumps(settings, indent=1).encode()
    if not (run_dir / "last.ckpt").is_file():
        shutil.rmtree(run_dir, ignore_errors=True)  # a run that has saved nothing
        with atomic_write(config) as file:
            file.write(content)
        length = ["--trainer.max_steps", str(steps), "--eval_every", str(steps)]
        finish(["--config", str(config), *length, "--run_dir", str(run_dir)])
    elif not config.is_file() or config.read_bytes() != content:
        raise ValueError(f"{run_dir} is a run with other options: name another --run_dir")
    elif run_of(run_dir).step < steps:
        finish(["--ckpt_path", str(run_dir)])
    return run_of(run_dir)


@dataclass(frozen=True)
class Scaling:
    """A fitted law, the runs that it is of, and one that it is tried on."""

    fit: Fit
    runs: list[Run]
    held_out: Run | None

    @property
    def error(self) -> float | None:
        """By what share the law is wrong about the run that it has not seen."""
        if self.held_out is None:
            return None
        expected = self.fit.law.loss(self.held_out.n_parameters, self.held_out.n_tokens)
        return expected / self.held_out.loss - 1

    def frontier(self) -> list[dict[str, float]]:
        """The best that can be had for a number of FLOPs, from about those of the largest run on."""
        largest = max(run.flops for run in self.runs)
        rows = []
        for i in range(FRONTIER_STEPS):
            flops = 10.0 ** (math.floor(math.log10(largest)) + i)
            n_parameters, n_tokens = self.fit.law.optimal(flops)
            low, high = self.fit.interval(methodcaller("best_loss", flops))
            rows.append(
                {
                    "flops": flops,
                    "n_parameters": n_parameters,
                    "n_tokens": n_tokens,
                    "loss": self.fit.law.loss(n_parameters, n_tokens),
                    "loss_low": low,
                    "loss_high": high,
                }
            )
        return rows

    def to_dict(self) -> dict[str, Any]:
        """All of it as builtins."""
        held_out = None
        if self.held_out is not None:
            held_out = asdict(self.held_out) | {"error": self.error}
        runs = [asdict(run) for run in self.runs]
        return {**self.fit.to_dict(), "runs": runs, "held_out": held_out, "frontier": self.frontier()}

    def report(self, folder: Path) -> str:
        """What came of it, for people."""
        law = self.fit.law
        lines = [f"{'parameters':>12}{'tokens':>13}{'FLOPs':>10}{'val loss':>10}{'law':>9}"]
        for run in self.runs:
            expected = law.loss(run.n_parameters, run.n_tokens)
            costs = f"{run.n_parameters:>12,}{run.n_tokens:>13,}{run.flops:>10.1e}"
            lines.append(f"{costs}{run.loss:>10.4f}{expected:>9.4f}")
        lines += ["", "L(N, D) = E + A / N^alpha + B / D^beta, in nats per token"]
        for name, value in asdict(law).items():
            low, high = self.fit.interval(attrgetter(name))
            lines.append(f"  {name:<6}{value:>10.4g}  ({low:.4g} to {high:.4g})")
        lines += ["", f"{'FLOPs':>9}{'best N':>13}{'on tokens':>15}{'D/N':>7}{'loss':>8}"]
        for row in self.frontier():
            best = f"{row['n_parameters']:>13,.0f}{row['n_tokens']:>15,.0f}"
            ratio = row["n_tokens"] / row["n_parameters"]
            interval = f"({row['loss_low']:.3f} to {row['loss_high']:.3f})"
            lines.append(f"{row['flops']:>9.0e}{best}{ratio:>7.1f}{row['loss']:>8.3f}  {interval}")
        lines += ["", "in brackets what each lies between, with a confidence of 95 %"]
        if self.held_out is not None:
            run = self.held_out
            expected = law.loss(run.n_parameters, run.n_tokens)
            size = f"{run.n_parameters:,} parameters on {run.n_tokens:,} tokens"
            foretold = f"foretold {expected:.4f}, was {run.loss:.4f}: {self.error:+.1%}"
            lines += ["", f"held out: {size}: {foretold}"]
        return "\n".join([*lines, "", f"see it  {folder / 'scaling.png'}", f"use it  {folder / RESULT}"])
