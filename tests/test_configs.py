"""Every shipped config runs, and says what its tutorial says."""

from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT, Run

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_takes_two_steps(run: Run, path: Path) -> None:
    small = [
        "--data.corpus",
        "python_docs",
        "--trainer.limit_val_batches",
        "2",
        "--samples.max_new_tokens",
        "5",
    ]
    assert run("fit", "--config", path, *small, "--trainer.max_steps", "2", "--run_dir", "r").code == 0
    assert torch.load("r/last.ckpt", weights_only=True)["global_step"] == 2


def test_day20_is_the_tutorial() -> None:
    settings = yaml.safe_load((ROOT / "configs" / "day20.yaml").read_text())
    model, data = settings["model"], settings["data"]
    assert settings["trainer"]["max_steps"] == model["decay_steps"] == 3000
    assert (data["batch_size"], data["val_fraction"], model["block_size"]) == (32, 0.1, 64)
    assert settings["gradient_clipping"]["max_norm"] == 1.0
    assert model["activation"] == "gelu"
    assert (model["learning_rate"], model["min_learning_rate"], model["warmup_steps"]) == (3e-4, 3e-5, 100)
    assert (model["beta1"], model["beta2"], model["weight_decay"], model["dropout"]) == (0.9, 0.95, 0.1, 0.1)


def test_day20_has_the_tutorials_size(run: Run, shakespeare: str) -> None:
    done = run(
        "fit",
        "--config",
        ROOT / "configs" / "day20.yaml",
        "--trainer.max_steps",
        "1",
        "--trainer.limit_val_batches",
        "1",
        "--run_dir",
        "r",
    )
    assert done.code == 0
    assert "807,808 parameters" in done.out
    assert "vocabulary 65" in done.out
