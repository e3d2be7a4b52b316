"""Weights and tokenizers in Hugging Face's layout: equal logits, tokens and text, in both directions."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import torch
from safetensors.torch import save_file

from helpers.checkpoints import best_checkpoint
from helpers.command_line import TINY, Run
from helpers.hub import assert_same_logits, bpe, load_gpt, random_hub_model, transformers, write_hub_folder
from lit_gpt_scratch.data.bpe import END_OF_TEXT, SubwordTokenizer, tokenizer_from_dict
from lit_gpt_scratch.data.corpus import HAMLET
from lit_gpt_scratch.hub.export_folder import export_folder
from lit_gpt_scratch.hub.import_folder import import_folder
from lit_gpt_scratch.hub.pretrained import read_config, read_state
from lit_gpt_scratch.hub.tokenizer import read_tokenizer, to_hub
from lit_gpt_scratch.model.gpt import GPT, GPTConfig
from lit_gpt_scratch.training.checkpoint import read_checkpoint

RNG = random.Random(5)
ANY_TEXT = "".join(
    chr(RNG.choice([RNG.randrange(0xD800), RNG.randrange(0xE000, 0x110000), RNG.randrange(33, 127), 32, 10]))
    for _ in range(3000)
)


@pytest.mark.parametrize(
    ("model_type", "settings"),
    [
        ("gpt2", {"resid_pdrop": 0.2}),
        ("gpt2", {"activation_function": "gelu", "tie_word_embeddings": False}),
        ("gpt2", {"activation_function": "gelu_pytorch_tanh", "n_inner": 192, "n_layer": 1}),
        ("qwen3", {}),
        ("qwen3", {"num_key_value_heads": 2}),
        ("qwen3", {"tie_word_embeddings": False}),
    ],
)
def test_import_and_export_keep_weights_and_logits(
    model_type: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    theirs = random_hub_model(model_type, **settings)
    write_hub_folder(tmp_path / "theirs", theirs)
    assert import_folder(tmp_path / "theirs", tmp_path / "run") == tmp_path / "run"
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["best.ckpt"]
    ours = load_gpt(tmp_path / "run")
    assert ours.n_parameters == theirs.num_parameters()
    assert ours.config.dropout == settings.get("resid_pdrop", 0.1 if model_type == "gpt2" else 0.0)
    assert_same_logits(ours, theirs)
    export_folder(tmp_path / "run" / "best.ckpt", tmp_path / "back")
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back")
    assert_same_logits(ours, back)
    state = theirs.state_dict()
    assert back.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in back.state_dict().items())


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
    """As the first published files were: no prefix, no head, and the masks among the tensors."""
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
def test_all_weight_file_formats_are_read(save: Callable[[Any, Path], None], tmp_path: Path) -> None:
    theirs = random_hub_model()
    save(theirs, tmp_path)
    _, options = read_config(tmp_path)
    ours = GPT(GPTConfig(**options))
    ours.load_state_dict(read_state(tmp_path))
    assert_same_logits(ours, theirs.float())


OPTIONS = {
    "char": ["--model.attn_proj_bias", "true"],
    "byte": ["--model.activation", "gelu", "--model.bias", "false"],
    "bpe": ["--data.vocab_size", "280", "--model.arch", "modern", "--model.n_kv_head", "1"],
    "gpt2": [],
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_transformers_runs_an_exported_run_and_import_reads_it_again(run: Run, kind: str) -> None:
    text = ["--data.tokenizer", kind, "--data.val_fraction", "0.3"]
    trained = run("fit", *TINY, *text, *OPTIONS[kind], "--run_dir", "r")
    if "cannot download the encoding" in trained.err:
        pytest.skip("GPT-2's encoding is not at hand")
    exported = run("export", "--ckpt_path", "r", "--to", "out/hf")
    assert (exported.code, exported.err) == (0, "")
    assert [path.name for path in Path("out").iterdir()] == ["hf"]
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in Path("out/hf").iterdir())
    theirs = transformers.AutoModelForCausalLM.from_pretrained("out/hf")
    their_tokenizer = transformers.AutoTokenizer.from_pretrained("out/hf")
    assert_same_logits(load_gpt("r"), theirs)

    checkpoint = read_checkpoint("r/best.ckpt")
    tokenizer = tokenizer_from_dict(checkpoint["TextDataModule"]["tokenizer"])
    for words in (HAMLET, "To be ", " \n\n  \nTo", "" if kind == "char" else ANY_TEXT):
        assert their_tokenizer(words)["input_ids"] == tokenizer.encode(words).tolist()
        assert their_tokenizer.decode(tokenizer.encode(words).tolist()) == words
    inputs = their_tokenizer("To be", return_tensors="pt")
    written = their_tokenizer.decode(theirs.generate(**inputs, max_new_tokens=20, do_sample=False)[0])

    assert run("import", "--from", "out/hf", "--run_dir", "back").code == 0
    assert_same_logits(load_gpt("back"), theirs)
    assert best_checkpoint("back")["TextDataModule"]["tokenizer"] == tokenizer.to_dict()
    greedy = ["--prompt", "To be", "--max_new_tokens", "20", "--temperature", "0"]
    for checkpoint_path in ("r", "back"):
        assert run("predict", "--ckpt_path", checkpoint_path, *greedy).out == written + "\n"

    card = Path("out/hf/README.md").read_text()
    assert "| corpus | hamlet: 606 characters, sha256" in card
    assert f"| validation loss | {checkpoint['evaluation']['val/loss']:.4f} nats per token" in card
    assert "| training | 20 steps of 8 x 32 tokens, 5,120 in all;" in card


def test_vocab_json_and_merges_txt_are_read(tmp_path: Path) -> None:
    to_hub(bpe()).model.save(str(tmp_path))
    assert (tmp_path / "merges.txt").read_text().startswith("#version")
    assert read_tokenizer(tmp_path, 281) == bpe().to_dict()


def test_a_vocabulary_of_gpt2s_size_without_a_tokenizer_is_gpt2s(tmp_path: Path) -> None:
    assert read_tokenizer(tmp_path, 50257) == {"kind": "tiktoken", "name": "gpt2"}


def test_another_encodings_pattern_and_special_ids_are_exported() -> None:
    pattern = (  # as in cl100k_base
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$"
        r"|\s*[\r\n]|\s+(?!\S)|\s"
    )
    ranks = bpe().encoding._mergeable_ranks
    ranks = ranks | {b"12": 280, b"123": 281, b"34": 282}
    special = {END_OF_TEXT: 600, "<|fim|>": 601}  # after a gap, as there
    encoding = tiktoken.Encoding("newer", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
    newer = SubwordTokenizer(encoding, {"kind": "tiktoken", "name": "newer"})
    assert newer.decode([65, 550, 600]) == f"{newer.decode([65])}{END_OF_TEXT}"  # nothing has the id 550
    made = to_hub(newer)
    for text in (HAMLET, ANY_TEXT, "don't DON'T 1234567 !!\r\n\n  x\n "):
        assert made.encode(text).ids == encoding.encode(text, disallowed_special=())
    assert made.encode(f"a{END_OF_TEXT}<|fim|>").ids[-2:] == [600, 601]
