"""Steps that would harm a run are left out, and said."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, Run
from test_resume import same

from lit_gpt_scratch.training import module

ARGS = [
    "--trainer.max_steps",
    "12",
    "--eval_every",
    "6",
    "--save_every",
    "3",
    "--trainer.log_every_n_steps",
    "1",
]

RARE = ["--save_every", "4", "--eval_every", "99"]


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the losses of some steps, counted from 1, be multiplied by a number."""

    def spoil_steps(steps: range | list[int], factor: float) -> None:
        real = module.LitGPT.training_step
        real_loss = module.next_token_loss
        now = 0

        def training_step(self: module.LitGPT, *args: Any) -> None:
            nonlocal now
            now = self.global_step + 1
            real(self, *args)

        def loss(*args: Any) -> torch.Tensor:
            return real_loss(*args) * (factor if now in steps else 1)

        monkeypatch.setattr(module.LitGPT, "training_step", training_step)
        monkeypatch.setattr(module, "next_token_loss", loss)

    return spoil_steps


def weights(folder: str) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(Path(folder) / "last.ckpt", weights_only=True)["state_dict"]
    return state


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_step_that_is_no_number_is_left_out(run: Run, spoil: Any, factor: float, optimizer: str) -> None:
    args = [*TINY, *ARGS, "--model.optimizer", optimizer, "--model.decay_steps", "12"]
    assert run("fit", *args, "--trainer.max_steps", "5", "--run_dir", "before").code == 0
    spoil([6], factor)
    assert run("fit", *args, "--trainer.max_steps", "6", "--run_dir", "after").code == 0
    before, after = (torch.load(Path(name) / "last.ckpt", weights_only=True) for name in ("before", "after"))
    assert same(before["state_dict"], after["state_dict"])
    assert same(before["optimizer_states"][0]["state"], after["optimizer_states"][0]["state"])
    assert after["global_step"] == 6


def test_what_was_left_out_is_written_down(run: Run, spoil: Any) -> None:
    spoil([6], float("nan"))
    done = run("fit", *TINY, *ARGS, "--run_dir", "r")
    assert done.code == 0
    assert done.err == "WARNING: step 6 is left out: its loss is nan; its text is in r/spikes/step-6.md\n"
    report = Path("r/spikes/step-6.md").read_text()
    assert report.startswith("# Step 6: its loss is nan\n")
    assert "| gpt.wte.weight | nan |" in report
    config = torch.load("r/last.ckpt", weights_only=True)
    tokenizer = config["TextDataModule"]["tokenizer"]["chars"]
    text = report.split("## The text\n\n")[1]
    assert set(text) <= {*tokenizer, " ", "\n"}
    assert len(text.replace("    ", "").replace("\n", "")) > 100


def test_a_spike_is_what_is_far_above_the_usual(run: Run, spoil: Any) -> None:
    args = [*TINY, *ARGS, "--trainer.max_steps", "130", "--eval_every", "200", "--save_every", "200"]
    spoil([50, 120], 3.0)  # the first comes before it is known what is usual
    done = run("fit", *args, "--run_dir", "r")
    assert done.code == 0
    assert [path.name for path in Path("r/spikes").iterdir()] == ["step-120.md"]
    assert "step 120 is left out: its loss is" in done.err
    off = ["--guard.loss_jump", "null", "--guard.norm_ratio", "null", "--run_dir", "off"]
    assert run("fit", *args, *off).err == ""
    assert not Path("off/spikes").exists()
    done = run("fit", *args, "--guard.loss_jump", "null", "--guard.norm_ratio", "2", "--run_dir", "norms")
    assert "its gradient's norm is" in done.err


