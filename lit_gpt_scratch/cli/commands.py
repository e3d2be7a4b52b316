"""The commands that train or use a model with Lightning: fit, validate, test and predict."""

import logging
import re
import shutil
import signal
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, cast

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lit_gpt_scratch import PROGRAM
from lit_gpt_scratch.cli.run import Run, load_weights, make_fit_trainer, make_trainer, prepare, read_run
from lit_gpt_scratch.generation.predict import PredictOptions, print_continuations
from lit_gpt_scratch.training.checkpoint import read_checkpoint
from lit_gpt_scratch.training.run_folder import create_run_folder, shell_path

log = logging.getLogger(__name__)

# Errors of collective operations after the process of another device has ended.
LOST_PEER = re.compile(r"(?i)connection (reset|closed) by peer|broken pipe|remote process exited")


def fit(args: list[str]) -> None:
    """Train a model, or resume a run.

    Raises:
        ValueError: An option is invalid.
        SystemExit: A signal stopped the run; the exit code is 128 + the signal's number.
    """
    run = read_run("fit", args)
    prepare(run)  # before anything is written
    max_steps, step = run.config.trainer.max_steps, run.start.step
    if 0 < max_steps <= step:
        raise ValueError(f"step {step} is reached and trainer.max_steps is {max_steps}: give a larger one")
    if not run.start.is_resume:
        load_weights(run)
    train(run)
    run.stop.exit_if_received()


def train(run: Run, stopwatch: Callback | None = None) -> Trainer:
    """Train the model of a run in its run folder, and return the Trainer.

    A new run folder is removed if no step was taken. With `trainer.fast_dev_run` or a stopwatch, the folder
    is temporary.

    Args:
        run: Options, model and data.
        stopwatch: Callback that times the first steps and then stops the run; such a run prints nothing.

    Raises:
        RuntimeError: Training failed after at least one step.
        SystemExit: A signal ended the program.
    """
    is_temporary = stopwatch is not None or bool(run.config.trainer.fast_dev_run)
    run_dir: Path | None = None
    trainer: Trainer | None = None
    try:
        with run.stop.handling_signals():
            run_dir = prepare_run_dir(run, is_temporary)
            trainer = make_fit_trainer(run, run_dir, stopwatch)
            trainer.fit(run.model, run.datamodule, ckpt_path=run.start.path if run.start.is_resume else None)
        if run.stop.received is not None and not is_temporary:
            print_how_to_resume(run_dir)
        return trainer
    except BaseException as error:
        has_trained = trainer is not None and trainer.global_step > run.start.step
        if run_dir is not None and has_trained and not is_temporary:
            print_how_to_resume(run_dir)
        if trainer is not None and isinstance(error, SystemExit) and trainer.strategy.launcher is not None:
            cast(Any, trainer.strategy.launcher).kill(signal.SIGKILL)  # the processes of other devices
        if trainer is not None and trainer.world_size > 1 and LOST_PEER.search(str(error)):
            raise RuntimeError("the process of another device ended before this one") from error
        if has_trained and isinstance(error, ValueError | MisconfigurationException):
            raise RuntimeError(str(error)) from error  # invalid options fail before the first step
        raise
    finally:
        is_new = run_dir is not None and run_dir != run.start.run_dir
        took_no_step = trainer is None or trainer.global_step <= run.start.step
        if run_dir is not None and is_rank_zero():
            is_unused = is_new and took_no_step and not any(run_dir.glob("*.ckpt"))
            if is_temporary or is_unused:
                shutil.rmtree(run_dir, ignore_errors=True)


def prepare_run_dir(run: Run, is_temporary: bool) -> Path:
    """Return the run folder: a temporary folder, the folder of the resumed run, or a new, unused folder.

    Raises:
        ValueError: The folder cannot be created.
    """
    wanted = run.start.run_dir or Path(run.config.run_dir).expanduser()
    if not is_rank_zero():  # other ranks write nothing; rank 0 broadcasts the checkpoint folder
        return wanted
    if is_temporary:
        return Path(tempfile.mkdtemp())
    if run.start.run_dir is not None:
        return wanted
    run_dir = create_run_folder(wanted)
    if run_dir != wanted:
        log.warning("%s exists: this run is written to %s", wanted, run_dir)
    return run_dir


def is_rank_zero() -> bool:
    """Return whether this process has rank 0, the only rank that writes files."""
    return cast(Any, rank_zero_only).rank == 0


def print_how_to_resume(run_dir: Path) -> None:
    """Print the command that resumes a stopped run, if its run folder has a ``last.ckpt``."""
    last = run_dir / "last.ckpt"
    if not last.is_file():
        return
    try:
        step = read_checkpoint(last, mmap=True)["global_step"]
    except ValueError:  # the error that ended the run is reported instead
        return
    folder = shell_path(run_dir)
    log.warning("stopped; step %s is saved, resume with: %s fit --ckpt_path %s", step, PROGRAM, folder)


def print_evaluation(command: str, args: list[str]) -> None:
    """Print loss, perplexity and bits per byte of a checkpoint, for the commands `validate` and `test`.

    Args:
        command: Name of the command and of the Trainer's method: ``validate`` or ``test``.
        args: Arguments of the command.

    Raises:
        ValueError: An option is invalid.
    """
    run = read_run(command, args)
    prepare(run)
    trainer = make_trainer(run)
    with run.stop.handling_signals():
        getattr(trainer, command)(run.model, run.datamodule, ckpt_path=run.start.path, verbose=False)
    if not trainer.is_global_zero:
        return
    limited = f"limit_{'val' if command == 'validate' else command}_batches"
    limit = run.config.trainer.get(limited)
    is_whole = limit is None or (isinstance(limit, float) and limit == 1)  # the integer 1 is one batch
    part = "" if is_whole else f", a part of it: trainer.{limited} is {limit}"
    print(f"text              {run.datamodule.describe_evaluation(command)}{part}")
    if run.start.checkpoint is not None:
        print(f"checkpoint        {run.start.path}, step {run.start.checkpoint['global_step']}")
    for name, value in sorted(trainer.callback_metrics.items()):
        print(f"{name:<17} {value:.6f}")


validate = partial(print_evaluation, "validate")
test = partial(print_evaluation, "test")


def predict(args: list[str]) -> None:
    """Print continuations of prompts, generated with a checkpoint.

    Raises:
        ValueError: An option is invalid.
    """
    run = read_run("predict", args)
    names = PredictOptions.__dataclass_fields__
    options = PredictOptions(**{name: run.config[name] for name in names})
    prepare(run)
    load_weights(run)
    gpt = run.model.gpt.to(make_trainer(run).strategy.root_device)
    print_continuations(gpt, run.datamodule.tokenizer, run.config.prompt, options)
