"""Scaling laws: a planted one is found again, and the published ones say what is known."""

import json
import math
import shutil
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, Run

from lit_gpt_scratch.cli.main import main
from lit_gpt_scratch.tools import scale
from lit_gpt_scratch.tools.published import published_models
from lit_gpt_scratch.tools.scaling_law import BESIROGLU, HOFFMANN, Law, Point, fit_law

PLANTED = Law(E=1.2, A=20.0, B=90.0, alpha=0.38, beta=0.42)


def planted_runs(noise: float) -> list[Point]:
    rng = np.random.default_rng(0)
    return [
        Point(n, d, PLANTED.loss(n, d) * math.exp(noise * rng.normal()))
        for n in (27_000, 60_000, 150_000, 450_000)
        for d in (65_536, 131_072, 262_144, 524_288)
    ]


def test_a_planted_law_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_gpt_scratch.tools.scaling_law.N_BOOTSTRAP", 20)
    exact = fit_law(planted_runs(noise=0)).law
    for name in ("E", "A", "B", "alpha", "beta"):
        assert getattr(exact, name) == pytest.approx(getattr(PLANTED, name), rel=1e-3), name
    noisy = fit_law(planted_runs(noise=0.004))
    for name in ("E", "A", "B", "alpha", "beta"):
        low, high = noisy.interval(attrgetter(name))
        assert low < getattr(PLANTED, name) < high, name
    low, high = noisy.interval(lambda law: law.loss(1e6, 2e6))
    assert low < PLANTED.loss(1e6, 2e6) < high
    assert high - low < 0.1


def test_one_bad_run_does_not_bend_the_law(monkeypatch: pytest.MonkeyPatch) -> None:
    """Huber's loss: squares would follow a run that went wrong."""
    monkeypatch.setattr("lit_gpt_scratch.tools.scaling_law.N_BOOTSTRAP", 1)
    runs = planted_runs(noise=0)
    runs[5] = Point(runs[5].n_parameters, runs[5].n_tokens, runs[5].loss * 1.2)
    law = fit_law(runs).law
    assert law.loss(1e6, 2e6) == pytest.approx(PLANTED.loss(1e6, 2e6), rel=2e-3)


def test_large_exponents_do_not_overflow() -> None:
    assert Law(E=1.5, A=2.0, B=3.0, alpha=200.0, beta=300.0).loss(10**6, 10**7) == 1.5


def test_a_law_of_one_constant_can_be_computed_with() -> None:
    n, d = Law(E=1.5, A=1e-40, B=1e-3, alpha=5e-5, beta=5e-5).optimal(1e15)
    assert (n, d) == pytest.approx((1, 1e15 / 6))
    random = np.random.default_rng(1)
    odd = [Point(n, d, 3 + random.normal()) for n in (10, 20, 30) for d in (100, 200, 300)]
    for law in fit_law(odd).drawn:
        assert 0 < law.best_loss(1e15) < np.inf


@pytest.mark.parametrize("law", [HOFFMANN, BESIROGLU, PLANTED])
def test_the_best_for_a_number_of_flops(law: Law) -> None:
    n, d = law.optimal(1e18)
    assert 6 * n * d == pytest.approx(1e18)
    assert law.best_loss(1e18) == law.loss(n, d)
    for other in (0.5, 0.9, 1.1, 2.0):
        assert law.loss(n * other, d / other) > law.best_loss(1e18)


def test_what_is_known_of_the_published() -> None:
    found = {model.name: model for model in published_models()}
    assert found["GPT-2 small"].n_parameters == 124_439_808
    assert found["GPT-2 XL"].n_parameters == 1_557_611_200
    assert found["GPT-3"].n_parameters == pytest.approx(174.6e9, rel=1e-3)
    assert found["Chinchilla"].n_parameters == pytest.approx(70e9, rel=0.01)
    assert found["Llama 3 70B"].n_parameters == pytest.approx(70.6e9, rel=0.01)
    assert HOFFMANN.loss(70e9, 1.4e12) == pytest.approx(1.936, abs=1e-3)
    assert HOFFMANN.loss(175e9, 300e9) == pytest.approx(2.002, abs=1e-3)
    n, d = BESIROGLU.optimal(5.76e23)  # what Chinchilla cost
    assert 15 < d / n < 25
    assert 60e9 < n < 80e9


def test_too_few_runs_for_a_law() -> None:
    with pytest.raises(ValueError, match="4 runs of 4 sizes and 1 numbers of tokens: give three of each"):
        fit_law([Point(n, 1000, 2.0) for n in (1, 2, 3, 4)])


def test_the_reference(run: Run, finished: Path) -> None:
    done = run("scale", "--reference", "--runs", finished.parent, "--run_dir", "out")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0].split() == ["model", "parameters", "tokens", "FLOPs", "D/N", "Hoffmann", "Besiroglu"]
    chinchilla = "Chinchilla 70,056,681,472 1.4e+12 5.9e+23 20.0 1.937 1.974"
    assert lines[3].split() == chinchilla.split()
    (own,) = (line for line in lines if line.startswith("run"))
    assert own.split()[:3] == ["run", "27,488", "1.0e+04"]  # 40 steps of 8 x 32
    assert Path("out/reference.png").read_bytes()[1:4] == b"PNG"
    assert json.loads(run("scale", "--reference", "--json").out)["runs"] == []  # nothing is there yet
    assert run("scale", "--reference", "--runs", "none").err == "error: no such folder: none\n"
    Path("file").touch()
    assert run("scale", "--reference", "--run_dir", "file").err.startswith(
        "error: cannot make the folder file"
    )


