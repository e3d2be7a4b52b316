"""Weights and tokenizers in Hugging Face's layout: equal logits, tokens and text, both ways."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, Run
from hub import assert_same_logits, bpe, gpt_of, random_hub_model, transformers
from safetensors.torch import save_file

from lit_gpt_scratch.data.corpus import HAMLET, Corpus
from lit_gpt_scratch.data.subwords import END_OF_TEXT, SubwordTokenizer, tokenizer_from_dict, train_bpe
from lit_gpt_scratch.data.tokenizer import ByteTokenizer, CharTokenizer, Tokenizer
from lit_gpt_scratch.hub import qwen3
from lit_gpt_scratch.hub.export_folder import export_folder
from lit_gpt_scratch.hub.import_folder import import_folder
from lit_gpt_scratch.hub.pretrained import read_options, read_state
from lit_gpt_scratch.hub.tokenizer import read_tokenizer, to_hub
from lit_gpt_scratch.model.gpt import GPT, GPTConfig
from lit_gpt_scratch.training.checkpoint_io import read_checkpoint

RNG = random.Random(5)
ANY_TEXT = "".join(
    chr(RNG.choice([RNG.randrange(0xD800), RNG.randrange(0xE000, 0x110000), RNG.randrange(33, 127), 32, 10]))
    for _ in range(3000)
)


@pytest.mark.parametrize(
    "settings",
    [{}, {"activation_function": "gelu"}, {"tie_word_embeddings": False}, {"n_inner": 192, "n_layer": 1}],
)
def test_their_weights_give_their_logits(tmp_path: Path, settings: dict[str, Any]) -> None:
    theirs = random_hub_model(vocab_size=281, **settings)
    theirs.save_pretrained(tmp_path / "theirs")
    to_hub(bpe(281)).save(str(tmp_path / "theirs" / "tokenizer.json"))
    assert import_folder(tmp_path / "theirs", tmp_path / "run") == tmp_path / "run"
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["best.ckpt"]
    ours = gpt_of(tmp_path / "run")
    assert sum(p.numel() for p in ours.parameters()) == theirs.num_parameters()
    assert_same_logits(ours, theirs)


@pytest.mark.parametrize("settings", [{}, {"n_kv_head": 2}, {"tie_weights": False}])
def test_modern_is_qwen3(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Parameter for parameter: their model has no tensor that is not given, and gives the same logits."""
    torch.manual_seed(0)
    config = GPTConfig(
        vocab_size=281, arch="modern", block_size=32, n_layer=3, n_head=4, n_embd=48, **settings
    )
    ours = GPT(config)
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    theirs = qwen3.to_transformers(ours).eval()
    assert qwen3.gpt_options(theirs.config).items() <= vars(config).items() | {("n_kv_head", config.kv_heads)}
    back = qwen3.gpt_state(theirs)
    assert back.keys() == ours.state_dict().keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in ours.state_dict().items())
    assert sum(p.numel() for p in ours.parameters()) == theirs.num_parameters()
    assert_same_logits(ours, theirs)


def save_bin(model: Any, folder: Path) -> None:
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")


def save_old_bin(model: Any, folder: Path) -> None:
    """As torch wrote before 1.6, and as GPT-2 was first published."""
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)


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
        lambda model, folder: (
            model.half().float().save_pretrained(folder) or model.half().save_pretrained(folder)
        ),
        save_bin,
        save_old_bin,
        save_without_head,
    ],
    ids=["shards", "half precision", "bin", "old bin", "without head"],
)
def test_every_way_to_save_is_read(tmp_path: Path, save: Callable[[Any, Path], None]) -> None:
    theirs = random_hub_model(vocab_size=281)
    (tmp_path / "theirs").mkdir()
    save(theirs, tmp_path / "theirs")
    ours = GPT(GPTConfig(**read_options(tmp_path / "theirs", has_tokenizer=True)))
    ours.load_state_dict(read_state(tmp_path / "theirs"))
    assert_same_logits(ours, theirs.float())


