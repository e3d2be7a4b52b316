"""The Python API."""

from pathlib import Path

import pytest

import lit_gpt_scratch
from helpers.command_line import run_process
from lit_gpt_scratch.data.corpus import HAMLET


def test_python_api_loads_generates_and_evaluates(finished: Path, tmp_path: Path) -> None:
    model = lit_gpt_scratch.load(finished)
    assert (model.n_parameters, model.step) == (27_488, 40)
    text = lit_gpt_scratch.generate(model, "To be", max_new_tokens=12, seed=3)
    assert len(text) == 12
    assert text == lit_gpt_scratch.generate(model, "To be", max_new_tokens=12, seed=3)
    path = tmp_path / "own.txt"
    path.write_text(HAMLET)
    found = lit_gpt_scratch.evaluate(model, path, stride=16)
    assert found.n_characters == len(HAMLET) - 1
    assert found.loss == lit_gpt_scratch.evaluate(model, "hamlet", stride=16).loss
    assert 1 < found.perplexity.value < 39
    with pytest.raises(ValueError, match="no such option: stop; there are max_new_tokens, "):
        lit_gpt_scratch.generate(model, "To be", stop=["e"])
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        _ = lit_gpt_scratch.train  # type: ignore[attr-defined]


def test_importing_the_package_changes_nothing_in_the_process() -> None:
    code = """
import os, sys, warnings
names = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "POSSIBLE_USER_WARNINGS"
for name in names:
    os.environ.pop(name, None)
import torch, lightning.pytorch
filters, hook = list(warnings.filters), sys.excepthook
import lit_gpt_scratch
for name in lit_gpt_scratch.__all__:
    getattr(lit_gpt_scratch, name)
ours = [each for each in warnings.filters if each not in filters and "LeafSpec" in str(each)]
print(ours, [name for name in names if name in os.environ], sys.excepthook is hook)
"""
    done = run_process(code=code)
    assert done.stdout.strip() == "[] [] True", done.stderr
