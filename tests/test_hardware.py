"""What `auto` chooses, why, and that it can be overruled."""

from pathlib import Path

import pytest
import torch
from conftest import TINY, Run

from lit_gpt_scratch.model.gpt import GPT, GPTConfig
from lit_gpt_scratch.training import hardware


@pytest.mark.parametrize(
    ("units", "speed", "precision", "why"),
    [
        (False, 5.0, "32-true", "this CPU has neither AMX nor AVX512-BF16"),
        (True, 4.94, "bf16-mixed", "this CPU multiplies bfloat16 4.9 times as fast"),
        (True, 1.1, "32-true", "this CPU multiplies bfloat16 1.1 times as fast"),
    ],
)
def test_precision_goes_by_what_a_cpu_has_and_does(
    monkeypatch: pytest.MonkeyPatch, units: bool, speed: float, precision: str, why: str
) -> None:
    monkeypatch.setattr(hardware, "has_bf16_units", lambda: units)
    monkeypatch.setattr(hardware, "bf16_speed", lambda: speed)
    assert hardware.auto_precision("cpu") == (precision, why)


def test_a_cpu_that_says_it_is_quick_is_measured() -> None:
    assert hardware.bf16_speed() > 0
    known = hardware.auto_precision("cpu")[0]
    assert known == "32-true" or hardware.has_bf16_units()


def test_precision_of_other_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert hardware.auto_precision("cuda")[0] == "bf16-mixed"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert hardware.auto_precision("cuda")[0] == "32-true"
    assert hardware.auto_precision("mps")[0] == "32-true"
    assert hardware.device_kind("cpu") == "cpu"


def test_compiling_must_repay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    gpt2, modern = (GPT(GPTConfig(vocab_size=65, arch=arch)) for arch in ("gpt2", "modern"))
    assert hardware.auto_compile("cuda", gpt2, 1.0) == (True, "a GPU")
    assert hardware.auto_compile("cpu", modern, 1e12) == (False, "the run is too short to repay it")
    monkeypatch.setattr(hardware.shutil, "which", lambda name: "/usr/bin/g++")
    Path("Python.h").touch()
    monkeypatch.setattr(hardware.sysconfig, "get_path", lambda name: ".")
    assert hardware.auto_compile("cpu", modern, 1e14) == (True, "a long run")
    assert not hardware.auto_compile("cpu", gpt2, 2e14)[0]  # it gains less
    monkeypatch.setattr(hardware.sysconfig, "get_path", lambda name: "/nowhere")
    assert hardware.auto_compile("cpu", modern, 1e14) == (False, "Python's headers are not installed")
    monkeypatch.setattr(hardware.shutil, "which", lambda name: None)
    assert hardware.auto_compile("cpu", modern, float("inf")) == (False, "there is no C++ compiler")


def test_the_summary_says_what_was_chosen(run: Run) -> None:
    out = run("fit", *TINY, "--trainer.max_steps", "1", "--trainer.accelerator", "cpu").out
    precision, why = hardware.auto_precision("cpu")
    assert f"precision {precision} ({why}), not compiled (the run is too short to repay it)" in out


def test_another_precision_is_taken_and_kept(run: Run) -> None:
    """bfloat16 steps on weights in float32; a run goes on with the precision that it had."""
    asked = ["--precision", "bf16-mixed", "--model.arch", "modern", "--trainer.accelerator", "cpu"]
    done = run("fit", *TINY, *asked, "--trainer.max_steps", "3")
    assert "precision bf16-mixed (as asked)" in done.out
    checkpoint = torch.load("checkpoints/run/last.ckpt", weights_only=True)
    assert checkpoint["device"] == {"kind": "cpu", "precision": "bf16-mixed"}
    assert {tensor.dtype for tensor in checkpoint["state_dict"].values()} == {torch.float32}
    again = run("fit", "--resume", "checkpoints/run", "--trainer.max_steps", "4", "--precision", "auto")
    assert "precision bf16-mixed (as before)" in again.out
    exact = run("fit", "--resume", "checkpoints/run", "--trainer.max_steps", "5", "--precision", "32-true")
    assert "precision 32-true (as asked)" in exact.out


def test_an_unknown_precision_is_one_line(run: Run) -> None:
    done = run("fit", *TINY, "--precision", "bf17")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "'bf17'" in done.err
    moved = run("fit", *TINY, "--trainer.precision", "32-true")
    assert moved.code == 2
    assert "here precision does that" in moved.err
