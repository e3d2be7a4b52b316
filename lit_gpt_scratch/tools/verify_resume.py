"""`verify-resume`: proof, on the user's own machine, that a killed and resumed run is the same run."""

import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace

from lit_gpt_scratch.tools.fit_process import FIT, check, finish, fit_environment
from lit_gpt_scratch.training.checkpoint_io import read_checkpoint

OF_AN_AVERAGE = ("current_model_state", "averaging_state")  # of the weights, where there is one
COMPARED = ("global_step", "state_dict", "optimizer_states", "evaluation", "callbacks", *OF_AN_AVERAGE)
SECONDS_BETWEEN_LOOKS = 0.002


def add_arguments(parser: ArgumentParser) -> None:
    """The options of `verify-resume`."""
    parser.add_argument("--config", type=str, required=True, help="Config of the run to try.")
    parser.add_argument("--steps", type=int, default=40, help="Optimizer steps; it is killed after half.")


def run(options: Namespace) -> None:
    """Train straight, and once more with a kill in the middle, and compare.

    Raises:
        ValueError: There are too few steps, or the config is wrong.
        RuntimeError: The runs differ, or one of them failed.
    """
    if options.steps < 2:
        raise ValueError(f"steps must be at least 2, not {options.steps}")
    if not Path(options.config).expanduser().is_file():
        raise ValueError(f"no such config: {options.config}")
    half = options.steps // 2
    length = ["--trainer.max_steps", options.steps, "--save_every", half, "--eval_every", options.steps]
    fit = ["--config", options.config, *map(str, length)]
    with tempfile.TemporaryDirectory() as folder:
        straight, killed = Path(folder) / "straight", Path(folder) / "killed"
        print(f"straight  {options.steps} steps", flush=True)
        finish([*fit, "--run_dir", str(straight)])
        print(f"killed    after step {half}", flush=True)
        kill_after_save([*fit, "--run_dir", str(killed)], killed / "last.ckpt")
        print(f"resumed   to step {options.steps}", flush=True)
        finish(["--ckpt_path", str(killed)])
        one, other = (read_checkpoint(run_dir / "last.ckpt") for run_dir in (straight, killed))
        for part in COMPARED:
            if found := first_difference(one.get(part), other.get(part), part):
                raise RuntimeError(f"the resumed run is not the same: {found}")
    n_tensors = len(one["state_dict"])
    print(f"equal     to the last bit: {n_tensors} tensors of weights, the optimizer's state, all losses")


def kill_after_save(arguments: list[str], checkpoint: Path) -> None:
    """Run `fit` until it has written a checkpoint, and kill it.

    Raises:
        ValueError: It does not like its input, or is over too soon.
        RuntimeError: It fails.
    """
    with subprocess.Popen(
        [*FIT, *arguments],
        env=fit_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    ) as process:
        try:
            while process.poll() is None and not checkpoint.exists():
                time.sleep(SECONDS_BETWEEN_LOOKS)
        finally:
            process.kill()
        _, errors = process.communicate()
    if process.returncode == 0:
        raise ValueError("the run was over before it could be killed: give more --steps")
    if process.returncode > 0:
        check(process.returncode, errors)


def first_difference(one: Any, other: Any, name: str) -> str | None:
    """Where two parts of checkpoints first differ, in words; None if nowhere."""
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
