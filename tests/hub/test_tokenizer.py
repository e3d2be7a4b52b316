"""Tokenizers to and from Hugging Face's `tokenizers`."""

import json
from pathlib import Path

import pytest
import tiktoken

from helpers.hub import bpe
from helpers.text import UNICODE_TEXT
from lit_gpt_scratch.data.bpe import END_OF_TEXT, SubwordTokenizer
from lit_gpt_scratch.data.corpus import HAMLET
from lit_gpt_scratch.hub.tokenizer import read_tokenizer, to_hub


def test_vocab_json_and_merges_txt_are_read(tmp_path: Path) -> None:
    to_hub(bpe()).model.save(str(tmp_path))
    assert (tmp_path / "merges.txt").read_text().startswith("#version")
    assert read_tokenizer(tmp_path, 281) == bpe().to_dict()


def test_missing_tokenizer_with_50257_tokens_is_gpt2s(tmp_path: Path) -> None:
    assert read_tokenizer(tmp_path, 50257) == {"kind": "tiktoken", "name": "gpt2"}


def test_pattern_and_special_ids_of_other_encodings_are_exported() -> None:
    pattern = (  # as in cl100k_base
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$"
        r"|\s*[\r\n]|\s+(?!\S)|\s"
    )
    ranks = bpe().encoding._mergeable_ranks
    ranks = ranks | {b"12": 280, b"123": 281, b"34": 282}
    special = {END_OF_TEXT: 600, "<|fim|>": 601}  # after a gap, as in cl100k_base
    encoding = tiktoken.Encoding("newer", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
    newer = SubwordTokenizer(encoding, {"kind": "tiktoken", "name": "newer"})
    assert newer.decode([65, 550, 600]) == f"{newer.decode([65])}{END_OF_TEXT}"  # nothing has the id 550
    exported = to_hub(newer)
    for text in (HAMLET, UNICODE_TEXT, "don't DON'T 1234567 !!\r\n\n  x\n "):
        assert exported.encode(text).ids == encoding.encode(text, disallowed_special=())
    assert exported.encode(f"a{END_OF_TEXT}<|fim|>").ids[-2:] == [600, 601]


@pytest.mark.parametrize("name", ["add_prefix_space", "add_bos_token", "add_eos_token"])
def test_settings_that_add_to_a_text_are_rejected(hub_folder: Path, name: str) -> None:
    path = hub_folder / "tokenizer_config.json"
    settings = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(settings | {name: True}))
    with pytest.raises(ValueError, match=f"{name} in tokenizer_config.json is not supported"):
        read_tokenizer(hub_folder, 281)


def test_post_processor_that_adds_tokens_is_rejected(hub_folder: Path) -> None:
    path = hub_folder / "tokenizer.json"
    content = json.loads(path.read_text())
    start = {"SpecialToken": {"id": END_OF_TEXT, "type_id": 0}}
    template = [start, {"Sequence": {"id": "A", "type_id": 0}}]
    content["post_processor"] = {"type": "TemplateProcessing", "single": template, "pair": template}
    ids = {"id": END_OF_TEXT, "ids": [280], "tokens": [END_OF_TEXT]}
    content["post_processor"]["special_tokens"] = {END_OF_TEXT: ids}
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="TemplateProcessing adds tokens"):
        read_tokenizer(hub_folder, 281)


@pytest.mark.parametrize("name", ["spiece.model", "vocab.txt"])
def test_foreign_tokenizer_of_gpt2s_size_is_not_taken_for_gpt2s(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=f"{name} is not supported"):
        read_tokenizer(tmp_path, 50257)
