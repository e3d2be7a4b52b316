"""docs/tour.ipynb: its stored output, and an execution with few steps."""

import json
import math
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.command_line import ROOT
from helpers.marks import HAS_GPT2_ENCODING

TOUR = ROOT / "docs" / "tour.ipynb"
PARAMETERS = """
corpus = "python_docs"
max_steps = 4
more = "--data.offline_corpus python_docs --model.decay_steps 4 --model.warmup_steps 2 --eval_every 4"
run_dir = "../checkpoints/tour"
subwords = "{subwords}"
gpt2_size = {{"n_layer": 2, "n_head": 2, "n_embd": 24}}
"""


def printed(cells: list[dict[str, Any]]) -> str:
    """Return the text output of a notebook's cells."""
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "".join("".join(output["text"]) for output in outputs if output["output_type"] == "stream")


def test_stored_tour_has_the_output_of_one_complete_execution() -> None:
    cells = [cell for cell in json.loads(TOUR.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(output["output_type"] == "error" for cell in cells for output in cell["outputs"])
    output_text = printed(cells)
    assert "807,808 parameters" in output_text
    assert "[15496, 11, 314, 716]" in output_text
    assert "WARNING" not in output_text
    assert not re.search(r"/(home|root|tmp|usr|work)/", TOUR.read_text())


@pytest.mark.slow
def test_tour_runs_with_few_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    for name in ("docs", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    tour = nbformat.read(TOUR, as_version=4)
    (parameters,) = (cell for cell in tour.cells if "parameters" in cell.metadata.get("tags", []))
    parameters.source = PARAMETERS.format(subwords="gpt2" if HAS_GPT2_ENCODING else "bpe")
    resources = {"metadata": {"path": str(tmp_path / "docs")}}
    nbclient.NotebookClient(tour, timeout=300, kernel_name="python3", resources=resources).execute()
    output_text = printed(tour.cells)
    assert "error:" not in output_text
    assert (tmp_path / "checkpoints" / "tour" / "best.ckpt").is_file()
    untrained = re.findall(r"loss ([\d.]+) (?:before training; |\()ln [\d,]+ = ([\d.]+)", output_text)
    assert len(untrained) == 2  # the character model, and GPT-2's shape
    for loss, guess in untrained:
        assert float(loss) == pytest.approx(float(guess), abs=0.2)
    assert "GPT-3" in output_text
    vocab_size = 50257 if HAS_GPT2_ENCODING else 512
    assert f"ln {vocab_size:,} = {math.log(vocab_size):.2f}" in output_text
