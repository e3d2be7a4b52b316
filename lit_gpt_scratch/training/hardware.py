"""Precision and compilation chosen for the hardware, each with its reason as text."""

import ctypes
import shutil
import sysconfig
from pathlib import Path
from typing import Literal

import torch

from lit_gpt_scratch.model.gpt import GPT

# Parameters of mallopt(3), in bytes: M_MMAP_THRESHOLD (its maximum), M_TRIM_THRESHOLD, M_TOP_PAD.
MALLOC_OPTIONS = {-3: 2**25, -1: 2**31 - 1, -2: 2**26}
# FLOPs of a run on a CPU above which compilation saves more time than the 15 seconds it takes (3 with a warm
# cache). A step of modern, with its norms, rotary embedding and gates, gets a fifth faster; one of gpt2
# hardly gets faster.
MIN_COMPILE_FLOPS = {"modern": 7e12, "gpt2": 1e15}


def device_kind(accelerator: str) -> str:
    """Return the device type that the Trainer option `accelerator` selects: cpu, cuda or mps.

    Names other than auto and gpu are returned unchanged.
    """
    if accelerator in ("auto", "gpu"):
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    return accelerator


def choose_precision(option: str, kind: str, previous: dict[str, str] | None) -> tuple[str, str]:
    """Return the precision of a run, as Lightning names it, and the reason for the choice.

    Args:
        option: A precision, or auto.
        kind: Device type.
        previous: Device type (`kind`) and `precision` of the run that wrote the loaded checkpoint, or None;
            auto keeps this precision if the device type is the same.
    """
    if option == "16-mixed" and kind == "cpu":
        return "bf16-mixed", "16-mixed is for GPUs"
    if option != "auto":
        return option, "as asked"
    if previous is not None and previous["kind"] == kind:
        return previous["precision"], "as before"
    return auto_precision(kind)


def auto_precision(kind: str) -> tuple[str, str]:
    """Return the fastest precision on a device type, bf16-mixed or 32-true, and the reason for the choice."""
    has_units = has_bf16_units(kind)
    reasons = {
        "cuda": f"this GPU has {'' if has_units else 'no '}bfloat16",
        "cpu": f"this CPU has {cpu_bf16_unit() or 'neither AMX nor AVX512-BF16'}",
    }
    return "bf16-mixed" if has_units else "32-true", reasons.get(kind, f"bfloat16 is not tested on {kind}")


def has_bf16_units(kind: str) -> bool:
    """Return whether a device type multiplies bfloat16 matrices in hardware."""
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return kind == "cpu" and cpu_bf16_unit() is not None


def cpu_bf16_unit() -> str | None:
    """Return the name of this CPU's instructions for bfloat16 matrix products; None if it has none."""
    capabilities = torch.cpu.get_capabilities()
    names = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16"}
    return next((name for flag, name in names.items() if capabilities.get(flag, False)), None)


def keep_freed_memory() -> None:
    """Configure glibc's malloc to keep freed memory for the next step, which shortens a step on a CPU by 5 %.

    Do nothing with other C libraries, which have no mallopt.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for option, value in MALLOC_OPTIONS.items():
        mallopt(option, value)


def choose_compile(option: bool | Literal["auto"], kind: str, gpt: GPT, flops: float) -> tuple[bool, str]:
    """Return whether to compile the model, and the reason for the choice.

    Args:
        option: auto, true (compile) or false (do not compile).
        kind: Device type.
        gpt: The model.
        flops: FLOPs of the whole run; infinite for a run without a last step.

    Raises:
        ValueError: The option is true, and a requirement of torch.compile is missing.
    """
    if option == "auto":
        return auto_compile(kind, gpt, flops)
    if option and kind == "cpu" and (reason := missing_compile_requirement()):
        raise ValueError(f"compile: {reason}; use --compile false to train without compilation")
    return option, "as asked"


def auto_compile(kind: str, gpt: GPT, flops: float) -> tuple[bool, str]:
    """Return whether compilation shortens a run of `flops` FLOPs on a device type, and the reason."""
    if kind == "cuda":
        return True, "a GPU"
    if kind != "cpu":
        return False, f"not tested on {kind}"
    if flops < MIN_COMPILE_FLOPS[gpt.config.arch]:
        return False, "the run is too short to repay it"
    reason = missing_compile_requirement()
    return reason is None, reason or "a long run"


def missing_compile_requirement() -> str | None:
    """Return a message that names a missing requirement of torch.compile on CPUs; None if all are met."""
    if not (shutil.which("g++") or shutil.which("clang++")):
        return "there is no C++ compiler"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "Python's headers are not installed"
    return None
