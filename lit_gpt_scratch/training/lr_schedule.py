"""Learning rates as pure functions of the step."""

import math
from typing import Literal

Schedule = Literal["cosine", "linear", "wsd", "constant"]

WSD_DECAY = 0.2  # fraction of the steps in which wsd decays (Hägele et al. 2024: 10 to 20 % are enough)


def check_schedule(
    learning_rate: float, min_learning_rate: float, warmup_steps: int, decay_steps: int | None
) -> None:
    """Check the options of a learning-rate schedule.

    Raises:
        ValueError: An option is out of range.
    """
    if not learning_rate > 0 or not 0 <= min_learning_rate <= learning_rate:
        raise ValueError(
            f"model.learning_rate ({learning_rate}) must be above 0 and model.min_learning_rate "
            f"({min_learning_rate}) between 0 and model.learning_rate"
        )
    if warmup_steps < 0:
        raise ValueError(f"model.warmup_steps must not be negative, but is {warmup_steps}")
    if decay_steps is not None and not warmup_steps <= decay_steps:
        raise ValueError(f"model.decay_steps ({decay_steps}) must not be below warmup_steps ({warmup_steps})")


def learning_rate(
    schedule: Schedule, step: int, peak: float, floor: float, warmup_steps: int, decay_steps: int
) -> float:
    """Return the learning rate of a step, counted from 0: linear warmup to `peak`, then decay to `floor`.

    Warmup starts above 0, so that step 0 changes the weights. The learning rate is `peak` at step
    `warmup_steps`, and `floor` from step `decay_steps` on. The schedules differ in the decay:

    - cosine: half a cosine (Loshchilov & Hutter 2017, "SGDR", without restarts)
    - linear: a straight line
    - wsd: constant until a fifth of `decay_steps` remains, then a straight line (Hu et al. 2024, "MiniCPM")
    - constant: no decay
    """
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    if schedule == "constant":
        return peak
    if step >= decay_steps:
        return floor
    start = max(warmup_steps, decay_steps * (1 - WSD_DECAY)) if schedule == "wsd" else warmup_steps
    progress = max(0.0, (step - start) / (decay_steps - start))
    if schedule == "cosine":
        return floor + 0.5 * (peak - floor) * (1 + math.cos(math.pi * progress))
    return peak + (floor - peak) * progress


def warmup_warning(warmup_steps: int, max_steps: int) -> str | None:
    """Return a warning if a run ends before its learning rate decays; None otherwise."""
    if not 0 < max_steps <= warmup_steps:
        return None
    return f"{warmup_steps} steps of warmup leave none of {max_steps} for decay: lower model.warmup_steps"
