"""Texts and tokenizers of a run compared with those of its checkpoint."""

import json
from pathlib import Path

import pytest
import yaml

from helpers.command_line import TINY, Run
from lit_gpt_scratch.data.corpus import HAMLET
from lit_gpt_scratch.training.checkpoint import read_checkpoint


@pytest.mark.parametrize("text", ["0123456789.", "\n#abc", "null", "\x85ab"])
def test_vocabulary_that_resembles_a_yaml_value_survives_every_command(run: Run, text: str) -> None:
    """Unquoted, YAML reads a vocabulary of digits as a number."""
    Path("odd.txt").write_text(text * 100)
    assert (
        run("fit", *TINY, "--data.corpus", "odd.txt", "--run_dir", "r", "--trainer.max_steps", "1").code == 0
    )
    assert run("validate", "--ckpt_path", "r").code == 0
    assert run("predict", "--ckpt_path", "r", "--max_new_tokens", "3").code == 0
    fine = ["--init_from", "r", "--trainer.max_steps", "1", "--run_dir", "fine"]
    assert run("fit", *fine).code == 0
    assert run("fit", "--ckpt_path", "fine", "--trainer.max_steps", "2").code == 0


def test_tokenizer_in_config_yaml_is_restored_exactly(run: Run) -> None:
    tokens = [chr(i) for i in range(256)]
    tokens += ["1e5", "2E3", "a\x85b", "no", " \n", "null", "0x1", "- b", "  x "]
    text = json.dumps({"kind": "bpe", "tokens": tokens})
    small = ["--data.val_fraction", "0.3", "--trainer.max_steps", "1"]
    assert run("fit", *TINY, "--data.tokenizer", text, *small, "--run_dir", "r").code == 0
    assert yaml.safe_load(Path("r/config.yaml").read_text())["data"]["tokenizer"] == text
    assert run("fit", "--config", "r/config.yaml", "--run_dir", "again").code == 0
    again = read_checkpoint("again/last.ckpt")["TextDataModule"]["tokenizer"]
    assert again == {"kind": "bpe", "tokens": tokens}
    invalid = run("fit", *TINY, "--data.tokenizer", "{oops")
    assert invalid.err == "error: not a tokenizer: {oops\n"


def test_val_corpus_of_the_checkpoint_is_used_only_with_its_corpus(run: Run) -> None:
    Path("val.txt").write_text(HAMLET[:300])
    Path("mine.txt").write_text(HAMLET[::-1])
    trained = ["--data.val_corpus", "val.txt", "--run_dir", "r", "--trainer.max_steps", "1"]
    assert run("fit", *TINY, *trained).code == 0
    own = str(Path("val.txt").resolve())
    assert f"text              {own}\n" in run("validate", "--ckpt_path", "r").out
    other = run("validate", "--ckpt_path", "r", "--data.corpus", "mine.txt")
    assert f"the validation part of {Path('mine.txt').resolve()}" in other.out
    fine = ["--init_from", "r", "--data.corpus", "mine.txt", "--trainer.max_steps", "1"]
    assert "val.txt" not in run("fit", *fine, "--run_dir", "fine").out
    Path("val.txt").write_text(HAMLET[:301])
    changed = run("validate", "--ckpt_path", "r")
    assert f"not the text that the checkpoint was validated on ({own}" in changed.err
    assert run("fit", "--data.val_corpus", "").err == "error: data.val_corpus is empty: name a text\n"