def test_stop_ends_the_run_before_the_step(run: Run, spoil: Any) -> None:
    spoil([5], float("nan"))
    failed = run("fit", *TINY, *ARGS, "--guard.on_spike", "stop", "--run_dir", "r")
    assert failed.code == 1
    assert failed.err.startswith("WARNING: stopped; step 4 is saved, go on with")
    assert failed.err.endswith("error: step 5: its loss is nan; its text is in r/spikes/step-5.md\n")
    assert run("fit", "--resume", "r", "--guard.on_spike", "skip").code == 0


def test_many_in_a_row_are_a_run_that_has_diverged(run: Run, spoil: Any) -> None:
    spoil(range(5, 99), float("nan"))
    failed = run("fit", *TINY, *ARGS, "--guard.patience", "3", "--run_dir", "r")
    assert failed.code == 1
    assert "error: 3 steps in a row, up to step 7, had to be left out: the run has diverged" in failed.err
    assert torch.load("r/last.ckpt", weights_only=True)["global_step"] == 6  # its weights are those of step 4


@pytest.mark.parametrize("ema", ["false", "true"])
def test_roll_back_takes_the_last_checkpoints_weights(run: Run, spoil: Any, ema: str) -> None:
    args = [
        *TINY,
        *ARGS,
        "--callbacks.ema",
        ema,
        "--save_every",
        "4",
        "--eval_every",
        "99",
        "--model.decay_steps",
        "12",
    ]
    assert run("fit", *args, "--trainer.max_steps", "4", "--run_dir", "four").code == 0
    spoil([6, 7], float("nan"))
    back = ["--guard.on_spike", "rollback", "--guard.patience", "2"]
    done = run("fit", *args, *back, "--trainer.max_steps", "7", "--run_dir", "seven")
    assert done.code == 0
    assert done.err.endswith("WARNING: rolled back to the weights of step 4\n")
    four, seven = (torch.load(Path(name) / "last.ckpt", weights_only=True) for name in ("four", "seven"))
    part = "state_dict" if ema == "false" else "current_model_state"
    assert same(four[part], seven[part])
    assert same(four["optimizer_states"][0]["state"], seven["optimizer_states"][0]["state"])
    assert seven["global_step"] == 7


def test_roll_back_leaves_out_what_was_saved_amid_bad_steps(run: Run, spoil: Any) -> None:
    args = [*TINY, *ARGS, "--save_every", "1", "--eval_every", "4", "--model.decay_steps", "12"]
    assert run("fit", *args, "--trainer.max_steps", "4", "--run_dir", "four").code == 0
    spoil([6, 7], float("nan"))
    back = ["--guard.on_spike", "rollback", "--guard.patience", "2", "--trainer.max_steps", "7"]
    done = run("fit", *args, *back, "--run_dir", "seven")
    assert done.err.endswith("WARNING: rolled back to the weights of step 4\n")  # the best, not step 6
    assert same(weights("four"), weights("seven"))


def test_roll_back_does_not_go_on_for_ever(run: Run, spoil: Any) -> None:
    spoil(range(5, 99), float("nan"))
    back = [
        "--guard.on_spike",
        "rollback",
        "--guard.patience",
        "2",
        "--save_every",
        "4",
        "--eval_every",
        "99",
    ]
    failed = run("fit", *TINY, *ARGS, *back, "--run_dir", "r")
    assert failed.code == 1
    assert failed.err.count("rolled back") >= 1
    assert failed.err.endswith("it was rolled back once already\n")


def test_a_resumed_run_judges_alike(run: Run, spoil: Any) -> None:
    args = [*TINY, *ARGS, "--eval_every", "200", "--save_every", "200", "--model.decay_steps", "110"]
    spoil([105], 3.0)
    assert run("fit", *args, "--trainer.max_steps", "110", "--run_dir", "straight").code == 0
    assert run("fit", *args, "--trainer.max_steps", "100", "--run_dir", "parts").code == 0
    assert run("fit", "--resume", "parts", "--trainer.max_steps", "110").code == 0
    assert Path("parts/spikes/step-105.md").exists()
    assert same(weights("straight"), weights("parts"))
