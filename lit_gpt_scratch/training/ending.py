"""How a run ends that does not reach its last step: what is said, and the exit code."""

import logging
import re
import signal
import sys
from pathlib import Path

from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_gpt_scratch import PROGRAM
from lit_gpt_scratch.training.checkpoint_io import read_checkpoint
from lit_gpt_scratch.training.run_folder import shell_path

log = logging.getLogger(__name__)

LOST_PEER = re.compile(r"(?i)connection (reset|closed) by peer|broken pipe|remote process exited")


def say_how_to_go_on(run_dir: Path) -> None:
    """Name the command that resumes a run, if it has saved anything."""
    last = run_dir / "last.ckpt"
    if last.is_file():
        step = read_checkpoint(last, mmap=True)["global_step"]
        folder = shell_path(run_dir)
        log.warning("stopped; step %s is saved, go on with: %s fit --resume %s", step, PROGRAM, folder)


def end(error: BaseException, asked_by: signal.Signals | None, n_devices: int, has_begun: bool) -> None:
    """Exit as a program does that was stopped by a signal; else raise an error in words, if there are any.

    Args:
        error: What ended the run.
        asked_by: The signal that a stop was asked for with.
        n_devices: Of the run.
        has_begun: Whether it had taken a step.

    Raises:
        SystemExit: 128 and the signal's number.
        RuntimeError: What went wrong is not the user's mistake.
    """
    if isinstance(error, SIGTERMException):
        sys.exit(128 + (asked_by or signal.SIGTERM))
    if isinstance(error.__context__, KeyboardInterrupt):  # Lightning turns it into exit code 1
        sys.exit(128 + signal.SIGINT)
    if n_devices > 1 and LOST_PEER.search(str(error)):
        raise RuntimeError("the process of another device ended before this one") from error
    if isinstance(error, ValueError) and has_begun:  # not a mistake in the input
        raise RuntimeError(str(error)) from error
