"""A plan says what a run is, warns of what speaks against it, and leaves nothing behind."""

import json
from pathlib import Path

import pytest
from conftest import TINY, Run

from lit_gpt_scratch.data.corpus import load_corpus
from lit_gpt_scratch.model.gpt import GPT, GPTConfig
from lit_gpt_scratch.tools.plan import parameters_by_part
from lit_gpt_scratch.tools.stopwatch import Measured


def test_what_follows_from_numbers(run: Run) -> None:
    done = run("plan", *TINY, "--no_measure", "--json")
    assert done.code == 0
    plan = json.loads(done.out)
    assert plan["n_parameters"] == sum(plan["parameters"].values()) == 27_488
    assert (plan["steps"], plan["tokens_per_step"], plan["n_tokens"]) == (20, 256, 5120)
    assert plan["epochs"] == pytest.approx(5120 / 545)
    assert plan["tokens_per_parameter"] == pytest.approx(5120 / 27_488)
    # 6 for each parameter but the positions', and 12 L T C for attention.
    assert plan["flops"] == 5120 * (6 * (27_488 - 32 * 32) + 12 * 2 * 32 * 32)
    assert plan["measured"] is plan["total_seconds"] is plan["expected_loss"] is None
    assert "it will overfit, or have to be kept from it: 9 epochs over 545 tokens" in done.err
    assert not list(Path().iterdir())


def test_parameters_by_part() -> None:
    gpt = GPT(GPTConfig(50, block_size=8, n_layer=2, n_head=2, n_embd=16, tie_weights=False))
    assert parameters_by_part(gpt) == {
        "token table": 50 * 16,
        "positions": 8 * 16,
        "norms": 5 * 2 * 16,
        "attention": 2 * 4 * 16 * 16,
        "MLPs": 2 * (2 * 4 * 16 * 16 + 5 * 16),
        "output head": 50 * 16,
    }


def test_a_warmup_without_an_end_is_warned_of(run: Run) -> None:
    done = run("plan", *TINY, "--no_measure", "--model.warmup_steps", "20")
    assert done.code == 0
    assert "20 steps of warmup are all of its 20: the rate never falls" in done.err


def test_a_measured_plan_leaves_nothing(run: Run, tmp_path: Path) -> None:
    done = run("plan", *TINY, "--json")
    assert done.code == 0
    plan = json.loads(done.out)
    measured = Measured(**plan["measured"])
    assert plan["total_seconds"] == pytest.approx(measured.total_seconds(20, 1))
    assert plan["tokens_per_second"] == pytest.approx(256 / measured.step_seconds)
    assert 0 < measured.step_seconds < 1
    assert measured.peak_bytes > 10**8
    assert not list(tmp_path.iterdir())
    text = run("plan", *TINY, "--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "logs").out
    assert not list(tmp_path.iterdir())
    assert [line.split()[0] for line in text.splitlines()] == [
        "model",
        "steps",
        "ratio",
        "compute",
        "memory",
        "time",
        "speed",
        "loss",
    ]


def test_a_law_of_the_same_text_foretells_the_loss(run: Run) -> None:
    of_hamlet = {"corpus_sha256": load_corpus("hamlet").sha256, "vocab_size": 39, "optimizer": "adamw"}
    law = {"E": 1.0, "A": 27_488.0, "B": 0.0, "alpha": 1.0, "beta": 1.0}
    Path("law.json").write_text(json.dumps({"law": law, "runs": [of_hamlet]}))
    plan = ("plan", *TINY, "--no_measure", "--law", "law.json")
    assert json.loads(run(*plan, "--json").out)["expected_loss"] == 2.0
    assert "about 2.00 on the validation text, by law.json" in run(*plan).out
    for other in (["--data.tokenizer", "byte"], ["--model.optimizer", "muon"]):
        assert "not foretold: law.json is no law of this text and optimizer" in run(*plan, *other).out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ckpt_path", "run"], "no such checkpoint: run"),
        (
            ["--trainer.max_steps", "-1", "--model.decay_steps", "50"],
            "a plan needs an end: set trainer.max_steps",
        ),
        (["--model.n_embd", "33"], "model.n_embd (33) must be a multiple of model.n_head (2)"),
        (["--law"], "error: argument --law: expected one argument"),
        (["--law", "none.json"], "error: no such law: none.json"),
    ],
)
def test_mistakes(run: Run, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(Path().resolve()))
    done = run("plan", *TINY, *options)
    assert done.code == 2
    assert message in done.err
    assert not list(Path().iterdir())
