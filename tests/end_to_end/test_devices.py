"""Runs on two devices, with replicated (ddp) or sharded (fsdp) weights, equal runs on one."""

import re
from pathlib import Path

import pytest
import torch

from helpers.checkpoints import last_checkpoint
from helpers.command_line import ONE_DEVICE, TINY, Run, run_process, two_devices
from helpers.events import scalars
from helpers.precision import BF16_TOLERANCE

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_bfloat16_gradients_on_two_devices_equal_those_on_one_within_rounding(
    run: Run, strategy: str
) -> None:
    """AdamW's first moment after one step is the gradient times a constant."""
    common = ["fit", *TINY, "--precision", "bf16-mixed", "--trainer.max_steps", "1"]
    assert run(*common, *ONE_DEVICE, "--trainer.accelerator", "cpu", "--run_dir", "one").code == 0
    done = run_process(*common, *two_devices(strategy), "--run_dir", "two")
    assert done.returncode == 0, done.stderr
    one, two = (last_checkpoint(folder)["optimizer_states"][0]["state"] for folder in ("one", "two"))
    assert one.keys() == two.keys()
    for number in one:
        first, second = one[number]["exp_avg"], two[number]["exp_avg"]
        assert (first - second).norm() < BF16_TOLERANCE * first.norm(), number


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_training_on_two_devices_equals_training_on_one(run: Run, strategy: str) -> None:
    common = ["fit", *TINY, "--trainer.max_steps", "6", "--eval_every", "3", "--trainer.accelerator", "cpu"]
    common += ["--trainer.log_every_n_steps", "1", "--step_control.max_norm", "null"]
    common += ["--callbacks.inspection", "true"]
    assert run(*common, "--run_dir", "one").code == 0
    two = [*two_devices(strategy), "--data.micro_batch_size", "2"]
    done = run_process(*common, *two, "--run_dir", "two")
    assert done.returncode == 0, done.stderr
    assert not list(Path().glob("two-*"))  # both processes use one folder
    one, other = last_checkpoint("one"), last_checkpoint("two")
    torch.testing.assert_close(one["state_dict"], other["state_dict"], atol=1e-6, rtol=0)
    # AdamW's first moment is a running mean of gradients, in which a new one has a weight of 0.1.
    moments = [each["optimizer_states"][0]["state"] for each in (one, other)]
    torch.testing.assert_close(*moments, atol=1e-7, rtol=0)
    assert one["evaluation"] == pytest.approx(other["evaluation"], abs=1e-6)
    for tag in ("train/loss", "train/grad_norm", "val/loss"):  # each step is logged once
        assert scalars(Path("one"), tag) == pytest.approx(scalars(Path("two"), tag), abs=1e-5), tag
    assert Path("one/samples.md").read_text() == Path("two/samples.md").read_text()


def test_run_resumes_from_one_device_to_sharded_and_back(run: Run) -> None:
    common = ["fit", *TINY, "--eval_every", "6", "--model.activation_checkpointing", "true"]
    common += ["--model.decay_steps", "18"]
    assert run(*common, "--run_dir", "straight", "--trainer.max_steps", "18").code == 0
    sharded = two_devices("fsdp")
    assert run_process(*common, *sharded, "--run_dir", "resumed", "--trainer.max_steps", "6").returncode == 0
    assert run("fit", "--ckpt_path", "resumed", *ONE_DEVICE, "--trainer.max_steps", "12").code == 0
    done = run_process("fit", "--ckpt_path", "resumed", *sharded, "--trainer.max_steps", "18")
    assert done.returncode == 0, done.stderr
    assert "changed trainer.strategy auto -> fsdp, trainer.devices 1 -> 2" in done.stdout
    straight, resumed = last_checkpoint("straight"), last_checkpoint("resumed")
    assert straight.keys() == resumed.keys()
    torch.testing.assert_close(straight["state_dict"], resumed["state_dict"], atol=1e-5, rtol=0)
    moments = [each["optimizer_states"][0]["state"] for each in (straight, resumed)]
    torch.testing.assert_close(*moments, atol=1e-6, rtol=0)
    assert run("predict", "--ckpt_path", "resumed", "--max_new_tokens", "5").code == 0
    unsharded = run("validate", "--ckpt_path", "resumed", *ONE_DEVICE).out
    sharded_run = run_process("validate", "--ckpt_path", "resumed", *sharded)
    numbers = r"\d+\.\d+"
    assert [float(n) for n in re.findall(numbers, sharded_run.stdout)] == pytest.approx(
        [float(n) for n in re.findall(numbers, unsharded)], abs=1e-4
    )


def test_sharded_run_skips_the_same_step_as_one_device(run: Run) -> None:
    # The weights hardly change, so about half of the batches have a loss above the mean of the last 100.
    options = ["--model.learning_rate", "1e-9", "--model.min_learning_rate", "0", "--step_control.loss_jump"]
    options += ["1e-3", "--step_control.max_skipped_steps", "1", "--save_every", "50"]
    options += ["--eval_every", "200", "--trainer.max_steps", "110"]
    one = run("fit", *TINY, *options, "--run_dir", "run")
    Path("run").rename("one")
    two = run_process("fit", *TINY, *options, *two_devices("fsdp"), "--run_dir", "run")
    assert one.code == two.returncode == 1
    assert "WARNING: skipped step 10" in one.err
    assert set(two.stderr.splitlines()) == set(one.err.splitlines())
    reports = [sorted(Path(folder, "spikes").iterdir()) for folder in ("one", "run")]
    assert [path.name for path in reports[0]] == [path.name for path in reports[1]]
    assert reports[0][0].read_text() == reports[1][0].read_text()
