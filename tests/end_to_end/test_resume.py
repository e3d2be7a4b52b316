"""Stopped and resumed runs equal uninterrupted ones, bit for bit."""

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.checkpoints import assert_bit_identical_runs, bit_identical, last_checkpoint
from helpers.command_line import LOG_EVERY_STEP, TINY, Run, run_process, start_process
from helpers.events import events, scalars
from helpers.marks import needs_compiler
from lit_gpt_scratch.data import download
from lit_gpt_scratch.data.corpus import HAMLET
from lit_gpt_scratch.tools.verify_resume import first_difference
from lit_gpt_scratch.training import module
from lit_gpt_scratch.training.lr_schedule import learning_rate
from lit_gpt_scratch.training.module import LitGPT

STEPS = ["--model.dropout", "0.2", "--model.decay_steps", "20", "--eval_every", "6", "--save_every", "4"]


@pytest.mark.parametrize(
    ("first_steps", "options"),
    [
        pytest.param(4, [], id="at a save"),
        pytest.param(5, [], id="between saves"),
        pytest.param(6, [], id="at an evaluation"),
        pytest.param(5, ["--precision", "bf16-mixed"], id="bfloat16"),
        pytest.param(4, ["--callbacks.ema", "true"], id="ema"),
        pytest.param(5, ["--compile", "true"], id="compiled", marks=[pytest.mark.slow, needs_compiler]),
    ],
)
def test_stopped_and_resumed_run_is_bit_identical(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, first_steps: int, options: list[str]
) -> None:
    monkeypatch.setattr(module, "EAGER_STEPS", 2)
    fit = ["fit", *TINY, *STEPS, *LOG_EVERY_STEP, *options]
    assert run(*fit, "--trainer.max_steps", 20, "--run_dir", "straight").code == 0
    assert run(*fit, "--trainer.max_steps", first_steps, "--run_dir", "parts").code == 0
    assert run("fit", "--ckpt_path", "parts", "--trainer.max_steps", 20).code == 0
    assert not list(tmp_path.glob("parts-*"))
    straight, parts = last_checkpoint("straight"), last_checkpoint("parts")
    for name in ("state_dict", "optimizer_states", "evaluation", "current_model_state"):
        assert first_difference(straight.get(name), parts.get(name), name) is None
    assert ("current_model_state" in parts) == ("--callbacks.ema" in options)
    assert scalars("straight", "train/loss") == scalars("parts", "train/loss")
    # The first part ends with an additional evaluation.
    assert scalars("straight", "val/loss").items() <= scalars("parts", "val/loss").items()


@pytest.mark.faults
@pytest.mark.parametrize(
    ("sent", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGUSR1, 138)],
)
def test_signal_saves_the_run_and_prints_the_resume_command(
    run: Run, sent: signal.Signals, code: int
) -> None:
    length = ["--trainer.max_steps", "3000", "--eval_every", "1000", "--save_every", "1000"]
    process = start_process("fit", *TINY, *length, "--run_dir", "stopped")
    assert process.stdout is not None
    while not process.stdout.readline().startswith("step    0"):
        assert process.poll() is None
    time.sleep(1)
    os.kill(process.pid, sent)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in err
    step = last_checkpoint("stopped")["global_step"]
    assert 0 < step < 3000
    assert (
        f"stopped; step {step} is saved, resume with: python -m lit_gpt_scratch fit --ckpt_path stopped"
        in err
    )
    assert run("fit", "--ckpt_path", "stopped", "--trainer.max_steps", step + 2).code == 0
    assert last_checkpoint("stopped")["global_step"] == step + 2


def test_resume_of_a_finished_run_exits_2(run: Run, tmp_path: Path) -> None:
    assert run("fit", *TINY, "--trainer.max_steps", "3", "--run_dir", "r").code == 0
    before = last_checkpoint("r")
    done = run("fit", "--ckpt_path", "r")
    assert done.code == 2
    assert done.err == "error: step 3 is reached and trainer.max_steps is 3: give a larger one\n"
    assert bit_identical(before["state_dict"], last_checkpoint("r")["state_dict"])


