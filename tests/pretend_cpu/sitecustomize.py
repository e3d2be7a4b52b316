"""Make the package see bfloat16 units that this CPU lacks, or none: PRETEND_CPU=AMX, AVX512-BF16 or none.

Python imports a module of this name at its start if its folder is in PYTHONPATH, so that the processes that
tests start pretend as well. torch is not changed: compiled code still fits the CPU.
"""

import functools
import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

HARDWARE = "lit_gpt_scratch.training.hardware"
UNITS = {"AMX": "AMX", "AVX512-BF16": "AVX512-BF16", "none": None}


def pretended_unit() -> str | None:
    """Return the unit that PRETEND_CPU names."""
    return UNITS[os.environ["PRETEND_CPU"]]


class PretendingFinder:
    """Find the module that asks for the CPU's units, and replace the answer once it has been executed."""

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        if name != HARDWARE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        loader: Any = spec.loader
        execute = loader.exec_module

        def execute_and_replace(module: ModuleType) -> None:
            execute(module)
            module.cpu_bf16_unit = functools.wraps(module.cpu_bf16_unit)(pretended_unit)

        loader.exec_module = execute_and_replace
        return spec


if "PRETEND_CPU" in os.environ:
    if os.environ["PRETEND_CPU"] not in UNITS:
        sys.exit(f"PRETEND_CPU must be one of {', '.join(UNITS)}")
    sys.meta_path.insert(0, PretendingFinder())
