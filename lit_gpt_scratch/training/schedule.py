"""Learning rates as pure functions of the step."""

import math
from typing import Literal

Schedule = Literal["cosine", "linear", "wsd", "constant"]

WSD_DECAY = 0.2  # the share of the steps that wsd decays in (Hägele et al. 2024 find 10 to 20 % enough)


def learning_rate(
    schedule: Schedule, step: int, peak: float, floor: float, warmup_steps: int, decay_steps: int
) -> float:
    """The learning rate of a step: a linear rise to `peak`, then down to `floor` as `schedule` says.

    The rise counts from 1, so that step 0 trains already; the peak is reached at `warmup_steps` and the floor
    at `decay_steps`, where it stays.

    - cosine: half a cosine (Loshchilov & Hutter 2017, "SGDR", without restarts)
    - linear: a straight line
    - wsd: warmup, stable, decay: the peak until a fifth of the steps is left, then a straight line (Hu et al.
      2024, "MiniCPM")
    - constant: the peak to the end
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