def test_a_grid_too_small_for_a_law_is_not_trained(run: Run) -> None:
    small = ["--sizes", "[{n_layer: 1, n_embd: 16}]", "--tokens", "[1024]", "--run_dir", "grid"]
    done = run("scale", *small)
    assert done.code == 2
    assert "a law has five constants, too many for 1 runs of 1 sizes and 1 numbers of tokens" in done.err
    assert not Path("grid").exists()


GRID = [
    *("--sizes", "[{n_layer: 1, n_embd: 16}, {n_layer: 1, n_embd: 32}, {n_layer: 2, n_embd: 32}]"),
    *("--tokens", "[1024, 2048, 4096]", "--held_out", "{n_layer: 2, n_embd: 64, tokens: 8192}"),
    *("--run_dir", "grid"),
]
SHARED = {
    "data": {"corpus": "hamlet", "batch_size": 8},
    "model": {"block_size": 16, "n_head": 2, "warmup_steps": 2},
    "callbacks": {"samples": False},
}


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Runs of `fit`, in this process instead of one of their own, which would take seconds to start."""
    calls = []

    def finish(arguments: list[str]) -> None:
        calls.append(arguments)
        assert main(["fit", *arguments]) == 0

    monkeypatch.setattr(scale, "finish", finish)
    monkeypatch.setattr("lit_gpt_scratch.tools.scaling_law.N_BOOTSTRAP", 3)
    monkeypatch.setattr("lit_gpt_scratch.tools.scaling_law.STARTS", ((4.0,), (4.0,), (0.4,), (0.6,)))
    return calls


@pytest.mark.slow
def test_a_grid_is_trained_once(run: Run, fits: list[list[str]]) -> None:
    """The grid that is shipped, on fewer tokens of a smaller text."""
    config = yaml.safe_load((ROOT / "configs" / "scaling.yaml").read_text())
    config |= {"run_dir": "grid", "sizes": config["sizes"][:3], "tokens": [512, 1024, 2048]}
    config["held_out"]["tokens"] = 4096
    config["fit"]["data"]["corpus"] = "hamlet"
    Path("scaling.yaml").write_text(yaml.safe_dump(config))
    args = ("scale", "--config", "scaling.yaml")
    done = run(*args)
    assert done.code == 0
    assert len(fits) == 10
    said = done.err.splitlines()
    assert (said[0], said[1].split()[:3]) == ("10 runs, in grid", ["run", "1/10", "2x32-512"])
    result = json.loads(Path("grid/scaling.json").read_text())
    assert [one["n_tokens"] for one in result["runs"]] == [512, 1024, 2048] * 3
    held_out = result["held_out"]
    assert said[10].endswith(f"{held_out['n_parameters']:,} parameters  val loss {held_out['loss']:.4f}")
    assert held_out == {**held_out, "name": "4x128-4096", "n_tokens": 4096, "step": 8, "optimizer": "muon"}
    law = Law(**result["law"])
    expected = law.loss(held_out["n_parameters"], held_out["n_tokens"])
    assert held_out["error"] == pytest.approx(expected / held_out["loss"] - 1)
    assert f"foretold {expected:.4f}, was {held_out['loss']:.4f}: {held_out['error']:+.1%}" in done.out
    last = torch.load("grid/4x128-4096/last.ckpt", weights_only=True)
    assert last["evaluation"]["val/loss"] == held_out["loss"]
    assert Path("grid/scaling.png").read_bytes()[1:4] == b"PNG"

    assert json.loads(run(*args, "--json").out) == result
    assert len(fits) == 10  # nothing was left to do
    config["fit"]["data"]["batch_size"] = 4
    Path("scaling.yaml").write_text(yaml.safe_dump(config))
    refused = run(*args)
    assert (refused.code, len(fits)) == (2, 10)
    assert "grid/2x32-512 is a run with other options: name another --run_dir" in refused.err


@pytest.mark.faults
def test_a_grid_that_was_stopped_goes_on(run: Run, fits: list[list[str]]) -> None:
    whole = json.dumps(SHARED)
    assert run("scale", *GRID, "--fit", whole).code == 0
    straight = json.loads(Path("grid/scaling.json").read_text())
    Path("grid/scaling.json").unlink()
    # One run has not saved yet, another one is at half its steps.
    Path("grid/1x32-2048/last.ckpt").unlink()
    half = ["--config", "grid/2x32-4096.yaml", "--trainer.max_steps", "16", "--model.decay_steps", "32"]
    shutil.rmtree("grid/2x32-4096")
    assert main(["fit", *half, "--run_dir", "grid/2x32-4096"]) == 0
    config = Path("grid/2x32-4096/config.yaml")
    config.write_text(config.read_text().replace("max_steps: 16", "max_steps: 32"))
    del fits[:]
    assert run("scale", *GRID, "--fit", whole).code == 0
    assert [arguments[0] for arguments in fits] == ["--config", "--ckpt_path"]
    assert json.loads(Path("grid/scaling.json").read_text()) == straight


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "there is nothing to train: give --config configs/scaling.yaml, or --sizes and --tokens"),
        (["--config", "nothing.yaml"], "nothing.yaml"),
        ([*GRID], "fit must say how many tokens a step takes: 'data' is missing"),
        (
            [*GRID, "--tokens", "[10, 1024, 2048]", "--fit", json.dumps(SHARED)],
            "10 tokens are less than a step",
        ),
        ([*GRID, "--tokens", "[2048, 2048]", "--fit", json.dumps(SHARED)], "two runs have the same n_layer"),
        ([*GRID, "--sizes", "[{n_layer: 1}]"], "a size needs n_layer and n_embd: {'n_layer': 1}"),
    ],
)
def test_mistakes(run: Run, args: list[str], message: str) -> None:
    done = run("scale", *args)
    assert done.code == 2
    assert message in done.err
