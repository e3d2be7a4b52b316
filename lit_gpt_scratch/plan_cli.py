"""`plan`: `fit` for a few steps in a folder that is gone afterwards, and what follows from them."""

import json
import logging
import os
import tempfile
from argparse import ArgumentError, ArgumentParser
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import Callback, Trainer

from lit_gpt_scratch import PROGRAM, TOOL_COMMANDS
from lit_gpt_scratch.data.datamodule import TextDataModule
from lit_gpt_scratch.data.patience import patience
from lit_gpt_scratch.lightning_cli import LitGPTCLI
from lit_gpt_scratch.tools.plan import LAW, make_plan, report
from lit_gpt_scratch.tools.stopwatch import MOST_STEPS, Stopwatch, peak_bytes
from lit_gpt_scratch.training import callbacks
from lit_gpt_scratch.training.ending import end
from lit_gpt_scratch.training.event_logger import run_loggers
from lit_gpt_scratch.training.module import LitGPT
from lit_gpt_scratch.training.run_folder import RUN_DIR_VARIABLE

log = logging.getLogger(__name__)

TALKATIVE = (callbacks.Progress, callbacks.Summary, callbacks.RunConfig)


def plan(args: list[str]) -> None:
    """Run the command line of `plan`: options of its own, and those of `fit`.

    Raises:
        ValueError: An option is wrong.
    """
    usage = f"{PROGRAM} plan [options of plan] [options of fit]"
    description = f"{TOOL_COMMANDS['plan']}."
    parser = ArgumentParser(
        "plan", usage=usage, description=description, allow_abbrev=False, exit_on_error=False
    )
    parser.add_argument("--law", default=LAW, help="What `scale` has fitted, to foretell the loss.")
    parser.add_argument(
        "--no_measure", action="store_true", help="Time no steps: only what follows from numbers."
    )
    parser.add_argument("--json", action="store_true", help="Print JSON.")
    parser.epilog = f"The options of fit are listed by {PROGRAM} fit --help."
    try:
        own, others = parser.parse_known_args(args)
    except ArgumentError as error:
        raise ValueError(str(error)) from error
    if any(arg.split("=")[0] in ("--resume", "--ckpt_path") for arg in others):
        raise ValueError("plan is for a new run: leave --resume and --ckpt_path out")
    if own.law != LAW and not Path(own.law).is_file():
        raise ValueError(f"no such law: {own.law}")
    PlanCLI.law, PlanCLI.measures, PlanCLI.as_json = Path(own.law), not own.no_measure, own.json
    PlanCLI(["fit", *others])


class PlanCLI(LitGPTCLI):
    """Makes all that `fit` makes, and trains for some seconds."""

    law = Path(LAW)
    measures = True
    as_json = False

    def _take_run_dir(self) -> Path:
        """A folder for the time being."""
        if cast(Any, rank_zero_only).rank == 0:
            os.environ[RUN_DIR_VARIABLE] = tempfile.mkdtemp()
        return Path(os.environ[RUN_DIR_VARIABLE])

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        quiet = [callback for callback in callbacks if not isinstance(callback, TALKATIVE)]
        reasons = self._get(self.config_init, "summary").reasons
        self.stopwatch = Stopwatch("compiled" in reasons and config["accelerator"] in ("auto", "cpu"))
        return super()._instantiate_trainer(
            {**config, "enable_progress_bar": False, "logger": run_loggers(self.run_dir, None)},
            [*quiet, self.stopwatch],
        )

    def fit(self, model: LitGPT, datamodule: TextDataModule, ckpt_path: str | None = None) -> None:
        """Train for some steps, and print the plan."""
        steps, measured = self.trainer.max_steps, None
        stop = self._get(self.config_init, "graceful_stop")
        try:
            if steps < 1:
                raise ValueError("a plan needs an end: set trainer.max_steps")
            if self.measures:
                n_timed = min(steps, self.stopwatch.n_first + MOST_STEPS)
                with patience("timing some steps", n_timed) as advance:
                    self.stopwatch.advance = advance
                    stop.watch_over_start(self.trainer, self._give_up_run_dir)
                    self.trainer.fit(model, datamodule)
                measured = self.stopwatch.result(peak_bytes(self.trainer.strategy.root_device))
        except BaseException as error:
            end(error, stop.asked_by, self.trainer.world_size, has_begun=False)
            raise
        finally:
            self._give_up_run_dir()
        if not self.trainer.is_global_zero:
            return
        eval_every = self._get(self.config, "eval_every")
        made = make_plan(model, datamodule, steps, eval_every, measured, self.law)
        print(json.dumps(asdict(made), indent=1) if self.as_json else report(made, self.law))
        for warning in made.warnings:
            log.warning("%s", warning)
