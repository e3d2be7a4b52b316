"""`scale`: a grid of runs."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from helpers.checkpoints import last_checkpoint
from helpers.command_line import ROOT, Run
from lit_gpt_scratch.cli.main import main
from lit_gpt_scratch.scaling import law as law_module
from lit_gpt_scratch.scaling import scale
from lit_gpt_scratch.scaling.law import (
    Law,
)


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return the arguments of each `fit`; it runs in this process, which is faster."""
    calls = []

    def run_fit(arguments: list[str]) -> None:
        calls.append(arguments)
        assert main(["fit", *arguments]) == 0

    monkeypatch.setattr(scale, "run_fit", run_fit)
    monkeypatch.setattr(law_module, "N_BOOTSTRAP", 3)
    return calls


@pytest.mark.slow
def test_interrupted_grid_is_resumed_and_finished_runs_are_kept(run: Run, fits: list[list[str]]) -> None:
    """The grid of configs/scaling.yaml, with fewer tokens of a smaller text."""
    config = yaml.safe_load((ROOT / "configs" / "scaling.yaml").read_text())
    config |= {"run_dir": "grid", "sizes": config["sizes"][:3], "tokens": [512, 1024, 2048]}
    config["held_out"]["tokens"] = 4096
    config["fit"]["data"]["corpus"] = "hamlet"
    config["fit"]["model"]["warmup_steps"] = 1
    Path("scaling.yaml").write_text(yaml.safe_dump(config))
    args = ("scale", "--config", "scaling.yaml")
    done = run(*args)
    assert done.code == 0
    assert len(fits) == 10
    lines = done.err.splitlines()
    assert (lines[0], lines[1].split()[:3]) == ("10 runs, in grid", ["run", "1/10", "2x32-512"])
    result = json.loads(Path("grid/scaling.json").read_text())
    assert [one["n_tokens"] for one in result["runs"]] == [512, 1024, 2048] * 3
    held_out = result["held_out"]
    assert lines[10].endswith(f"{held_out['n_parameters']:,} parameters  val loss {held_out['loss']:.4f}")
    assert held_out == {**held_out, "name": "4x128-4096", "n_tokens": 4096, "step": 8, "optimizer": "muon"}
    predicted = Law(**result["law"]).loss(held_out["n_parameters"], held_out["n_tokens"])
    assert held_out["error"] == pytest.approx(predicted / held_out["loss"] - 1)
    assert f"predicted {predicted:.4f}, measured {held_out['loss']:.4f}, error" in done.out
    last = last_checkpoint("grid/4x128-4096")
    assert last["evaluation"]["val/loss"] == held_out["loss"]
    assert Path("grid/scaling.png").read_bytes()[1:4] == b"PNG"

    # One run has not saved yet, one is at half of its steps, and the others are finished.
    Path("grid/2x32-1024/last.ckpt").unlink()
    shutil.rmtree("grid/3x64-2048")
    half = ["--trainer.max_steps", "2", "--model.decay_steps", "4", "--run_dir", "grid/3x64-2048"]
    assert main(["fit", "--config", "grid/3x64-2048.yaml", *half]) == 0
    settings = Path("grid/3x64-2048/config.yaml")
    settings.write_text(settings.read_text().replace("max_steps: 2", "max_steps: 4"))
    assert run(*args).code == 0
    assert [arguments[0] for arguments in fits[10:]] == ["--config", "--ckpt_path"]
    assert json.loads(Path("grid/scaling.json").read_text()) == result

    config["fit"]["data"]["batch_size"] = 4
    Path("scaling.yaml").write_text(yaml.safe_dump(config))
    rejected = run(*args)
    assert (rejected.code, len(fits)) == (2, 12)
    assert "grid/2x32-512 is a run with other options: name another --run_dir" in rejected.err


SIZES = ["--sizes", "[{n_layer: 1, n_embd: 16}, {n_layer: 1, n_embd: 32}, {n_layer: 2, n_embd: 32}]"]
GRID = [*SIZES, "--tokens", "[1024, 2048, 4096]", "--run_dir", "grid"]
FIT = ["--fit", "{data: {batch_size: 8}, model: {block_size: 16}}"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "a law of five constants needs more runs"),
        ([*GRID, "--tokens", "[1024, 2048]", *FIT], "--sizes and --tokens with at least 3 values each"),
        (["--config", "nothing.yaml"], "nothing.yaml"),
        (GRID, "fit must set data.batch_size and model.block_size, the tokens of a step: 'data' is missing"),
        ([*GRID, "--tokens", "[10, 1024, 2048]", *FIT], "10 tokens are less than a step, which takes 128"),
        (
            [*GRID, "--tokens", "[1024, 2048, 2048]", *FIT],
            "two runs have the same n_layer, n_embd and tokens",
        ),
        ([*GRID, "--held_out", "{n_layer: 1}", *FIT], "a size needs n_layer and n_embd, and held_out tokens"),
        (["--reference", "--runs", "none"], "error: no such folder: none"),
        (["--reference", "--run_dir", "file"], "error: cannot make the folder file"),
    ],
)
def test_invalid_options_exit_2_before_training(run: Run, args: list[str], message: str) -> None:
    Path("file").touch()
    done = run("scale", *args)
    assert done.code == 2
    assert message in done.err
    assert not Path("grid").exists()