def test_shards_of_bin_are_read(tmp_path: Path) -> None:
    theirs = random_hub_model(vocab_size=281)
    theirs.config.save_pretrained(tmp_path)
    state, weight_map = theirs.state_dict(), {}
    for i, half in enumerate((list(state)[::2], list(state)[1::2])):
        torch.save({name: state[name] for name in half}, tmp_path / f"part-{i}.bin")
        weight_map |= dict.fromkeys(half, f"part-{i}.bin")
    (tmp_path / "pytorch_model.bin.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    ours = GPT(GPTConfig(**read_options(tmp_path, has_tokenizer=True)))
    ours.load_state_dict(read_state(tmp_path))
    assert_same_logits(ours, theirs)


@pytest.mark.slow
def test_gpt2_small_both_ways(tmp_path: Path) -> None:
    if not os.environ.get("TIKTOKEN_CACHE_DIR"):
        pytest.skip("TIKTOKEN_CACHE_DIR names no folder that has GPT-2's encoding")
    sizes = {"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12}
    theirs = random_hub_model(std=0.02, **sizes)
    theirs.save_pretrained(tmp_path / "theirs")  # without a tokenizer it has GPT-2's
    import_folder(tmp_path / "theirs", tmp_path / "run")
    ours = gpt_of(tmp_path / "run")
    assert sum(parameter.numel() for parameter in ours.parameters()) == 124_439_808
    export_folder(tmp_path / "run" / "best.ckpt", tmp_path / "back")
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back").eval()
    idx = torch.randint(50257, (1, 100))
    with torch.no_grad():
        logits = ours.eval()(idx)
        torch.testing.assert_close(logits, theirs(idx).logits, atol=1e-5, rtol=0)
        torch.testing.assert_close(logits, back(idx).logits, atol=1e-5, rtol=0)


TOKENIZERS = {
    "char": ["--data.tokenizer", "char"],
    "byte": ["--data.tokenizer", "byte"],
    "bpe": ["--data.tokenizer", "bpe", "--data.vocab_size", "280"],
    "gpt2": ["--data.tokenizer", "gpt2", "--data.val_fraction", "0.3"],
}


SHAPES = {
    "gelu": ["--model.activation", "gelu"],
    "biases": ["--model.attn_proj_bias", "true"],
    "modern": ["--model.arch", "modern", "--model.optimizer", "muon"],
}


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("char", "biases"), ("char", "modern"), ("byte", "gelu"), ("bpe", "modern"), ("gpt2", "biases")],
)
def test_transformers_runs_what_is_trained_here(run: Run, tmp_path: Path, kind: str, shape: str) -> None:
    args = [*TINY, *TOKENIZERS[kind], *SHAPES[shape], "--data.val_fraction", "0.3", "--run_dir", "r"]
    trained = run("fit", *args)
    if "cannot download the encoding" in trained.err:
        pytest.skip("GPT-2's encoding is not at hand")
    assert trained.code == 0
    done = run("export", "--ckpt_path", "r", "--to", "out/hf")
    assert done.code == 0
    assert done.err == ""
    theirs = transformers.AutoModelForCausalLM.from_pretrained("out/hf")
    their_tokenizer = transformers.AutoTokenizer.from_pretrained("out/hf")
    ours = gpt_of(Path("r"))
    assert_same_logits(ours, theirs)

    checkpoint = read_checkpoint("r/best.ckpt")
    tokenizer = tokenizer_from_dict(checkpoint["TextDataModule"]["tokenizer"])
    for text in (HAMLET, "To be ", " \n\n  \nTo", "" if kind == "char" else ANY_TEXT):
        assert their_tokenizer(text)["input_ids"] == tokenizer.encode(text).tolist()
        assert their_tokenizer.decode(tokenizer.encode(text).tolist()) == text
    greedy = ["--max_new_tokens", "20", "--temperature", "0"]
    inputs = their_tokenizer("To be", return_tensors="pt")
    written = theirs.generate(**inputs, max_new_tokens=20, do_sample=False)
    assert run("predict", "--ckpt_path", "r", "--prompt", "To be", *greedy).out == (
        their_tokenizer.decode(written[0]) + "\n"
    )

    card = Path("out/hf/README.md").read_text()
    loss = checkpoint["evaluation"]["val/loss"]
    assert "| corpus | hamlet: 606 characters, sha256" in card
    assert f"| {loss:.4f} nats per token" in card.replace("validation loss | ", "")
    assert "| validation bits per byte |" in card
    assert "| training | 20 steps of 8 x 32 tokens, 5,120 in all |" in card
    assert {path.name for path in Path("out").iterdir()} == {"hf"}

    if shape == "modern":
        assert "| optimizer | Muon for the blocks' matrices, learning rate 0.02; for the rest AdamW" in card
    back = run("import", "--from", "out/hf", "--run_dir", "back")
    assert back.code == 0
    assert_same_logits(gpt_of(Path("back")), theirs)
    assert run("predict", "--ckpt_path", "back", "--prompt", "To be", *greedy).out == (
        their_tokenizer.decode(written[0]) + "\n"
    )


@pytest.mark.parametrize(
    "tokenizer", [CharTokenizer("né\n"), ByteTokenizer(), bpe()], ids=["char", "byte", "bpe"]
)
def test_tokenizers_come_back(tokenizer: Tokenizer, tmp_path: Path) -> None:
    to_hub(tokenizer).save(str(tmp_path / "tokenizer.json"))
    assert read_tokenizer(tmp_path, tokenizer.vocab_size) == tokenizer.to_dict()


def test_vocabulary_and_merges_are_read(tmp_path: Path) -> None:
    made = to_hub(bpe())
    made.model.save(str(tmp_path))
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    assert vocabulary[END_OF_TEXT] == 279
    assert (tmp_path / "merges.txt").read_text().startswith("#version")
    assert read_tokenizer(tmp_path, 280) == bpe().to_dict()


def test_a_newer_encodings_pattern_is_kept(tmp_path: Path) -> None:
    import tiktoken

    pattern = (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$"
        r"|\s*[\r\n]|\s+(?!\S)|\s"
    )
    digits = "".join(str(number) for number in range(2000)) + HAMLET
    ranks = train_bpe(Corpus.read("digits", (digits,)), len(digits), 500).encoding._mergeable_ranks
    special = {END_OF_TEXT: 600, "<|fim|>": 601}  # with a gap, as there
    encoding = tiktoken.Encoding("newer", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
    newer = SubwordTokenizer(encoding, {"kind": "tiktoken", "name": "newer"})
    assert newer.decode([65, 550, 600]) == f"{newer.decode([65])}{END_OF_TEXT}"  # nothing has the id 550
    made = to_hub(newer)
    for text in (HAMLET, ANY_TEXT, "don't DON'T 1234567 !!\r\n\n  x\n "):
        assert made.encode(text).ids == encoding.encode(text, disallowed_special=())
    assert made.encode(f"a{END_OF_TEXT}").ids[-1] == 600
