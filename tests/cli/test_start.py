"""Resume in the run folder or another one, from the last checkpoint or an older one."""

import shutil
from pathlib import Path

import pytest

from helpers.checkpoints import best_checkpoint, bit_identical, last_checkpoint
from helpers.command_line import TINY, Run
from lit_gpt_scratch.data.corpus import HAMLET

STEPS = ["--model.dropout", "0.2", "--model.decay_steps", "20", "--eval_every", "6", "--save_every", "4"]


def test_run_resumes_from_another_working_folder(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "one")
    Path("own.txt").write_text("To be, or not to be.\n" * 30)
    assert run("fit", *TINY, "--data.corpus", "own.txt", "--run_dir", "run[1]").code == 0
    monkeypatch.chdir(tmp_path / "other")
    moved = tmp_path / "one" / "run[1]"
    assert run("fit", "--ckpt_path", moved, "--trainer.max_steps", "22").code == 0
    assert last_checkpoint(moved)["global_step"] == 22
    assert last_checkpoint(moved)["hyper_parameters"]["n_embd"] == 32


def test_resume_in_another_folder_does_not_change_the_run(run: Run) -> None:
    assert run("fit", *TINY, *STEPS, "--trainer.max_steps", "8", "--run_dir", "r").code == 0
    before = {path.name: path.read_bytes() for path in Path("r").rglob("*.*")}
    resumed = run("fit", "--ckpt_path", "r", "--run_dir", "other", "--trainer.max_steps", "20")
    assert resumed.code == 0
    assert {path.name: path.read_bytes() for path in Path("r").rglob("*.*")} == before
    assert run("fit", *TINY, *STEPS, "--trainer.max_steps", "20", "--run_dir", "straight").code == 0
    straight, other = (last_checkpoint(n) for n in ("straight", "other"))
    assert bit_identical(straight["state_dict"], other["state_dict"])
    assert run("fit", "--ckpt_path", "other", "--trainer.max_steps", "22").code == 0


def test_older_checkpoint_resumes_only_in_another_folder(run: Run) -> None:
    early = ["--best_checkpoint.save_top_k", "-1", "--eval_every", "5", "--trainer.max_steps", "10"]
    assert run("fit", *TINY, *early, "--run_dir", "r").code == 0
    rejected = run("fit", "--ckpt_path", "r/best-5.ckpt", "--trainer.max_steps", "12")
    assert rejected.code == 2
    assert "r/best-5.ckpt is of step 5, and its run has reached step 10: give r to resume" in rejected.err
    other = run("fit", "--ckpt_path", "r/best-5.ckpt", "--trainer.max_steps", "10", "--run_dir", "other")
    assert other.code == 0
    one, same_steps = (last_checkpoint(name) for name in ("r", "other"))
    assert bit_identical(one["state_dict"], same_steps["state_dict"])


@pytest.mark.parametrize(("before", "then"), [("1", "2"), ("2", "1"), ("-1", "1"), ("3", "2")])
def test_changed_save_top_k_keeps_the_best_checkpoint(run: Run, before: str, then: str) -> None:
    kept = ["--best_checkpoint.save_top_k", before, "--eval_every", "5", "--trainer.max_steps", "15"]
    assert run("fit", *TINY, *kept, "--run_dir", "r").code == 0
    worse = ["--model.learning_rate", "50", "--model.warmup_steps", "0", "--trainer.max_steps", "25"]
    assert run("fit", "--ckpt_path", "r", "--best_checkpoint.save_top_k", then, *worse).code == 0
    assert best_checkpoint("r")["global_step"] == 15


def test_options_that_conflict_with_the_checkpoint_are_rejected(run: Run, finished: Path) -> None:
    averaged = ["--ema.decay", "0.9", "--trainer.max_steps", "5", "--run_dir", "r"]
    assert run("fit", *TINY, *averaged).code == 0
    more = ["fit", "--ckpt_path", "r", "--trainer.max_steps", "6"]
    for wrong, message in (
        (["--callbacks.ema", "false"], "the run averages its weights: callbacks.ema must stay on"),
        (["--data.val_fraction", "0.5"], "data.val_fraction was 0.1, not 0.5"),
        (["--ckpt", "r"], "unrecognized arguments: --ckpt"),
        (["--trainer.devices", "abc"], "devices"),
    ):
        done = run(*more, *wrong)
        assert done.code == 2
        assert message in done.err
        assert done.err.count("\n") == 1
    assert run(*more).code == 0


def test_older_checkpoint_resumes_with_its_own_options(run: Run) -> None:
    kept = ["--best_checkpoint.save_top_k", "-1", "--eval_every", "5", "--trainer.max_steps", "10"]
    assert run("fit", *TINY, *kept, "--run_dir", "r").code == 0
    changed = ["--model.learning_rate", "0.006", "--trainer.max_steps", "12"]
    assert run("fit", "--ckpt_path", "r", *changed).code == 0
    older = ["fit", "--ckpt_path", "r/best-5.ckpt", "--run_dir"]
    assert run(*older, "other").code == 0
    assert run(*older, "third", "--model.learning_rate", "0.006").code == 0
    for name, rate in {"r": 0.006, "other": 0.003, "third": 0.006}.items():
        checkpoint = last_checkpoint(name)
        assert checkpoint["hyper_parameters"]["learning_rate"] == rate


def test_checkpoint_without_config_yaml_restores_seed_and_averaging(run: Run) -> None:
    averaged = ["--ema.decay", "0.9", "--seed_everything", "7", "--trainer.max_steps", "5", "--run_dir", "r"]
    assert run("fit", *TINY, *averaged).code == 0
    Path("alone").mkdir()
    shutil.copy("r/last.ckpt", "alone/last.ckpt")
    assert run("fit", "--ckpt_path", "alone", "--run_dir", "other", "--trainer.max_steps", "6").code == 0
    one = last_checkpoint("other")
    assert one["datamodule_hyper_parameters"]["seed"] == 7
    assert "averaging_state" in one


def test_moved_run_keeps_its_best_checkpoint(run: Run) -> None:
    assert run("fit", *TINY, "--trainer.max_steps", "10", "--run_dir", "r").code == 0
    Path("r").rename("moved")
    worse = ["--model.learning_rate", "50", "--model.warmup_steps", "0", "--trainer.max_steps", "12"]
    assert run("fit", "--ckpt_path", "moved", *worse).code == 0
    assert best_checkpoint("moved")["global_step"] == 10
    assert not Path("r").exists()


def test_run_in_a_new_folder_has_its_own_best_checkpoint(run: Run, finished: Path) -> None:
    Path("own.txt").write_text(HAMLET[::-1])  # the same characters, another text
    args = ["--data.corpus", "own.txt", "--trainer.max_steps", "43", "--run_dir", "fine"]
    assert run("fit", *TINY, "--model.dropout", "0.1", "--ckpt_path", finished, *args).code == 0
    assert best_checkpoint("fine")["global_step"] == 43
