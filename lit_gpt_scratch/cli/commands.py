"""The commands that use Lightning's Trainer: fit, validate, test and predict."""

import logging
import os
import re
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lit_gpt_scratch import PROGRAM
from lit_gpt_scratch.cli.checks import check_data, check_steps_left
from lit_gpt_scratch.cli.run import Run, load_weights, make_fit_trainer, make_trainer, read_run
from lit_gpt_scratch.generation.predict import PredictOptions, predict
from lit_gpt_scratch.training.checkpoint import read_checkpoint
from lit_gpt_scratch.training.run_folder import (
    RUN_DIR_VARIABLE,
    create_run_folder,
    remove_run_folder,
    shell_path,
)

log = logging.getLogger(__name__)

LOST_PEER = re.compile(r"(?i)connection (reset|closed) by peer|broken pipe|remote process exited")


def fit(args: list[str]) -> None:
    """Train a model, or go on with a run.

    Raises:
        ValueError: An option is wrong.
        SystemExit: A signal stopped the run; 128 and its number.
    """
    run = read_run("fit", args)
    prepare(run)  # before anything is written
    check_steps_left(run.start, run.config.trainer.max_steps)
    if not run.start.is_resume:
        load_weights(run)
    train(run, is_temporary=bool(run.config.trainer.fast_dev_run))
    run.stop.exit_if_received()


def prepare(run: Run) -> None:
    """Load the data of a command, compare them with the checkpoint, and build the network for them.

    Raises:
        ValueError: Text or tokenizer are wrong, or differ from those of the run that is resumed.
    """
    run.data.load(run.command)
    check_data(run.data, run.start, run.command)
    run.model.build_gpt(vocab_size=run.data.vocab_size, block_size=run.data.block_size)


def train(
    run: Run, is_temporary: bool = False, extra: Sequence[Callback] = (), is_silent: bool = False
) -> Trainer:
    """Run training in its folder; a run that never took a step leaves no folder.

    Args:
        run: The run.
        is_temporary: Train in a folder that is removed afterwards.
        extra: Further callbacks.
        is_silent: Print nothing.

    Raises:
        RuntimeError: Training failed, and not by a mistake in the options.
        SystemExit: A signal ended the program.
    """
    run_dir: Path | None = None
    trainer: Trainer | None = None
    try:
        with run.stop.handling_signals():
            run_dir = take_run_dir(run, is_temporary)
            trainer = make_fit_trainer(run, run_dir, extra, is_silent)
            trainer.fit(run.model, run.data, ckpt_path=run.start.path if run.start.is_resume else None)
        if run.stop.received is not None and not is_temporary:
            print_how_to_resume(run_dir)
        return trainer
    except BaseException as error:
        has_begun = trainer is not None and trainer.global_step > run.start.step
        if run_dir is not None and has_begun and not is_temporary:
            print_how_to_resume(run_dir)
        if trainer is not None and isinstance(error, SystemExit) and trainer.strategy.launcher is not None:
            cast(Any, trainer.strategy.launcher).kill(signal.SIGKILL)  # the processes of other devices
        if trainer is not None and trainer.world_size > 1 and LOST_PEER.search(str(error)):
            raise RuntimeError("the process of another device ended before this one") from error
        if has_begun and isinstance(error, ValueError | MisconfigurationException):
            raise RuntimeError(str(error)) from error  # no mistake in the options
        raise
    finally:
        is_new = run_dir is not None and run_dir != run.start.run_dir
        never_began = trainer is None or trainer.global_step <= run.start.step
        if run_dir is not None and is_new and (never_began or is_temporary) and is_rank_zero():
            remove_run_folder(run_dir)


def take_run_dir(run: Run, is_temporary: bool) -> Path:
    """Return the folder of a run: that of the resumed run, or a new one, taken for it alone.

    Raises:
        ValueError: The folder cannot be made.
    """
    if not is_rank_zero():
        return Path(os.environ.get(RUN_DIR_VARIABLE, run.config.run_dir))
    if is_temporary:
        run_dir = Path(tempfile.mkdtemp())
    elif run.start.run_dir is not None:
        run_dir = run.start.run_dir
    else:
        wanted = Path(run.config.run_dir).expanduser()
        run_dir = create_run_folder(wanted)
        if wanted.name and run_dir != wanted:
            log.warning("%s is taken: this run goes to %s", wanted, run_dir)
    os.environ[RUN_DIR_VARIABLE] = str(run_dir)
    return run_dir


def is_rank_zero() -> bool:
    """Return whether this is the process that writes."""
    return cast(Any, rank_zero_only).rank == 0


def print_how_to_resume(run_dir: Path) -> None:
    """Print the command that resumes a stopped run, if it has saved a checkpoint."""
    last = run_dir / "last.ckpt"
    if last.is_file():
        try:
            step = read_checkpoint(last, mmap=True)["global_step"]
        except ValueError:  # the error that ended the run is the one to report
            return
        folder = shell_path(run_dir)
        log.warning("stopped; step %s is saved, go on with: %s fit --ckpt_path %s", step, PROGRAM, folder)


def validate(args: list[str]) -> None:
    """Print loss, perplexity and bits per byte of a checkpoint on the validation text.

    Raises:
        ValueError: An option is wrong.
    """
    run = read_run("validate", args)
    prepare(run)
    trainer = make_trainer(run)
    with run.stop.handling_signals():
        trainer.validate(run.model, run.data, ckpt_path=run.start.path, verbose=False)
    print_results(run, trainer, run.data.describe_validation())


def test(args: list[str]) -> None:
    """Print the same numbers for the test text, or for the validation text where there is none.

    Raises:
        ValueError: An option is wrong.
    """
    run = read_run("test", args)
    prepare(run)
    trainer = make_trainer(run)
    with run.stop.handling_signals():
        trainer.test(run.model, run.data, ckpt_path=run.start.path, verbose=False)
    if (corpus := run.data.corpora.get("test")) is not None:
        print_results(run, trainer, corpus.name)
    else:
        whole = run.data.corpora["val"].name
        part = whole if run.data.val_source is not None else f"the validation part of {whole}"
        print_results(run, trainer, f"{part}: there is no data.test_corpus")


def print_results(run: Run, trainer: Trainer, text: str) -> None:
    """Print the metrics of an evaluation."""
    if not trainer.is_global_zero:
        return
    print(f"text              {text}")
    if run.start.checkpoint is not None:
        print(f"checkpoint        {run.start.path}, step {run.start.checkpoint['global_step']}")
    for name, value in sorted(trainer.callback_metrics.items()):
        print(f"{name:<17} {value:.6f}")


def write_text(args: list[str]) -> None:
    """Write text with a checkpoint to standard output, and nothing else there: the command `predict`.

    Raises:
        ValueError: An option is wrong.
    """
    run = read_run("predict", args)
    options = {name: getattr(run.config, name) for name in PredictOptions.__dataclass_fields__}
    prepare(run)
    load_weights(run)
    gpt = run.model.gpt.to(make_trainer(run).strategy.root_device)
    predict(gpt, run.data.tokenizer, run.config.prompt, PredictOptions(**options))


COMMANDS = {"fit": fit, "validate": validate, "test": test, "predict": write_text}
