"""Precision and compilation: choices of `auto`, and explicit ones."""

import inspect
from pathlib import Path

import pytest
import torch

from helpers.checkpoints import last_checkpoint
from helpers.command_line import TINY, Run
from lit_gpt_scratch.model.gpt import GPT, GPTConfig
from lit_gpt_scratch.training import hardware

CPU = ["--trainer.accelerator", "cpu"]


@pytest.mark.parametrize(
    ("unit", "precision", "why"),
    [
        ("AMX", "bf16-mixed", "this CPU has AMX"),
        ("AVX512-BF16", "bf16-mixed", "this CPU has AVX512-BF16"),
        (None, "32-true", "this CPU has neither AMX nor AVX512-BF16"),
    ],
)
def test_auto_precision_of_a_cpu(
    monkeypatch: pytest.MonkeyPatch, run: Run, unit: str | None, precision: str, why: str
) -> None:
    monkeypatch.setattr(hardware, "cpu_bf16_unit", lambda: unit)
    assert hardware.auto_precision("cpu") == (precision, why)
    done = run("fit", *TINY, "--precision", "auto", "--trainer.max_steps", "1", *CPU)
    assert f"precision {precision} ({why}), not compiled (the run is too short to repay it)" in done.out


@pytest.mark.parametrize(
    ("capabilities", "unit"),
    [
        ({"avx512_bf16": True, "amx_bf16": True}, "AMX"),
        ({"avx512_bf16": True, "amx_bf16": False}, "AVX512-BF16"),
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, None),
        ({"neon": True, "bf16": True}, None),  # ARM: not measured
    ],
)
def test_bf16_unit_follows_the_cpus_capabilities(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], unit: str | None
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(hardware, "cpu_bf16_unit", inspect.unwrap(hardware.cpu_bf16_unit))
    assert hardware.cpu_bf16_unit() == unit
    assert hardware.has_bf16_units("cpu") == (unit is not None)


@pytest.mark.parametrize(("has_bf16", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_precision_of_a_gpu(monkeypatch: pytest.MonkeyPatch, has_bf16: bool, precision: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    assert hardware.auto_precision("cuda")[0] == precision
    assert hardware.has_bf16_units("cuda") == has_bf16


@pytest.mark.parametrize(
    ("has_cuda", "has_mps", "kind"), [(True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_device_kind_follows_availability(
    monkeypatch: pytest.MonkeyPatch, has_cuda: bool, has_mps: bool, kind: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: has_mps)
    assert hardware.device_kind("auto") == kind
    assert hardware.device_kind("cpu") == "cpu"
    assert hardware.auto_precision("mps")[0] == "32-true"


def test_auto_compile_chooses_long_runs_if_a_compiler_exists(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    gpt2, modern = (GPT(GPTConfig(vocab_size=65, arch=arch)) for arch in ("gpt2", "modern"))
    assert hardware.auto_compile("cuda", gpt2, 1.0) == (True, "a GPU")
    assert hardware.auto_compile("cpu", modern, 1e12) == (False, "the run is too short to repay it")
    monkeypatch.setattr(hardware.shutil, "which", lambda name: "/usr/bin/g++")
    Path("Python.h").touch()
    monkeypatch.setattr(hardware.sysconfig, "get_path", lambda name: ".")
    assert hardware.auto_compile("cpu", modern, 1e14) == (True, "a long run")
    assert not hardware.auto_compile("cpu", gpt2, 2e14)[0]  # compilation speeds it up less
    monkeypatch.setattr(hardware.sysconfig, "get_path", lambda name: "/nowhere")
    assert hardware.auto_compile("cpu", modern, 1e14) == (False, "Python's headers are not installed")
    monkeypatch.setattr(hardware.shutil, "which", lambda name: None)
    assert hardware.auto_compile("cpu", modern, float("inf")) == (False, "there is no C++ compiler")
    assert hardware.choose_compile(False, "cpu", modern, 1.0) == (False, "as asked")
    with pytest.raises(ValueError, match="compile: there is no C"):
        hardware.choose_compile(True, "cpu", modern, 1.0)


def test_resumed_run_keeps_its_precision(run: Run) -> None:
    asked = ["--precision", "bf16-mixed", "--model.arch", "modern", "--trainer.accelerator", "cpu"]
    done = run("fit", *TINY, *asked, "--trainer.max_steps", "3")
    assert "precision bf16-mixed (as asked)" in done.out
    checkpoint = last_checkpoint("checkpoints/run")
    assert checkpoint["device"] == {"kind": "cpu", "precision": "bf16-mixed"}
    assert {tensor.dtype for tensor in checkpoint["state_dict"].values()} == {torch.float32}
    again = run("fit", "--ckpt_path", "checkpoints/run", "--trainer.max_steps", "4", "--precision", "auto")
    assert "precision bf16-mixed (as before)" in again.out
    exact = run("fit", "--ckpt_path", "checkpoints/run", "--trainer.max_steps", "5", "--precision", "32-true")
    assert "precision 32-true (as asked)" in exact.out
