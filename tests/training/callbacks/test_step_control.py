"""Steps with a non-finite or unusually large loss or gradient are skipped."""

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.checkpoints import bit_identical, last_checkpoint
from helpers.command_line import TINY, Run
from helpers.events import events
from lit_gpt_scratch.data.corpus import HAMLET
from lit_gpt_scratch.training import module

ARGS = ["--trainer.max_steps", "12", "--eval_every", "6", "--save_every", "3"]
ARGS += ["--trainer.log_every_n_steps", "1"]


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that multiplies the losses of some steps, counted from 1, by a factor."""

    def spoil_steps(steps: range | list[int], factor: float) -> None:
        real = module.LitGPT.training_step
        real_loss = module.next_token_loss
        now = 0

        def training_step(self: module.LitGPT, *args: Any) -> torch.Tensor:
            nonlocal now
            now = self.global_step + 1
            return real(self, *args)

        def loss(*args: Any) -> torch.Tensor:
            return real_loss(*args) * (factor if now in steps else 1)

        monkeypatch.setattr(module.LitGPT, "training_step", training_step)
        monkeypatch.setattr(module, "next_token_loss", loss)

    return spoil_steps


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_nonfinite_step_changes_neither_weights_nor_optimizer(
    run: Run, spoil: Any, factor: float, optimizer: str
) -> None:
    args = [*TINY, *ARGS, "--model.optimizer", optimizer, "--model.decay_steps", "12"]
    assert run("fit", *args, "--trainer.max_steps", "5", "--run_dir", "before").code == 0
    spoil([6], factor)
    assert run("fit", *args, "--trainer.max_steps", "6", "--run_dir", "after").code == 0
    before, after = (last_checkpoint(name) for name in ("before", "after"))
    assert bit_identical(before["state_dict"], after["state_dict"])
    assert bit_identical(before["optimizer_states"][0]["state"], after["optimizer_states"][0]["state"])
    assert after["global_step"] == 6


def test_text_of_a_skipped_step_is_written(run: Run, spoil: Any) -> None:
    spoil([6], float("nan"))
    done = run("fit", *TINY, *ARGS, "--run_dir", "r")
    assert done.code == 0
    assert done.err == "WARNING: skipped step 6: loss is nan; details in r/spikes/step-6.md\n"
    report = Path("r/spikes/step-6.md").read_text()
    assert report.startswith("# Step 6: loss is nan\n\n    ")
    assert events("r").Tensors("spikes/text_summary")[0].tensor_proto.string_val[0].decode() == report
    text = report.partition("\n\n")[2].replace("    ", "")
    assert text.replace("\n", "")[:30] in HAMLET.replace("\n", "")
    assert len(text) > 200


def test_spike_far_above_the_running_mean_is_skipped(run: Run, spoil: Any) -> None:
    args = [*TINY, *ARGS, "--trainer.max_steps", "130", "--eval_every", "200", "--save_every", "200"]
    spoil([50, 120], 3.0)  # at step 50 there is no mean of 100 steps yet
    done = run("fit", *args, "--run_dir", "r")
    assert done.code == 0
    assert [path.name for path in Path("r/spikes").iterdir()] == ["step-120.md"]
    assert "skipped step 120: loss is" in done.err
    off = ["--step_control.loss_jump", "null", "--step_control.norm_ratio", "null", "--run_dir", "off"]
    assert run("fit", *args, *off).err == ""
    assert not Path("off/spikes").exists()
    norms = ["--step_control.loss_jump", "null", "--step_control.norm_ratio", "2", "--run_dir", "norms"]
    assert "gradient norm is" in run("fit", *args, *norms).err


@pytest.mark.parametrize(
    ("spoiled", "max_skipped_steps", "last_step", "saved_step"), [([5], 1, 5, 3), (range(5, 99), 3, 7, 6)]
)
def test_run_ends_after_max_skipped_steps(
    run: Run,
    spoil: Any,
    spoiled: range | list[int],
    max_skipped_steps: int,
    last_step: int,
    saved_step: int,
) -> None:
    spoil(spoiled, float("nan"))
    failed = run("fit", *TINY, *ARGS, "--step_control.max_skipped_steps", max_skipped_steps, "--run_dir", "r")
    assert failed.code == 1
    assert "WARNING: skipped step 5: loss is nan; details in r/spikes/step-5.md\n" in failed.err
    ended = f"consecutive skipped steps: {max_skipped_steps}, up to step {last_step}: the run has diverged"
    assert f"error: {ended}" in failed.err
    assert last_checkpoint("r")["global_step"] == saved_step
    assert run("fit", "--ckpt_path", "r", "--step_control.max_skipped_steps", "99").code == 0


def test_resumed_run_skips_the_same_steps(run: Run, spoil: Any) -> None:
    args = [*TINY, *ARGS, "--eval_every", "200", "--save_every", "200", "--model.decay_steps", "110"]
    spoil([105], 3.0)
    assert run("fit", *args, "--trainer.max_steps", "110", "--run_dir", "straight").code == 0
    assert run("fit", *args, "--trainer.max_steps", "100", "--run_dir", "parts").code == 0
    assert run("fit", "--ckpt_path", "parts", "--trainer.max_steps", "110").code == 0
    assert Path("parts/spikes/step-105.md").exists()
    assert bit_identical(last_checkpoint("straight")["state_dict"], last_checkpoint("parts")["state_dict"])
