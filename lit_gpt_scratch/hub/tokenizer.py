"""Convert tokenizers to and from Hugging Face's ``tokenizers``."""

import json
import re
from pathlib import Path
from typing import Any

import tokenizers
from tiktoken_ext.openai_public import r50k_pat_str
from tokenizers import decoders, models, pre_tokenizers
from transformers.convert_slow_tokenizer import TikTokenConverter

from lit_gpt_scratch.data.bpe import BYTE_OF_LETTER, END_OF_TEXT, SubwordTokenizer
from lit_gpt_scratch.data.tokenizers import CharTokenizer, Tokenizer

GPT2_VOCAB_SIZE = 50257
OTHER_FILES = ("spiece.model", "tokenizer.model", "vocab.txt")  # of tokenizers that are not supported
# Letters that represent the bytes 0 to 255 in GPT-2's alphabet.
LETTERS = [chr(letter) for letter in sorted(BYTE_OF_LETTER, key=BYTE_OF_LETTER.__getitem__)]
# Pre-tokenizer steps in tokenizer.json: BYTES maps bytes to letters, WORDS splits a text into words as GPT-2
# does, and WORD_BYTES does both.
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
WORD_BYTES = {**BYTES, "use_regex": True}
WORDS = {"type": "Split", "pattern": {"Regex": r50k_pat_str}, "behavior": "Isolated", "invert": False}


def to_hub(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    """Return the equivalent Hugging Face tokenizer.

    A `CharTokenizer` raises an error for unknown characters, but its Hugging Face equivalent drops them.
    """
    if isinstance(tokenizer, SubwordTokenizer):
        encoding = tokenizer.encoding
        special = {name.encode(): i for name, i in encoding._special_tokens.items()}
        # In Hugging Face's regular expressions, {1,3}+ is a repeated {1,3}, not a possessive one.
        pattern = re.sub(r"(\{\d+,\d+\})\+", r"\1", encoding._pat_str)
        converter: Any = TikTokenConverter(pattern=pattern, extra_special_tokens=encoding._special_tokens)
        converter.load_tiktoken_bpe = lambda _: encoding._mergeable_ranks | special
        return converter.converted()
    symbols = tokenizer.chars if isinstance(tokenizer, CharTokenizer) else LETTERS
    result = tokenizers.Tokenizer(
        models.BPE(vocab={symbol: i for i, symbol in enumerate(symbols)}, merges=[])
    )
    if symbols is LETTERS:
        result.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        result.decoder = decoders.ByteLevel()
    else:
        result.decoder = decoders.Fuse()
    return result


def read_tokenizer(folder: Path, vocab_size: int) -> dict[str, Any]:
    """Return the tokenizer of a Hugging Face folder in the form of `Tokenizer.to_dict`.

    The tokenizer is read from tokenizer.json, or from vocab.json and merges.txt. Without these files, it is
    GPT-2's tokenizer if `vocab_size` is 50257, the size of GPT-2's vocabulary.

    Args:
        folder: The folder.
        vocab_size: Number of tokens in the model's vocabulary.

    Raises:
        ValueError: The tokenizer is missing, damaged or not supported, or does not have `vocab_size` tokens.
    """
    try:
        _check_settings(folder)
        if (folder / "tokenizer.json").is_file():
            result = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        elif (folder / "vocab.json").is_file():
            files = str(folder / "vocab.json"), str(folder / "merges.txt")
            result = tokenizers.Tokenizer(models.BPE.from_file(*files))
            result.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        elif found := [name for name in OTHER_FILES if (folder / name).is_file()]:
            raise ValueError(
                f"{found[0]} is not supported: give tokenizer.json, or vocab.json and merges.txt"
            )
        elif vocab_size == GPT2_VOCAB_SIZE:
            return {"kind": "tiktoken", "name": "gpt2"}
        else:
            raise ValueError("there is neither tokenizer.json nor vocab.json and merges.txt")
        return _from_hub(json.loads(result.to_str()), vocab_size)
    except Exception as error:  # tokenizers raises many exception types for damaged files
        raise ValueError(f"the tokenizer of {folder} cannot be used: {error}") from error


def _check_settings(folder: Path) -> None:
    """Raise ValueError if tokenizer_config.json has a setting that adds spaces or tokens to a text."""
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for name in ("add_prefix_space", "add_bos_token", "add_eos_token"):
        if settings.get(name):
            raise ValueError(f"{name} in {path.name} is not supported")


def _from_hub(content: dict[str, Any], vocab_size: int) -> dict[str, Any]:
    """Convert the content of a tokenizer.json to the form of `Tokenizer.to_dict`."""
    model, pre_tokenizer = content["model"], content["pre_tokenizer"] or {"pretokenizers": []}
    if model["type"] != "BPE" or content["normalizer"] is not None:
        raise ValueError(f"it is {model['type']} with the normalizer {content['normalizer']}, not plain BPE")
    post_processor = content["post_processor"] or {"type": "ByteLevel"}
    steps_after = post_processor.get("single", [post_processor])
    if any("Sequence" not in step and step.get("type") != "ByteLevel" for step in steps_after):
        raise ValueError(f"its post-processor {post_processor['type']} adds tokens to a text")
    id_of = model["vocab"] | {token["content"]: token["id"] for token in content["added_tokens"]}
    if sorted(id_of.values()) != [*range(vocab_size)]:
        raise ValueError(f"its {len(id_of)} ids are not those of the model, 0 to {vocab_size - 1}")
    tokens = sorted(id_of, key=id_of.__getitem__)
    merged = ["".join(pair) for pair in model["merges"]]
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    for step in steps:
        step.pop("trim_offsets", None)  # does not change ids
    if not steps and not merged and tokens == sorted(tokens) and {*map(len, tokens)} == {1}:
        return {"kind": "char", "chars": "".join(tokens)}
    if steps == [BYTES] and not merged and tokens == LETTERS:
        return {"kind": "byte"}
    has_gpt2_words = steps in ([WORD_BYTES], [WORDS, BYTES]) and {*tokens[:256]} == {*LETTERS}
    if has_gpt2_words and tokens[256:] == [*dict.fromkeys(merged), END_OF_TEXT]:
        return {"kind": "bpe", "tokens": [token.translate(BYTE_OF_LETTER) for token in tokens[:-1]]}
    raise ValueError(
        "its tokens are neither characters in the order of code points, nor bytes, nor byte pairs as in "
        f"GPT-2, with ids in the order of the merges and {END_OF_TEXT} last"
    )
