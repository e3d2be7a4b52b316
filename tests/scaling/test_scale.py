"""Scaling laws: fit, published models, and a grid of runs that is resumed."""

import json
import math
import shutil
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from helpers.checkpoints import last_checkpoint
from helpers.command_line import ROOT, Run
from lit_gpt_scratch.cli.main import main
from lit_gpt_scratch.model.gpt import GPT, GPTConfig
from lit_gpt_scratch.scaling import law as law_module
from lit_gpt_scratch.scaling import scale
from lit_gpt_scratch.scaling.law import (
    BESIROGLU,
    HOFFMANN,
    Floats,
    Law,
    bootstrap,
    confidence_interval,
    fit_law,
)
from lit_gpt_scratch.scaling.published import MODELS

TRUE_LAW = Law(E=1.2, A=20.0, B=90.0, alpha=0.38, beta=0.42)


def runs_of_true_law(noise: float) -> Floats:
    rng = np.random.default_rng(0)
    grid = [(n, d) for n in (27_000, 60_000, 150_000, 450_000) for d in (65_536, 131_072, 262_144, 524_288)]
    return np.array([(n, d, TRUE_LAW.loss(n, d) * math.exp(noise * rng.normal())) for n, d in grid])


def test_fit_recovers_the_law_of_noiseless_runs() -> None:
    assert vars(fit_law(runs_of_true_law(noise=0))) == pytest.approx(vars(TRUE_LAW), rel=1e-3)


def test_confidence_intervals_contain_the_true_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(law_module, "N_BOOTSTRAP", 20)
    runs = runs_of_true_law(noise=0.004)
    laws = bootstrap(fit_law(runs), runs)
    for name, value in vars(TRUE_LAW).items():
        low, high = confidence_interval(laws, attrgetter(name))
        assert low < value < high, name
    low, high = confidence_interval(laws, lambda law: law.loss(1e6, 2e6))
    assert low < TRUE_LAW.loss(1e6, 2e6) < high < low + 0.1


def test_fit_is_robust_to_one_outlier() -> None:
    runs = runs_of_true_law(noise=0)
    runs[5, 2] *= 1.2
    assert fit_law(runs).loss(1e6, 2e6) == pytest.approx(TRUE_LAW.loss(1e6, 2e6), rel=2e-3)


def test_laws_with_extreme_constants_are_finite() -> None:
    assert Law(E=1.5, A=2.0, B=3.0, alpha=200.0, beta=300.0).loss(10**6, 10**7) == 1.5
    optimal = Law(E=1.5, A=1e-40, B=1e-3, alpha=5e-5, beta=5e-5).optimal(1e15)
    assert optimal == pytest.approx((1, 1e15 / 6))
    rng = np.random.default_rng(1)
    runs = np.array([(n, d, 3 + rng.normal()) for n in (10, 20, 30) for d in (100, 200, 300)])
    for law in bootstrap(fit_law(runs), runs):
        assert 0 < law.optimal_loss(1e15) < np.inf


@pytest.mark.parametrize("law", [HOFFMANN, BESIROGLU, TRUE_LAW])
def test_optimal_has_the_lowest_loss_for_its_flops(law: Law) -> None:
    n, d = law.optimal(1e18)
    assert 6 * n * d == pytest.approx(1e18)
    assert law.optimal_loss(1e18) == law.loss(n, d)
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert law.loss(n * factor, d / factor) > law.optimal_loss(1e18)


def test_too_few_sizes_or_tokens_are_rejected() -> None:
    with pytest.raises(ValueError, match="at least 3 sizes and 3 numbers of tokens"):
        fit_law(np.array([(n, 1000, 2.0) for n in (1, 2, 3, 4)]))


