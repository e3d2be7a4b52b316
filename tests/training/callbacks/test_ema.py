"""Exponential moving average of the weights."""

from pathlib import Path

import torch

from helpers.checkpoints import last_checkpoint
from helpers.command_line import TINY, Run


def test_checkpoint_has_averaged_and_raw_weights(run: Run) -> None:
    common = [*TINY, "--trainer.max_steps", "2", "--save_every", "1", "--model.decay_steps", "20"]
    assert run("fit", *common, "--trainer.max_steps", "1", "--run_dir", "first").code == 0
    assert run("fit", *common, "--run_dir", "plain").code == 0
    assert (
        run("fit", *common, "--callbacks.ema", "true", "--ema.decay", "0.75", "--run_dir", "mean").code == 0
    )
    first, plain, mean = (last_checkpoint(name) for name in ("first", "plain", "mean"))
    for key, weights in plain["state_dict"].items():
        assert torch.equal(mean["current_model_state"][key], weights)
        expected = 0.75 * first["state_dict"][key] + 0.25 * weights
        torch.testing.assert_close(mean["state_dict"][key], expected, atol=1e-6, rtol=1e-5)
    assert mean["evaluation"]["val/loss"] != plain["evaluation"]["val/loss"]
    assert run("predict", "--ckpt_path", "mean", "--prompt", "To", "--max_new_tokens", "3").code == 0


def test_samples_are_of_the_averaged_weights(run: Run) -> None:
    options = ["--ema.decay", "0.99", "--samples.temperature", "1", "--samples.max_new_tokens", "20"]
    assert run("fit", *TINY, *options, "--model.learning_rate", "0.02", "--run_dir", "r").code == 0
    sample = Path("r/samples.md").read_text().split("## Step 20")[1].splitlines()[2:]
    predict = ["predict", "--ckpt_path", "r/last.ckpt", "--seed", "1", "--max_new_tokens", "20"]
    averaged = run(*predict, "--temperature", "1").out
    text = "".join(line.removeprefix("    ") for line in sample)
    assert text.strip() == averaged.replace("\n", "").strip()
