"""What suits the hardware: the quickest precision, and whether compiling repays, each with its reason."""

import ctypes
import shutil
import sysconfig
from pathlib import Path

import torch

from lit_gpt_scratch.model.gpt import GPT

# mallopt(3): from which size on memory is mapped for itself (the most it takes), how much may lie idle at the
# heap's end before it is given back, and how much is fetched at once.
MALLOC = {-3: 2**25, -1: 2**31 - 1, -2: 2**26}
# FLOPs of a run on a CPU from which on compiling repays its 15 seconds (3 once it has been done before): it
# makes a step of modern, with its norms, rotations and gates, a fifth quicker, one of gpt2 hardly.
COMPILE_FLOPS = {"modern": 7e12, "gpt2": 1e15}


def device_kind(accelerator: str) -> str:
    """What Lightning's `trainer.accelerator` will train on: cpu, cuda, mps, or the name itself."""
    if accelerator in ("auto", "gpu"):
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    return accelerator


def choose_precision(asked: str, kind: str, before: dict[str, str] | None) -> tuple[str, str]:
    """One of Lightning's precisions, and the reason in words.

    Args:
        asked: One of them, or auto.
        kind: Of device.
        before: The kind of device and the precision that a resumed run had, which auto keeps.
    """
    if asked != "auto":
        return asked, "as asked"
    if before is not None and before["kind"] == kind:
        return before["precision"], "as before"
    return auto_precision(kind)


def auto_precision(kind: str) -> tuple[str, str]:
    """Return the fastest of Lightning's precisions on a kind of device, and the reason in words."""
    if kind == "cuda":
        if has_bf16_units(kind):
            return "bf16-mixed", "this GPU has bfloat16"
        return "32-true", "this GPU has no bfloat16"
    if kind != "cpu":
        return "32-true", f"bfloat16 is not tried on {kind}"
    if has_bf16_units(kind):
        return "bf16-mixed", f"this CPU has {cpu_bf16_unit()}"
    return "32-true", "this CPU has neither AMX nor AVX512-BF16"


def has_bf16_units(kind: str) -> bool:
    """Return whether a kind of device multiplies bfloat16 matrices in hardware."""
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return kind == "cpu" and cpu_bf16_unit() is not None


def cpu_bf16_unit() -> str | None:
    """Return the name of this CPU's instructions for bfloat16 matrix products; None if it has none."""
    capabilities = torch.cpu.get_capabilities()
    names = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16"}
    return next((name for flag, name in names.items() if capabilities.get(flag, False)), None)


def keep_freed_memory() -> None:
    """Have the C library keep the memory of a step for the next: fetching it anew costs 5 % of a CPU's step.

    Only glibc gives it back so eagerly, and only glibc has these settings; elsewhere nothing is done.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for setting, value in MALLOC.items():
        mallopt(setting, value)


def choose_compile(asked: str, kind: str, gpt: GPT, flops: float) -> tuple[bool, str]:
    """Return whether to compile, as `asked` (auto, true or false), and the reason in words.

    Raises:
        ValueError: It is asked for, and something that it needs is missing.
    """
    if asked == "auto":
        return auto_compile(kind, gpt, flops)
    if asked == "true" and kind == "cpu" and (reason := why_not_compile()):
        raise ValueError(f"compile: {reason}; --compile false trains without")
    return asked == "true", "as asked"


def auto_compile(kind: str, gpt: GPT, flops: float) -> tuple[bool, str]:
    """Whether compiling repays on a kind of device, and the reason in words.

    Args:
        kind: Of device.
        gpt: The model.
        flops: Of the whole run; infinite for one without an end.
    """
    if kind == "cuda":
        return True, "a GPU"
    if kind != "cpu":
        return False, f"not tried on {kind}"
    if flops < COMPILE_FLOPS[gpt.config.arch]:
        return False, "the run is too short to repay it"
    if reason := why_not_compile():
        return False, reason
    return True, "a long run"


def why_not_compile() -> str | None:
    """Return what torch.compile lacks on this machine's CPU; None if nothing."""
    if not (shutil.which("g++") or shutil.which("clang++")):
        return "there is no C++ compiler"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "Python's headers are not installed"
    return None
