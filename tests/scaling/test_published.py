"""`scale --reference`: published models and laws."""

from pathlib import Path

import torch

from helpers.command_line import Run
from lit_gpt_scratch.model.gpt import GPT, GPTConfig
from lit_gpt_scratch.scaling.published import MODELS


def test_published_parameter_counts_follow_from_the_shapes() -> None:
    def gpt(n_layer: int, n_embd: int, n_head: int, block_size: int) -> int:
        sizes = {"n_layer": n_layer, "n_embd": n_embd, "n_head": n_head, "block_size": block_size}
        with torch.device("meta"):
            return GPT(GPTConfig(50_257, attn_bias=True, **sizes)).n_parameters

    layers, width, kv, mlp = 80, 8192, 1024, 28_672
    # Five attention matrices, one of them for relative positions; two MLP matrices; two norms; a final norm.
    chinchilla = layers * (5 * width**2 + 2 * width * 4 * width + 2 * width) + 32_000 * width + width
    # Grouped-query attention; three MLP matrices; an output head.
    block = 2 * width**2 + 2 * width * kv + 3 * width * mlp + 2 * width
    assert {name: n for name, (n, _) in MODELS.items()} == {
        "GPT-2 small": gpt(12, 768, 12, 1024),
        "GPT-2 XL": gpt(48, 1600, 25, 1024),
        "Chinchilla": chinchilla,
        "Llama 3 70B": layers * block + 2 * 128_256 * width + width,
        "GPT-3": gpt(96, 12_288, 96, 2048),
    }


def test_reference_shows_published_models_and_own_runs(run: Run, finished: Path) -> None:
    done = run("scale", "--reference", "--runs", finished.parent, "--run_dir", "out")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0].split() == ["model", "parameters", "tokens", "FLOPs", "D/N", "Hoffmann", "Besiroglu"]
    assert " ".join(lines[3].split()) == "Chinchilla 70,056,681,472 1.4e+12 5.9e+23 20.0 1.937 1.974"
    (own,) = (line for line in lines if line.startswith("run"))
    assert own.split()[:3] == ["run", "27,488", "1.0e+04"]  # 40 steps of 8 x 32
    assert Path("out/reference.png").read_bytes()[1:4] == b"PNG"
    assert "your run" not in run("scale", "--reference").out  # there are no runs yet
