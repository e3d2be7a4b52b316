"""Time and memory of a run, measured on its first steps."""

import math
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_gpt_scratch import START_TIME
from lit_gpt_scratch.training.module import EAGER_STEPS, LitGPT

WARMUP_STEPS = 3  # steps before the timed ones; on a CPU with compiled blocks, EAGER_STEPS more
MIN_STEPS = 5  # minimum number of timed steps
MIN_SECONDS = 10.0  # minimum time of all timed steps, unless MAX_STEPS are reached first
MAX_STEPS = 30  # maximum number of timed steps


@dataclass(frozen=True)
class Measurement:
    """Time and memory of a short run."""

    n_steps: int
    elapsed_seconds: float  # time of the whole command, including its start
    step_seconds: float  # median time of an optimizer step after the warmup
    evaluation_seconds: float  # time of an evaluation, including its sample and saves
    peak_bytes: int  # peak memory of the GPU if there is one, else of the process

    def total_seconds(self, steps: int, eval_every: int) -> float:
        """Return the estimated seconds of a run of `steps` steps, evaluated every `eval_every` steps."""
        n_more_evaluations = math.ceil(steps / eval_every) - math.ceil(self.n_steps / eval_every)
        more_steps_seconds = (steps - self.n_steps) * self.step_seconds
        return self.elapsed_seconds + more_steps_seconds + n_more_evaluations * self.evaluation_seconds


class Stopwatch(Callback):
    """Measure the duration of training steps, stop the run, and measure the evaluation that ends it.

    After a warmup, steps are timed until there are MAX_STEPS timed steps, or at least MIN_STEPS timed steps
    with a total time above MIN_SECONDS.
    """

    def __init__(self) -> None:
        self.n_warmup = WARMUP_STEPS
        self.step_seconds: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Extend the warmup by the eager steps before compilation, if the blocks are compiled on a CPU."""
        if cast(LitGPT, pl_module).gpt.is_compiled and pl_module.device.type == "cpu":
            self.n_warmup += EAGER_STEPS

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Start timing a step."""
        self.started_seconds = now(pl_module.device)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Record the duration of the step, and stop the run after enough steps."""
        self.ended_seconds = now(pl_module.device)
        self.step_seconds.append(self.ended_seconds - self.started_seconds)
        timed = self.step_seconds[self.n_warmup :]
        if len(timed) >= MAX_STEPS or (len(timed) >= MIN_STEPS and sum(timed) > MIN_SECONDS):
            trainer.should_stop = True  # after an evaluation

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the duration of the evaluation that ends the run."""
        self.evaluation_seconds = now(pl_module.device) - self.ended_seconds

    def result(self, device: torch.device) -> Measurement:
        """Return the measurements of the run, which must have ended."""
        timed = self.step_seconds[self.n_warmup :] or self.step_seconds  # the run may end within its warmup
        return Measurement(
            n_steps=len(self.step_seconds),
            elapsed_seconds=time.perf_counter() - START_TIME,
            step_seconds=statistics.median(timed),
            evaluation_seconds=self.evaluation_seconds,
            peak_bytes=peak_bytes(device),
        )


def now(device: torch.device) -> float:
    """Wait until the device has finished its work, and return `time.perf_counter()`, in seconds."""
    torch.get_device_module(device).synchronize()
    return time.perf_counter()


def peak_bytes(device: torch.device) -> int:
    """Return the peak memory so far in bytes: GPU memory if `device` is a GPU, else this process's memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes on macOS, KiB on Linux
