"""`export`: weights, tokenizer and model card in a folder that transformers loads."""

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.checkpoints import best_checkpoint
from helpers.command_line import TINY, Run, run_with_file_size_limit
from helpers.hub import (
    assert_same_logits,
    load_gpt,
    random_hub_model,
    transformers,
    write_hub_folder,
)
from helpers.text import UNICODE_TEXT
from lit_gpt_scratch.data.bpe import tokenizer_from_dict
from lit_gpt_scratch.data.corpus import HAMLET
from lit_gpt_scratch.hub.export_folder import export_folder
from lit_gpt_scratch.hub.import_folder import import_folder
from lit_gpt_scratch.training.checkpoint import read_checkpoint


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


OPTIONS = {
    "char": ["--model.attn_proj_bias", "true"],
    "byte": ["--model.activation", "gelu", "--model.bias", "false"],
    "bpe": ["--data.vocab_size", "280", "--model.arch", "modern", "--model.n_kv_head", "1"],
    "gpt2": [],
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_transformers_runs_an_export_and_import_restores_it(run: Run, kind: str) -> None:
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
    for words in (HAMLET, "To be ", " \n\n  \nTo", "" if kind == "char" else UNICODE_TEXT):
        assert their_tokenizer(words)["input_ids"] == tokenizer.encode(words).tolist()
        assert their_tokenizer.decode(tokenizer.encode(words).tolist()) == words
    inputs = their_tokenizer("To be", return_tensors="pt")
    written = their_tokenizer.decode(theirs.generate(**inputs, max_new_tokens=20, do_sample=False)[0])

    assert run("import", "--from", "out/hf", "--run_dir", "back").code == 0
    assert_same_logits(load_gpt("back"), theirs)
    if kind != "gpt2":  # tokenizer.json does not name tiktoken's encoding
        assert best_checkpoint("back")["TextDataModule"]["tokenizer"] == tokenizer.to_dict()
    greedy = ["--prompt", "To be", "--max_new_tokens", "20", "--temperature", "0"]
    for checkpoint_path in ("r", "back"):
        assert run("predict", "--ckpt_path", checkpoint_path, *greedy).out == written + "\n"

    card = Path("out/hf/README.md").read_text()
    assert "| corpus | hamlet: 606 characters, sha256" in card
    assert f"| validation loss | {checkpoint['evaluation']['val/loss']:.4f} nats per token" in card
    assert "| training | 20 steps of 8 x 32 tokens, 5,120 in all;" in card


def test_damaged_checkpoint_is_not_exported(run: Run, finished: Path) -> None:
    checkpoint = best_checkpoint(finished)
    del checkpoint["state_dict"]["gpt.h.0.mlp.c_fc.weight"]
    torch.save(checkpoint, "damaged.ckpt")
    done = run("export", "--ckpt_path", "damaged.ckpt", "--to", "out")
    assert done.code == 2
    assert "damaged.ckpt is damaged: its weights do not fit" in done.err
    assert not Path("out").exists()


@pytest.mark.slow
def test_failed_export_leaves_no_files(finished: Path, tmp_path: Path) -> None:
    done = run_with_file_size_limit(20_000, tmp_path, "export", "--ckpt_path", finished, "--to", "out/hf")
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot write the folder out/hf: ")
    assert len(done.stderr.splitlines()) == 1
    assert not list((tmp_path / "out").iterdir())
