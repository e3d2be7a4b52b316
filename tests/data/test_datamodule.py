"""TextDataModule: the texts that each stage reads."""

import json
from pathlib import Path

import pytest

from lit_gpt_scratch import TextDataModule
from lit_gpt_scratch.data import token_files as tokens
from lit_gpt_scratch.data.corpus import HAMLET
from lit_gpt_scratch.data.tokenizers import CharTokenizer

TOKENIZER = json.dumps(CharTokenizer(HAMLET).to_dict())


pytestmark = pytest.mark.usefixtures("empty_cache")


def datamodule(**options: str) -> TextDataModule:
    return TextDataModule(**{"corpus": "hamlet", **options}, batch_size=4, block_size=16)


def test_constructor_reads_nothing() -> None:
    assert datamodule(corpus="missing.txt").corpora == {}


def test_setup_maps_the_token_files_of_prepare_data(monkeypatch: pytest.MonkeyPatch) -> None:
    datamodule().prepare_data()

    def unexpected(*_: object) -> None:
        raise AssertionError("tokenized again")

    monkeypatch.setattr(tokens, "tokenize", unexpected)
    other_process = datamodule()
    other_process.setup("fit")
    text = other_process.train_tokens.ids.tolist() + other_process.val_set.tokens.ids.tolist()
    assert other_process.tokenizer.decode(text) == HAMLET


def test_repeated_setup_loads_nothing_again() -> None:
    data = datamodule()
    data.setup("fit")
    loaded = data.corpora["train"], data.tokenizer, data.train_tokens, data.val_set
    data.setup("validate")
    data.setup("test")
    again = data.corpora["train"], data.tokenizer, data.train_tokens, data.val_set
    assert all(one is other for one, other in zip(loaded, again, strict=True))
    assert data.test_set.tokens is data.val_set.tokens


def test_predict_with_a_stored_tokenizer_reads_no_corpus() -> None:
    data = datamodule(corpus="missing.txt", tokenizer=TOKENIZER)
    data.setup("predict")
    assert data.tokenizer.decode(data.tokenizer.encode("To be")) == "To be"
    assert data.corpora == {}


def test_test_stage_reads_only_test_corpus(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("the rest is the heart")
    data = datamodule(corpus="missing.txt", test_corpus=str(tmp_path / "own.txt"), tokenizer=TOKENIZER)
    data.setup("test")
    assert data.corpora.keys() == {"test"}
    assert data.test_set.n_tokens == 21
    assert data.test_set.bytes_per_token == 1


def test_fit_after_test_reads_the_training_corpus(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("the rest is the heart")
    data = datamodule(test_corpus=str(tmp_path / "own.txt"), tokenizer=TOKENIZER)
    data.setup("test")
    data.setup("fit")
    assert data.corpora.keys() == {"test", "train", "val"}
    assert data.train_tokens.ids[0] == data.tokenizer.encode("T")[0]


def test_offline_corpus_does_not_replace_test_corpus(no_network: None) -> None:
    data = datamodule(test_corpus="https://example.org/test.txt", tokenizer=TOKENIZER)
    with pytest.raises(ValueError, match="cannot download https://example.org/test.txt"):
        data.setup("test")


def test_val_corpus_is_the_validation_text(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("abcd" * 20)
    (tmp_path / "val.txt").write_text("dcxy" * 10)
    data = TextDataModule(
        str(tmp_path / "train.txt"), val_corpus=str(tmp_path / "val.txt"), block_size=8, seed=0
    )
    data.load("fit")
    assert data.tokenizer.decode(data.train_tokens.ids) == "abcd" * 20
    assert data.tokenizer.decode(data.val_set.tokens.ids) == "dcxy" * 10
    assert data.val_set.bytes_per_token == 1
    assert data.state_dict()["val"]["corpus"]["name"] == str(tmp_path / "val.txt")
