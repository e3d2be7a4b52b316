"""`verify-resume`: check that a killed and resumed run is bit-identical to an uninterrupted one."""

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace

from lit_gpt_scratch.tools.fit_subprocess import finish_fit, run_fit, start_fit
from lit_gpt_scratch.training.checkpoint import read_checkpoint

# Compared parts of a checkpoint; the last two exist only if the run averages its weights.
COMPARED = (
    *("global_step", "state_dict", "optimizer_states", "evaluation", "callbacks"),
    *("current_model_state", "averaging_state"),
)
POLL_SECONDS = 0.002


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of `verify-resume`."""
    parser.add_argument("--config", type=str, required=True, help="Config of the run.")
    parser.add_argument(
        "--steps", type=int, default=40, help="Optimizer steps; the run is killed after half of them."
    )


def run(options: Namespace) -> None:
    """Train once without interruption and once with a kill and a resume, and compare the last checkpoints.

    Raises:
        ValueError: There are too few steps, or the config is invalid.
        RuntimeError: The checkpoints differ, or a run failed.
    """
    if options.steps < 2:
        raise ValueError(f"steps must be at least 2, not {options.steps}")
    if not Path(options.config).expanduser().is_file():
        raise ValueError(f"no such config: {options.config}")
    half = options.steps // 2
    length = ["--trainer.max_steps", options.steps, "--save_every", half, "--eval_every", options.steps]
    fit = ["--config", options.config, *map(str, length)]
    with tempfile.TemporaryDirectory() as folder:
        uninterrupted, killed = Path(folder) / "straight", Path(folder) / "killed"
        print(f"straight  {options.steps} steps", flush=True)
        run_fit([*fit, "--run_dir", str(uninterrupted)])
        print(f"killed    after step {half}", flush=True)
        kill_after_save([*fit, "--run_dir", str(killed)], killed / "last.ckpt")
        print(f"resumed   to step {options.steps}", flush=True)
        run_fit(["--ckpt_path", str(killed)])
        one, other = (read_checkpoint(run_dir / "last.ckpt") for run_dir in (uninterrupted, killed))
        for part in COMPARED:
            if found := first_difference(one.get(part), other.get(part), part):
                raise RuntimeError(f"the resumed run is not the same: {found}")
    n_tensors = len(one["state_dict"])
    print(f"equal     to the last bit: {n_tensors} tensors of weights, the optimizer's state, all losses")


def kill_after_save(arguments: list[str], checkpoint: Path) -> None:
    """Run `fit` until the file `checkpoint` exists, then kill the process.

    Raises:
        ValueError: The input of `fit` is invalid, or `fit` ended before the kill.
        RuntimeError: `fit` failed.
    """
    process = start_fit(arguments)
    try:
        while process.poll() is None and not checkpoint.exists():
            time.sleep(POLL_SECONDS)
        has_ended = process.poll() is not None
    finally:
        process.kill()
    if has_ended:
        finish_fit(process)  # raises the error of a run that failed
        raise ValueError("the run was over before it could be killed: give more --steps")
    process.communicate()


def first_difference(one: Any, other: Any, name: str) -> str | None:
    """Return a description of the first difference between the same part of two checkpoints, or None.

    Args:
        one: The part in one checkpoint.
        other: The part in the other checkpoint.
        name: Name of the part, for the description.
    """
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if one.shape != other.shape or one.dtype != other.dtype:
            return f"{name} is {tuple(one.shape)} and {tuple(other.shape)}"
        if torch.equal(*(tensor.flatten().view(torch.uint8) for tensor in (one, other))):
            return None
        return f"{name} differs by up to {float((one.double() - other.double()).abs().max()):.3g}"
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        inner = ((one[key], other[key], f"{name}.{key}") for key in one)
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        inner = ((*pair, f"{name}.{i}") for i, pair in enumerate(zip(one, other, strict=True)))
    else:
        return None if one == other else f"{name} is {one} and {other}"
    return next((found for parts in inner if (found := first_difference(*parts))), None)
