"""Formats of weight files in Hugging Face folders."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.hub import assert_same_logits, random_hub_model
from lit_gpt_scratch.hub.pretrained import read_config, read_state
from lit_gpt_scratch.model.gpt import GPT, GPTConfig


def save_bin(model: Any, folder: Path, **options: Any) -> None:
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin", **options)


def save_bin_shards(model: Any, folder: Path) -> None:
    model.config.save_pretrained(folder)
    state, weight_map = model.state_dict(), {}
    for i, half in enumerate((list(state)[::2], list(state)[1::2])):
        torch.save({name: state[name] for name in half}, folder / f"part-{i}.bin")
        weight_map |= dict.fromkeys(half, f"part-{i}.bin")
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def save_without_head(model: Any, folder: Path) -> None:
    """Save the layout of the first published files: no prefix, no head, but causal masks."""
    tensors = {name: tensor.clone() for name, tensor in model.transformer.state_dict().items()}
    tensors |= {f"h.{i}.attn.bias": torch.ones(1, 1, 32, 32) for i in range(3)}
    model.config.save_pretrained(folder)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    "save",
    [
        lambda model, folder: model.save_pretrained(folder, max_shard_size="100KB"),
        lambda model, folder: model.half().save_pretrained(folder),
        save_bin,
        lambda model, folder: save_bin(model, folder, _use_new_zipfile_serialization=False),  # torch < 1.6
        save_bin_shards,
        save_without_head,
    ],
    ids=["shards", "half precision", "bin", "old bin", "shards of bin", "without head"],
)
def test_weight_file_formats_are_read(save: Callable[[Any, Path], None], tmp_path: Path) -> None:
    theirs = random_hub_model()
    save(theirs, tmp_path)
    _, options = read_config(tmp_path)
    ours = GPT(GPTConfig(**options))
    ours.load_state_dict(read_state(tmp_path))
    assert_same_logits(ours, theirs.float())


def test_head_that_differs_from_tied_embeddings_is_rejected(tmp_path: Path) -> None:
    theirs = random_hub_model()
    theirs.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    weights["lm_head.weight"] = weights["transformer.wte.weight"].clone()
    save_file(weights, file, metadata={"format": "pt"})
    assert torch.equal(read_state(tmp_path)["lm_head.weight"], theirs.lm_head.weight)
    weights["lm_head.weight"] += 1
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lm_head.weight differs from the token embeddings"):
        read_state(tmp_path)