def test_published_parameters_follow_from_the_shapes() -> None:
    def gpt(n_layer: int, n_embd: int, n_head: int, block_size: int) -> int:
        sizes = {"n_layer": n_layer, "n_embd": n_embd, "n_head": n_head, "block_size": block_size}
        with torch.device("meta"):
            return GPT(GPTConfig(50_257, attn_bias=True, **sizes)).n_parameters

    layers, width, kv, mlp = 80, 8192, 1024, 28_672
    # Attention of five matrices, one for relative positions; an MLP of two; two norms, and one at the end.
    chinchilla = layers * (5 * width**2 + 2 * width * 4 * width + 2 * width) + 32_000 * width + width
    # Grouped-query attention; an MLP of three matrices; an output head.
    block = 2 * width**2 + 2 * width * kv + 3 * width * mlp + 2 * width
    assert {name: n for name, (n, _) in MODELS.items()} == {
        "GPT-2 small": gpt(12, 768, 12, 1024),
        "GPT-2 XL": gpt(48, 1600, 25, 1024),
        "Chinchilla": chinchilla,
        "Llama 3 70B": layers * block + 2 * 128_256 * width + width,
        "GPT-3": gpt(96, 12_288, 96, 2048),
    }


def test_published_laws_give_the_published_losses() -> None:
    assert HOFFMANN.loss(70e9, 1.4e12) == pytest.approx(1.936, abs=1e-3)
    assert HOFFMANN.loss(175e9, 300e9) == pytest.approx(2.002, abs=1e-3)
    n, d = BESIROGLU.optimal(5.76e23)  # Chinchilla's FLOPs
    assert 15 < d / n < 25
    assert 60e9 < n < 80e9


def test_reference_shows_published_models_and_own_runs(run: Run, finished: Path) -> None:
    done = run("scale", "--reference", "--runs", finished.parent, "--run_dir", "out")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0].split() == ["model", "parameters", "tokens", "FLOPs", "D/N", "Hoffmann", "Besiroglu"]
    assert " ".join(lines[3].split()) == "Chinchilla 70,056,681,472 1.4e+12 5.9e+23 20.0 1.937 1.974"
    (own,) = (line for line in lines if line.startswith("run"))
    assert own.split()[:3] == ["run", "27,488", "1.0e+04"]  # 40 steps of 8 x 32
    assert Path("out/reference.png").read_bytes()[1:4] == b"PNG"
    assert "your run" not in run("scale", "--reference").out  # there are none yet


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Arguments of each `fit`, which runs in this process: a separate one takes seconds to start."""
    calls = []

    def run_fit(arguments: list[str]) -> None:
        calls.append(arguments)
        assert main(["fit", *arguments]) == 0

    monkeypatch.setattr(scale, "run_fit", run_fit)
    monkeypatch.setattr(law_module, "N_BOOTSTRAP", 3)
    return calls


@pytest.mark.slow
def test_interrupted_grid_is_resumed_and_finished_runs_are_kept(run: Run, fits: list[list[str]]) -> None:
    """The shipped grid, on fewer tokens of a smaller text."""
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

    # One run has not saved yet, another one is at half its steps, all others are finished.
    Path("grid/2x32-1024/last.ckpt").unlink()
    shutil.rmtree("grid/3x64-2048")
    half = ["--trainer.max_steps", "2", "--model.decay_steps", "4", "--run_dir", "grid/3x64-2048"]
    assert main(["fit", "--config", "grid/3x64-2048.yaml", *half]) == 0
    settings = Path("grid/3x64-2048/config.yaml")
    settings.write_text(settings.read_text().replace("max_steps: 2", "max_steps: 4"))
    assert run(*args).code == 0
    assert [arguments[0] for arguments in fits[10:]] == ["--config", "--ckpt_path"]
    assert json.loads(Path("grid/scaling.json").read_text()) == result
    assert json.loads(run(*args, "--json").out) == result

    config["fit"]["data"]["batch_size"] = 4
    Path("scaling.yaml").write_text(yaml.safe_dump(config))
    refused = run(*args)
    assert (refused.code, len(fits)) == (2, 12)
    assert "grid/2x32-512 is a run with other options: name another --run_dir" in refused.err


SIZES = ["--sizes", "[{n_layer: 1, n_embd: 16}, {n_layer: 1, n_embd: 32}, {n_layer: 2, n_embd: 32}]"]
GRID = [*SIZES, "--tokens", "[1024, 2048, 4096]", "--run_dir", "grid"]
FIT = ["--fit", "{data: {batch_size: 8}, model: {block_size: 16}}"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "a law of five constants needs more runs"),
        ([*GRID, "--tokens", "[1024, 2048]", *FIT], "--sizes and --tokens with at least 3 values each"),
        (["--config", "nothing.yaml"], "nothing.yaml"),
        (GRID, "fit must say how many tokens a step takes: 'data' is missing"),
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
