"""A run that learns its text by heart says so, once; one that learns says nothing."""

from pathlib import Path

import pytest
from conftest import TINY, Run

from lit_gpt_scratch.training.checkpoint_io import read_checkpoint

LONG = ["--trainer.max_steps", "240", "--eval_every", "20", "--model.learning_rate", "1e-2"]


def test_overfitting_is_said_once(run: Run) -> None:
    done = run("fit", *TINY, *LONG, "--run_dir", "r")
    assert done.code == 0
    assert done.err.count("overfitting: since step") == 1
    best = read_checkpoint("r/best.ckpt")["evaluation"]
    last = read_checkpoint("r/last.ckpt")["evaluation"]
    assert last["val/loss"] > best["val/loss"]
    assert last["train/eval_loss"] < best["train/eval_loss"]
    assert (
        f"since step {best['step']} the validation loss has risen from {best['val/loss']:.3f} to" in done.err
    )

    patient = run("fit", *TINY, *LONG, "--overfitting.patience", "100", "--run_dir", "patient")
    assert patient.err == ""
    silent = run("fit", *TINY, *LONG, "--callbacks.overfitting", "false", "--run_dir", "silent")
    assert silent.err == ""


@pytest.mark.slow
def test_a_resumed_run_remembers_its_best(run: Run) -> None:
    straight = run("fit", *TINY, *LONG, "--run_dir", "straight")
    said_at = straight.err
    decay = ["--model.decay_steps", "240"]
    parts = run("fit", *TINY, *LONG, *decay, "--trainer.max_steps", "20", "--run_dir", "parts").err
    while Path("parts/last.ckpt").exists() and not parts:
        step = read_checkpoint("parts/last.ckpt")["global_step"]
        assert step < 240
        parts += run("fit", "--resume", "parts", "--trainer.max_steps", step + 20).err
    assert parts == said_at


def test_early_stopping_ends_a_run_that_learns_no_more(run: Run) -> None:
    early = [*LONG, "--callbacks.early_stopping", "true", "--model.decay_steps", "240"]
    done = run("fit", *TINY, *early, "--run_dir", "r")
    assert done.code == 0
    last, best = (read_checkpoint(f"r/{name}.ckpt") for name in ("last", "best"))
    assert last["global_step"] == best["global_step"] + 5 * 20 < 240
    loss = best["evaluation"]["val/loss"]
    assert f"early stopping: no validation loss of the last 5 was better than {loss:.4f}\n" in done.err
    assert done.out.endswith("fit --resume r\n")  # which has steps left

    half = best["global_step"] + 40  # it waits since two evaluations
    assert run("fit", *TINY, *early, "--trainer.max_steps", half, "--run_dir", "parts").code == 0
    assert run("fit", "--resume", "parts", "--trainer.max_steps", "240").code == 0
    assert read_checkpoint("parts/last.ckpt")["global_step"] == last["global_step"]

    assert run("fit", "--resume", "r", "--early_stopping.patience", "6").code == 0
    assert read_checkpoint("r/last.ckpt")["global_step"] == last["global_step"] + 20


def test_early_stopping_of_another_run_is_forgotten(run: Run) -> None:
    early = [*LONG, "--callbacks.early_stopping", "true", "--early_stopping.patience", "2"]
    assert run("fit", *TINY, *early, "--run_dir", "r").code == 0
    step = read_checkpoint("r/last.ckpt")["global_step"]
    assert run("fit", "--resume", "r", "--fork", "other").code == 0
    assert read_checkpoint("other/last.ckpt")["global_step"] == step + 3 * 20
