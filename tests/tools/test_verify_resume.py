"""`verify-resume`: success for a bit-identical resume, and failure for another one."""

import os
from pathlib import Path

import pytest
import torch

from helpers.command_line import ROOT, TINY, Run
from lit_gpt_scratch.tools.verify_resume import first_difference, kill_after_save

CONFIG = ROOT / "tests" / "tiny.yaml"


@pytest.mark.faults
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_killed_and_resumed_run_is_bit_identical(run: Run, precision: str) -> None:
    config = Path("run.yaml")
    config.write_text(CONFIG.read_text().replace("precision: 32-true", f"precision: {precision}"))
    done = run("verify-resume", "--config", config, "--steps", "400")
    assert done.code == 0
    assert done.out.splitlines()[:3] == [
        "straight  400 steps",
        "killed    after step 200",
        "resumed   to step 400",
    ]
    assert done.out.splitlines()[3].startswith("equal     to the last bit: ")
    assert done.err == ""


WITHOUT_SEEDS = """
import sys
if "-m" in sys.orig_argv:
    import lit_gpt_scratch.__main__
    from lit_gpt_scratch.training.module import LitGPT
    LitGPT.on_train_batch_start = lambda *_: None
"""


@pytest.mark.faults
def test_history_dependent_dropout_is_detected(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout uses one generator for all steps, whose state a resumed run does not have."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_SEEDS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    config = Path("dropout.yaml")
    config.write_text(CONFIG.read_text().replace("model:\n", "model:\n  dropout: 0.2\n"))
    done = run("verify-resume", "--config", config, "--steps", "400")
    assert done.code == 1
    assert done.err.startswith("error: the resumed run is not the same: state_dict.gpt.")


@pytest.mark.faults
@pytest.mark.parametrize(
    ("options", "message"),
    [([], "the run was over before it could be killed"), (["--model.n_head", "3"], "must be a multiple of")],
)
def test_run_that_ends_before_the_kill_is_reported(tmp_path: Path, options: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kill_after_save([*TINY, "--run_dir", str(tmp_path / "run"), *options], tmp_path / "none.ckpt")


def test_invalid_options_are_reported_in_one_line(run: Run) -> None:
    missing = run("verify-resume", "--config", "nothing.yaml")
    assert (missing.code, missing.err) == (2, "error: no such config: nothing.yaml\n")
    few = run("verify-resume", "--config", CONFIG, "--steps", "1")
    assert few.err == "error: steps must be at least 2, not 1\n"


def test_first_difference_names_the_part_and_the_values() -> None:
    def part(value: float) -> dict[str, object]:
        return {"a": [torch.zeros(2), torch.tensor([1.0, value])], "b": float("inf"), "c": None}

    assert first_difference(part(2.0), part(2.0), "x") is None
    assert first_difference(part(2.0), part(2.5), "x") == "x.a.1 differs by up to 0.5"
    nan, zero = torch.tensor([float("nan")]), torch.zeros(1)
    assert first_difference(nan, nan.clone(), "x") is None
    assert first_difference(nan, zero, "x") == "x differs by up to nan"
    assert first_difference(torch.tensor(1), torch.tensor(2), "x") == "x differs by up to 1"
    assert first_difference({"a": 1}, {"a": 2}, "x") == "x.a is 1 and 2"
    assert first_difference(torch.zeros(2), torch.zeros(3), "x") == "x is (2,) and (3,)"
    assert first_difference({"a": 1}, {"b": 1}, "x") == "x is {'a': 1} and {'b': 1}"
