"""The command `plan`: train a few steps in a temporary folder, and print estimates of the whole run."""

import json
import logging
from argparse import ArgumentError, ArgumentParser, Namespace
from pathlib import Path

from lit_gpt_scratch import COMMANDS, PROGRAM
from lit_gpt_scratch.cli.commands import is_rank_zero, train
from lit_gpt_scratch.cli.run import Run, load_weights, prepare, read_run
from lit_gpt_scratch.data.progress_bar import status_line
from lit_gpt_scratch.planning.estimates import format_plan, make_plan
from lit_gpt_scratch.planning.stopwatch import Measurement, Stopwatch

log = logging.getLogger(__name__)

LAW = "checkpoints/scaling/scaling.json"


def plan(args: list[str]) -> None:
    """Print estimates of a run's time, memory and final loss; `args` are options of `plan` and of `fit`.

    Raises:
        ValueError: An option is invalid.
        SystemExit: A signal stopped the command; the exit code is 128 + the signal's number.
    """
    plan_options, fit_args = parse_plan_options(args)
    run = read_run("fit", fit_args)
    if run.start.is_resume:
        raise ValueError("plan is for a new run: leave --ckpt_path out")
    steps, law = run.config.trainer.max_steps, Path(plan_options.law)
    if steps < 1:
        raise ValueError("plan needs a number of steps: set trainer.max_steps")
    prepare(run)
    load_weights(run)
    measured = None if plan_options.no_measure else measure(run)
    if not is_rank_zero():
        return
    estimates = make_plan(run.model, run.datamodule, steps, run.config.eval_every, measured, law)
    print(json.dumps(estimates, indent=1) if plan_options.json else format_plan(estimates, law))
    for warning in estimates["warnings"]:
        log.warning("%s", warning)


def parse_plan_options(args: list[str]) -> tuple[Namespace, list[str]]:
    """Return the options of `plan`, and the remaining arguments, which are options of `fit`.

    Raises:
        ValueError: An option is invalid.
    """
    parser = ArgumentParser(
        "plan",
        usage=f"{PROGRAM} plan [options of plan] [options of fit]",
        description=f"{COMMANDS['plan'].summary}.",
        epilog=f"The options of fit are listed by {PROGRAM} fit --help.",
        allow_abbrev=False,
        exit_on_error=False,
    )
    add = parser.add_argument
    add("--law", default=LAW, help="File with a scaling law fitted by `scale`, to estimate the loss.")
    add("--no_measure", action="store_true", help="Run no steps, and estimate neither time nor memory.")
    add("--json", action="store_true", help="Print JSON.")
    try:
        plan_options, others = parser.parse_known_args(args)
    except ArgumentError as error:
        raise ValueError(str(error)) from error
    if plan_options.law != LAW and not Path(plan_options.law).is_file():
        raise ValueError(f"no such law: {plan_options.law}")
    return plan_options, others


def measure(run: Run) -> Measurement:
    """Train for a few steps, and return their time and memory."""
    stopwatch = Stopwatch()
    with status_line("timing some steps ..."):
        trainer = train(run, stopwatch)
    run.stop.exit_if_received()
    return stopwatch.result(trainer.strategy.root_device)
