"""Attention maps in TensorBoard."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.command_line import TINY, Run
from helpers.events import events
from lit_gpt_scratch.data.corpus import HAMLET
from lit_gpt_scratch.model.gpt import GPT, GPTConfig
from lit_gpt_scratch.model.layers import attend
from lit_gpt_scratch.training.callbacks.attention_maps import attention_maps, plot_attention

FIT = ["fit", *TINY, "--eval_every", "5", "--trainer.log_every_n_steps", "5", "--save_every", "5"]


@pytest.mark.parametrize("sizes", [{"n_kv_head": 2, "arch": "modern"}, {"arch": "gpt2", "attn_bias": True}])
def test_attention_maps_reproduce_the_models_attention(sizes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(vocab_size=50, n_layer=2, n_head=4, n_embd=32, **sizes))
    heads: list[tuple[torch.Tensor, ...]] = []
    for block in gpt.h:
        block.attn.register_forward_pre_hook(lambda attn, inputs: heads.append(attn.heads(*inputs[:2])))
    maps = attention_maps(gpt, torch.randint(50, (12,)))
    assert gpt.training
    assert len(maps) == 2
    for weights, (q, k, v) in zip(maps, heads, strict=True):
        values = v.repeat_interleave(4 // v.shape[1], dim=1)[0]
        torch.testing.assert_close(weights @ values, attend(q, k, v)[0], atol=1e-5, rtol=1e-5)
        assert torch.all(weights.triu(1) == 0)
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(4, 12))
    assert all(len(block.attn._forward_pre_hooks) == 1 for block in gpt.h)  # the hook of this test


def test_attention_plot_accepts_any_label() -> None:
    picture = plot_attention(torch.eye(3).expand(5, 3, 3), ["$a$", "字", "⏎"])
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert len(np.unique(picture[..., 0])) > 10


def test_inspection_shows_attention_maps(run: Run) -> None:
    sentence = ["--callbacks.inspection", "true", "--inspection.sentence", "To be, or"]
    done = run(*FIT, "--trainer.max_steps", 5, *sentence, "--run_dir", "r")
    assert (done.code, done.err) == (0, "")
    logged = events("r")
    assert logged.Tags()["images"] == ["attention/layer_01", "attention/layer_02"]
    assert [picture.step for picture in logged.Images("attention/layer_01")] == [0, 5]


def test_default_sentence_is_the_beginning_of_the_validation_text(run: Run) -> None:
    begin = ["--inspection.sentence", HAMLET[int(0.9 * len(HAMLET)) :][:32]]
    for name, sentence in (("none", []), ("same", begin)):
        on = ["--callbacks.inspection", "true", *sentence, "--run_dir", name]
        assert run(*FIT, "--trainer.max_steps", 5, *on).code == 0
    none, same = (events(name).Images("attention/layer_01")[0] for name in ("none", "same"))
    assert none.encoded_image_string == same.encoded_image_string


def test_sentence_longer_than_a_block_is_rejected(run: Run, tmp_path: Path) -> None:
    long = ["--callbacks.inspection", "true", "--inspection.sentence", "to be " * 20]
    done = run(*FIT, "--trainer.max_steps", 5, *long, "--run_dir", "r")
    assert done.code == 2
    assert "inspection.sentence has 120 tokens, but model.block_size is 32" in done.err
    assert not Path("r").exists()


def test_inspection_without_tensorboard_logs_a_warning(run: Run) -> None:
    without = ["--trainer.logger", "false", "--callbacks.inspection", "true"]
    done = run(*FIT, "--trainer.max_steps", 5, *without, "--run_dir", "r")
    assert done.code == 0
    assert (
        done.err
        == "WARNING: callbacks.inspection needs a TensorBoard logger, which is missing: nothing is shown\n"
    )
    assert "tensorboard" not in done.out
    files = {"best.ckpt", "last.ckpt", "config.yaml", "samples.md"}
    assert {path.name for path in Path("r").iterdir()} == files


def test_unknown_characters_of_a_sentence_are_left_out(run: Run) -> None:
    odd = ["--callbacks.inspection", "true", "--inspection.sentence", "Ωto be"]
    done = run(*FIT, "--trainer.max_steps", 5, *odd, "--run_dir", "r")
    assert done.err == "WARNING: not in the vocabulary: 'Ω'; left out of inspection.sentence\n"
