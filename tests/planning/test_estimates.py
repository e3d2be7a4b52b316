"""`plan`: estimates, warnings, measurements, and the loss by a scaling law."""

import json
import math
from pathlib import Path

import pytest

from helpers.command_line import TINY, Run
from lit_gpt_scratch.data.corpus import load_corpus
from lit_gpt_scratch.model.gpt import GPT, GPTConfig
from lit_gpt_scratch.planning import stopwatch
from lit_gpt_scratch.planning.estimates import parameters_by_part
from lit_gpt_scratch.planning.stopwatch import Measurement


def test_plan_computes_parameters_tokens_and_flops(run: Run) -> None:
    done = run("plan", *TINY, "--no_measure", "--json", "--model.warmup_steps", "20")
    assert done.code == 0
    plan = json.loads(done.out)
    assert plan["n_parameters"] == sum(plan["parameters"].values()) == 27_488
    assert (plan["steps"], plan["tokens_per_step"], plan["n_tokens"]) == (20, 256, 5120)
    assert plan["epochs"] == pytest.approx(5120 / 545)
    assert plan["tokens_per_parameter"] == pytest.approx(5120 / 27_488)
    # 6 for each parameter except position embeddings, and 12 L T C for attention.
    assert plan["flops"] == 5120 * (6 * (27_488 - 32 * 32) + 12 * 2 * 32 * 32)
    assert plan["measured"] is plan["total_seconds"] is plan["expected_loss"] is None
    assert "9 epochs over 545 tokens will overfit" in done.err
    assert "20 steps of warmup leave none of 20 for decay" in done.err
    assert not list(Path().iterdir())


def test_parameters_by_part_have_known_counts() -> None:
    gpt = GPT(GPTConfig(50, block_size=8, n_layer=2, n_head=2, n_embd=16, tie_weights=False))
    assert parameters_by_part(gpt) == {
        "token embeddings": 50 * 16,
        "position embeddings": 8 * 16,
        "norms": 5 * 2 * 16,
        "attention": 2 * 4 * 16 * 16,
        "MLPs": 2 * (2 * 4 * 16 * 16 + 5 * 16),
        "output head": 50 * 16,
    }


def test_total_time_extends_the_short_run() -> None:
    measured = Measurement(
        n_steps=20, elapsed_seconds=10.0, step_seconds=0.1, evaluation_seconds=2.0, peak_bytes=1
    )
    assert measured.total_seconds(steps=20, eval_every=100) == 10
    assert measured.total_seconds(steps=220, eval_every=100) == pytest.approx(10 + 20 + 2 * 2)


def test_measured_plan_leaves_no_files(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopwatch, "MIN_SECONDS", math.inf)  # a slow machine would measure fewer steps
    done = run("plan", *TINY, "--json")
    assert done.code == 0
    plan = json.loads(done.out)
    measured = Measurement(**plan["measured"])
    assert measured.n_steps == 20
    assert plan["total_seconds"] == measured.elapsed_seconds
    assert plan["tokens_per_second"] == pytest.approx(256 / measured.step_seconds)
    assert 0 < measured.step_seconds < 1
    assert measured.peak_bytes > 10**8
    text = run("plan", *TINY, "--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "logs").out
    rows = ["model", "steps", "ratio", "compute", "memory", "time", "speed", "loss"]
    assert [line.split()[0] for line in text.splitlines()] == rows
    assert not list(tmp_path.iterdir())


def test_plan_is_silent_with_another_progress_bar(run: Run) -> None:
    done = run("plan", *TINY, "--trainer.callbacks+", "RichProgressBar")
    assert done.code == 0, done.err
    assert "tokens/s" in done.out
    assert "Epoch" not in done.out + done.err


def test_loss_is_estimated_only_from_a_law_of_the_same_text_tokenizer_and_optimizer(run: Run) -> None:
    hamlet = {"corpus_sha256": load_corpus("hamlet").sha256, "vocab_size": 39, "optimizer": "adamw"}
    law = {"E": 1.0, "A": 27_488.0, "B": 0.0, "alpha": 1.0, "beta": 1.0}
    Path("law.json").write_text(json.dumps({"law": law, "runs": [hamlet]}))
    plan = ("plan", *TINY, "--no_measure", "--law", "law.json")
    assert json.loads(run(*plan, "--json").out)["expected_loss"] == 2.0
    assert "about 2.00 on the validation text, by law.json" in run(*plan).out
    for other in (["--data.tokenizer", "byte"], ["--model.optimizer", "muon"]):
        assert "no estimate: law.json is missing or was fitted on other data" in run(*plan, *other).out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ckpt_path", "run"], "no such checkpoint: run"),
        (["--trainer.max_steps", "-1", "--model.decay_steps", "50"], "plan needs a number of steps"),
        (["--model.n_embd", "33"], "model.n_embd (33) must be a multiple of model.n_head (2)"),
        (["--law"], "error: argument --law: expected one argument"),
        (["--law", "none.json"], "error: no such law: none.json"),
    ],
)
def test_invalid_options_exit_2_and_leave_no_files(
    run: Run, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(Path().resolve()))
    done = run("plan", *TINY, *options)
    assert done.code == 2
    assert message in done.err
    assert not list(Path().iterdir())
