"""The shipped configs."""

from pathlib import Path

import pytest
import yaml

from helpers.checkpoints import last_checkpoint
from helpers.command_line import ROOT, Run
from helpers.marks import needs_gpt2_encoding

CONFIGS = sorted({*(ROOT / "configs").glob("*.yaml")} - {ROOT / "configs" / "scaling.yaml"})  # a grid of runs


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=needs_gpt2_encoding if path.name.startswith("gpt2") else ())
        for path in CONFIGS
    ],
    ids=lambda path: path.name,
)
def test_every_config_takes_two_steps(run: Run, path: Path) -> None:
    small = ["--data.corpus", "python_docs", "--samples.max_new_tokens", "5"]
    small += ["--trainer.limit_val_batches", "2"]
    if path.name.startswith("gpt2"):  # 124 M parameters take too long
        small += ["--model.n_layer", "1", "--model.n_embd", "24", "--data.batch_size", "2"]
    assert run("fit", "--config", path, *small, "--trainer.max_steps", "2", "--run_dir", "r").code == 0
    assert last_checkpoint("r")["global_step"] == 2


@pytest.mark.parametrize(("name", "block_size"), [("gpt2.yaml", 256), ("gpt2_1024.yaml", 1024)])
def test_gpt2_has_the_settings_of_the_second_tutorial(name: str, block_size: int) -> None:
    settings = yaml.safe_load((ROOT / "configs" / name).read_text())
    model = settings["model"]
    assert settings["data"]["tokenizer"] == "gpt2"
    assert model["block_size"] == block_size
    assert (model["n_embd"], model["n_head"], model["n_layer"]) == (768, 12, 12)
    assert (model["dropout"], model["attn_bias"]) == (0.1, False)


def test_tutorial_char_has_the_settings_of_the_first_tutorial() -> None:
    settings = yaml.safe_load((ROOT / "configs" / "tutorial_char.yaml").read_text())
    model, data = settings["model"], settings["data"]
    assert settings["trainer"]["max_steps"] == model["decay_steps"] == 3000
    assert (data["batch_size"], data["val_fraction"], model["block_size"]) == (32, 0.1, 64)
    assert settings["step_control"]["max_norm"] == 1.0
    assert model["activation"] == "gelu"
    assert (model["learning_rate"], model["min_learning_rate"], model["warmup_steps"]) == (3e-4, 3e-5, 100)
    assert (model["beta1"], model["beta2"], model["weight_decay"], model["dropout"]) == (0.9, 0.95, 0.1, 0.1)


def test_tutorial_char_has_the_size_of_the_first_tutorial(run: Run, shakespeare: str) -> None:
    short = ["--trainer.max_steps", "1", "--trainer.limit_val_batches", "1", "--run_dir", "r"]
    done = run("fit", "--config", ROOT / "configs" / "tutorial_char.yaml", *short)
    assert done.code == 0
    assert "807,808 parameters" in done.out
    assert "vocabulary 65" in done.out