def test_failed_run_resumes_bit_identically(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def out_of_memory(*args: Any) -> torch.Tensor:
        nonlocal calls
        calls += torch.is_grad_enabled()
        if calls == 8:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return real(*args)

    real = module.next_token_loss
    monkeypatch.setattr(module, "next_token_loss", out_of_memory)
    args = ["--trainer.max_steps", "20", "--eval_every", "6", "--save_every", "3", *LOG_EVERY_STEP]
    args += ["--model.dropout", "0.2"]
    failed = run("fit", *TINY, *args, "--run_dir", "failed")
    assert failed.code == 1
    assert "error: DefaultCPUAllocator: can't allocate memory" in failed.err
    assert "step 6 is saved, resume with" in failed.err
    assert "Traceback" not in failed.err
    monkeypatch.setattr(module, "next_token_loss", real)
    assert run("fit", "--ckpt_path", "failed").code == 0
    assert run("fit", *TINY, *args, "--run_dir", "straight").code == 0
    assert_bit_identical_runs("straight", "failed")
    assert scalars("straight", "val/loss") == scalars("failed", "val/loss")


def test_failed_save_ends_the_run_and_keeps_the_last_checkpoint(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves, real = 0, torch.save

    def disk_fills_up(*args: Any, **options: Any) -> None:
        nonlocal saves
        saves += 1
        if saves > 2:
            raise OSError(28, "No space left on device")
        real(*args, **options)

    monkeypatch.setattr(torch, "save", disk_fills_up)
    failed = run("fit", *TINY, "--eval_every", "5", "--run_dir", "r")
    assert failed.code == 1
    assert failed.err.endswith(
        f"error: cannot write {Path('r').resolve()}/best.ckpt: No space left on device\n"
    )
    assert "step 5 is saved, resume with" in failed.err
    assert last_checkpoint("r")["global_step"] == 5
    monkeypatch.setattr(torch, "save", real)
    assert run("fit", "--ckpt_path", "r").code == 0
    assert run("fit", *TINY, "--eval_every", "5", "--run_dir", "straight").code == 0
    assert_bit_identical_runs("straight", "r")


@pytest.mark.parametrize("at_step", [6, 20])  # in the middle, and at the end
def test_signal_during_an_evaluation_stops_after_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, at_step: int
) -> None:
    real = LitGPT.validation_step

    def interrupted(self: LitGPT, *args: Any) -> None:
        if self.global_step == at_step and not self.trainer.sanity_checking and args[1] == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        real(self, *args)

    args = [*TINY, *STEPS, *LOG_EVERY_STEP, "--trainer.max_steps", "20"]
    assert run("fit", *args, "--run_dir", "straight").code == 0
    with monkeypatch.context() as patch:
        patch.setattr(LitGPT, "validation_step", interrupted)
        stopped = run("fit", *args, "--run_dir", "parts")
    if at_step < 20:
        assert stopped.code == 143
        assert "step 6 is saved" in stopped.err
        assert run("fit", "--ckpt_path", "parts").code == 0
    else:
        assert stopped.code == 143  # also after the last step
    assert_bit_identical_runs("straight", "parts")
    assert scalars("straight", "val/loss") == scalars("parts", "val/loss")


def test_rejected_resume_does_not_change_config_yaml(run: Run, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, "r")
    before = Path("r/config.yaml").read_bytes()
    for wrong in (["--trainer.max_steps", "10"], ["--model.n_layer", "3"]):
        failed = run("fit", "--ckpt_path", "r", "--trainer.max_steps", "50", *wrong)
        assert failed.code == 2
        assert "resume with" not in failed.err
    assert Path("r/config.yaml").read_bytes() == before


@pytest.mark.usefixtures("no_network")
def test_run_on_the_offline_corpus_resumes_when_the_network_is_back(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = ["--data.corpus", "shakespeare", "--data.offline_corpus", "hamlet"]
    assert run("fit", *TINY, *far, "--run_dir", "r").code == 0
    monkeypatch.setattr(download, "_fetch", lambda url, path: path.write_text("Quite another text.\n" * 50))
    for command in (
        ["fit", "--ckpt_path", "r", "--trainer.max_steps", "22"],
        ["validate", "--ckpt_path", "r"],
    ):
        done = run(*command)
        assert done.code == 0
        assert done.err == ""


def test_resume_prints_the_changed_options(run: Run) -> None:
    args = ["--model.warmup_steps", "2", "--trainer.max_steps", "6", "--run_dir", "r"]
    assert run("fit", *TINY, *args).code == 0
    longer = run("fit", "--ckpt_path", "r", "--trainer.max_steps", "7", "--model.decay_steps", "6")
    assert "changed model.decay_steps null -> 6, trainer.max_steps 6 -> 7\n" in longer.out
    assert "\nrate " not in longer.out
    other = run("fit", "--ckpt_path", "r", "--model.learning_rate", "0.006", "--trainer.max_steps", "8")
    assert "changed model.learning_rate 0.003 -> 0.006, trainer.max_steps 7 -> 8\n" in other.out
    assert "changed" not in run("fit", "--ckpt_path", "r", "--trainer.max_steps", "8").out


def test_resume_to_another_last_step_prints_the_changed_learning_rate(run: Run) -> None:
    linear = ["--model.schedule", "linear", "--model.warmup_steps", "0", "--trainer.max_steps", "10"]
    assert run("fit", *TINY, *linear, "--run_dir", "r").code == 0
    longer = run("fit", "--ckpt_path", "r", "--trainer.max_steps", "20")
    assert "\nrate    0.00165 in step 11, in place of 0.0003\n" in longer.out  # halfway from 3e-3 to 3e-4


def test_wsd_decays_before_the_new_last_step_after_a_resume(run: Run) -> None:
    """The learning rate decays in the last fifth of the steps."""
    wsd = ["--model.schedule", "wsd", "--model.warmup_steps", "2", *LOG_EVERY_STEP]
    assert run("fit", *TINY, *wsd, "--trainer.max_steps", "20", "--run_dir", "r").code == 0
    longer = run("fit", "--ckpt_path", "r", "--trainer.max_steps", "40")
    assert "rate    0.003 in step 21, in place of 0.0003\n" in longer.out
    first = [learning_rate("wsd", step, 3e-3, 3e-4, 2, 20) for step in range(20)]
    second = [learning_rate("wsd", step, 3e-3, 3e-4, 2, 40) for step in range(20, 40)]
    assert second[:12] == [3e-3] * 12
    assert second[12:] == sorted(second[12:], reverse=True)
    assert list(scalars("r", "learning_rate/decay").values()) == pytest.approx([*first, *second])


def test_resume_with_a_changed_text_is_rejected(run: Run) -> None:
    Path("own.txt").write_text(HAMLET)
    assert (
        run("fit", *TINY, "--data.corpus", "own.txt", "--trainer.max_steps", "3", "--run_dir", "r").code == 0
    )
    Path("own.txt").write_text(HAMLET + " To be.")
    more = ["--ckpt_path", "r", "--trainer.max_steps", "6"]
    rejected = run("fit", *more)
    assert rejected.code == 2
    assert rejected.err.startswith("error: this is not the text that the checkpoint was trained on (")
    assert f"own.txt, {len(HAMLET)} characters, sha256 " in rejected.err
    assert f"own.txt, {len(HAMLET) + 7} characters, sha256 " in rejected.err
    assert run("fit", *more, "--run_dir", "other").code == 0


def test_diverged_run_exits_1_without_a_checkpoint(run: Run) -> None:
    failed = run("fit", *TINY, "--model.learning_rate", "1e9", "--run_dir", "r")
    assert failed.code == 1
    assert "error: consecutive skipped steps: 10, up to step 11" in failed.err
    assert failed.err.endswith(
        "the run has diverged; try a smaller model.learning_rate or more model.warmup_steps\n"
    )
    assert not Path("r/last.ckpt").exists()


KILLED_AFTER_A_SAVE = """
import os, signal, sys
from lit_gpt_scratch.cli.main import main
saves, real = 0, os.replace
def replace(old, new):
    global saves
    real(old, new)
    saves += str(new).endswith("last.ckpt")
    if saves == 2:
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = replace
main(sys.argv[1:])
"""


@pytest.mark.faults
def test_steps_before_a_save_are_in_the_logs_after_sigkill(run: Run) -> None:
    args = ["fit", *TINY, *STEPS, *LOG_EVERY_STEP, "--trainer.max_steps", "20", "--run_dir", "killed"]
    killed = run_process(*args, code=KILLED_AFTER_A_SAVE)
    assert killed.returncode == -signal.SIGKILL
    assert run("fit", "--ckpt_path", "killed").code == 0
    assert list(scalars("killed", "train/loss")) == list(range(20))
    samples = events("killed").Tensors("samples/text_summary")
    assert [sample.step for sample in samples] == [0, 6, 12, 18, 20]


@pytest.mark.parametrize("name", ["3e-4", "1E5", "2.5e3", "12", "true"])
def test_run_with_a_name_like_a_number_is_resumed(run: Run, name: str) -> None:
    assert run("fit", *TINY, "--trainer.max_steps", "11", "--run_dir", name).code == 0
    done = run("fit", "--ckpt_path", name, "--trainer.max_steps", "12")
    assert done.code == 0, done.err
