"""What the parts of a run take, from a few of its steps."""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_gpt_scratch import STARTED_SECONDS
from lit_gpt_scratch.training.module import EAGER_STEPS, LitGPT

WARM_UP_STEPS = 3  # of eager code, and once more after compiling
FEWEST_STEPS = 5  # that are timed
MOST_STEPS = 30
ENOUGH_SECONDS = 10.0


@dataclass(frozen=True)
class Measured:
    """What some steps and an evaluation took.

    Args:
        before_seconds: Until the first step: the program's start, its text, the evaluation of step 0.
        step_seconds: An optimizer step, once it runs as it will.
        first_steps_extra_seconds: What the first steps take beyond that: they are compiled, for one.
        evaluation_seconds: An evaluation, with its sample and its saves.
        after_seconds: From the last evaluation to the end.
        peak_bytes: Of memory: the GPU's where there is one, else the process's.
    """

    before_seconds: float
    step_seconds: float
    first_steps_extra_seconds: float
    evaluation_seconds: float
    after_seconds: float
    peak_bytes: int

    def total_seconds(self, steps: int, n_evaluations: int) -> float:
        """The whole command of a run."""
        training = self.first_steps_extra_seconds + steps * self.step_seconds
        return self.before_seconds + training + n_evaluations * self.evaluation_seconds + self.after_seconds


class Stopwatch(Callback):
    """Takes the time of steps until there are enough of them, and ends the run with an evaluation."""

    def __init__(self) -> None:
        self.n_first = WARM_UP_STEPS  # steps that are not counted
        self.step_seconds: list[float] = []
        self.advance: Callable[[int], object] = lambda n_steps: None  # called with each step that is done

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """All that comes before the first step is over."""
        if cast(LitGPT, pl_module).gpt.is_compiled and pl_module.device.type == "cpu":
            self.n_first += EAGER_STEPS
        self.before_seconds = time.perf_counter() - STARTED_SECONDS
        self._mark(pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Start the clock."""
        self._mark(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Stop it, and the run if that was enough."""
        self.step_seconds.append(self._mark(pl_module))
        self.advance(1)
        timed = self.step_seconds[self.n_first :]
        enough = len(timed) >= FEWEST_STEPS and sum(timed) > ENOUGH_SECONDS
        if enough or len(timed) >= MOST_STEPS:
            trainer.should_stop = True  # after an evaluation

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last evaluation, its sample and its saves are over."""
        self.evaluation_seconds = self._mark(pl_module)

    def result(self, peak_bytes: int) -> Measured:
        """What was measured, once the run is over."""
        first, timed = self.step_seconds[: self.n_first], self.step_seconds[self.n_first :]
        step = statistics.median(timed or first)  # a run may be shorter than what does not count
        return Measured(
            before_seconds=self.before_seconds,
            step_seconds=step,
            first_steps_extra_seconds=max(0.0, sum(first) - len(first) * step),
            evaluation_seconds=self.evaluation_seconds,
            after_seconds=time.perf_counter() - self.marked_seconds,
            peak_bytes=peak_bytes,
        )

    def _mark(self, pl_module: LightningModule) -> float:
        """Seconds since it was last called."""
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        seconds = now - getattr(self, "marked_seconds", now)
        self.marked_seconds = now
        return seconds


def peak_bytes(device: torch.device) -> int:
    """Of memory, so far: the GPU's where there is one, else the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    kib = 1 if sys.platform == "darwin" else 1024  # of what macOS calls bytes and Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kib
