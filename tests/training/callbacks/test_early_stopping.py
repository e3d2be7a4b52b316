"""Early stopping, and the report of overfitting."""

import re

from helpers.command_line import TINY, Run
from lit_gpt_scratch.training.checkpoint import read_checkpoint

LONG = ["--trainer.max_steps", "240", "--eval_every", "20", "--model.learning_rate", "1e-2"]


def overfitting(out: str) -> list[str]:
    """Return the overfitting part of each evaluation's line, empty if it has none."""
    lines = [line for line in out.splitlines() if re.match(r"step +[1-9]\d*/", line)]
    return [part for line in lines for part in re.findall(r"overfitting: [^·\n]*|$", line)[:1]]


def test_overfitting_is_reported_with_the_best_step_also_after_a_resume(run: Run) -> None:
    done = run("fit", *TINY, *LONG, "--run_dir", "r")
    assert (done.code, done.err) == (0, "")
    best = read_checkpoint("r/best.ckpt")["evaluation"]
    parts = overfitting(done.out)
    assert parts[-1].strip() == f"overfitting: val was {best['val/loss']:.4f} at step {best['step']}"
    assert parts[: int(best["step"]) // 20] == [""] * (int(best["step"]) // 20)

    half = ["--trainer.max_steps", "180", "--model.decay_steps", "240"]
    first = run("fit", *TINY, *LONG, *half, "--run_dir", "parts").out
    second = run("fit", "--ckpt_path", "parts", "--trainer.max_steps", "240").out
    assert [part.strip() for part in overfitting(first) + overfitting(second)] == [p.strip() for p in parts]


def test_early_stopping_ends_a_run_and_counts_across_resumes(run: Run) -> None:
    early = [*LONG, "--callbacks.early_stopping", "true", "--model.decay_steps", "240"]
    done = run("fit", *TINY, *early, "--run_dir", "r")
    assert done.code == 0
    last, best = (read_checkpoint(f"r/{name}.ckpt") for name in ("last", "best"))
    assert last["global_step"] == best["global_step"] + 5 * 20 < 240
    loss = best["evaluation"]["val/loss"]
    assert f"early stopping: no validation loss of the last 5 was better than {loss:.4f}\n" in done.err
    assert done.out.endswith("fit --ckpt_path r\n")  # without --trainer.max_steps: steps remain

    half = best["global_step"] + 40  # two evaluations without a lower loss
    assert run("fit", *TINY, *early, "--trainer.max_steps", half, "--run_dir", "parts").code == 0
    assert run("fit", "--ckpt_path", "parts", "--trainer.max_steps", "240").code == 0
    assert read_checkpoint("parts/last.ckpt")["global_step"] == last["global_step"]

    assert run("fit", "--ckpt_path", "r", "--early_stopping.patience", "6").code == 0
    assert read_checkpoint("r/last.ckpt")["global_step"] == last["global_step"] + 20
