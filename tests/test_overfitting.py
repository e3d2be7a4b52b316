"""A run that learns its text by heart says so, once; one that learns says nothing."""

from pathlib import Path

from conftest import TINY, Run

from lit_gpt_scratch.training.checkpoint_io import read_checkpoint

LONG = ["--trainer.max_steps", "400", "--eval_every", "20", "--model.learning_rate", "1e-2"]


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


def test_a_resumed_run_remembers_its_best(run: Run) -> None:
    straight = run("fit", *TINY, *LONG, "--run_dir", "straight")
    said_at = straight.err
    decay = ["--model.decay_steps", "400"]
    parts = run("fit", *TINY, *LONG, *decay, "--trainer.max_steps", "20", "--run_dir", "parts").err
    while Path("parts/last.ckpt").exists() and not parts:
        step = read_checkpoint("parts/last.ckpt")["global_step"]
        assert step < 400
        parts += run("fit", "--resume", "parts", "--trainer.max_steps", step + 20).err
    assert parts == said_at
