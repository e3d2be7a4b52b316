"""Tokenizers of Hugging Face's ``tokenizers``, out and in."""

import json
import re
from pathlib import Path
from typing import Any

import tokenizers
from tiktoken import Encoding
from tiktoken_ext.openai_public import r50k_pat_str
from tokenizers import decoders, models, pre_tokenizers
from transformers.convert_slow_tokenizer import TikTokenConverter

from lit_gpt_scratch.data.subwords import END_OF_TEXT, SubwordTokenizer, byte_of_letter
from lit_gpt_scratch.data.tokenizer import ByteTokenizer, CharTokenizer, Tokenizer

GPT2_VOCAB_SIZE = 50257
LETTER_OF = {byte: letter for letter, byte in byte_of_letter().items()}


class EncodingConverter(TikTokenConverter):
    """transformers' converter, for an encoding in memory whose special tokens keep their ids."""

    def __init__(self, encoding: Encoding) -> None:
        # To Hugging Face's regular expressions, {1,3}+ is not a greedy {1,3} but a repeated one.
        pattern = re.sub(r"(\{\d+,\d+\})\+", r"\1", encoding._pat_str)
        super().__init__(pattern=pattern, extra_special_tokens=list(encoding._special_tokens))
        self.encoding = encoding

    def load_tiktoken_bpe(self, _: str) -> dict[bytes, int]:  # type: ignore[override]  # static there
        """Return the encoding's tokens with their ranks."""
        return self.encoding._mergeable_ranks

    def extract_vocab_merges_from_model(
        self, tiktoken_url: str
    ) -> tuple[dict[str, int], list[tuple[str, str]]]:
        """Return vocabulary and merges."""
        vocabulary, merges = super().extract_vocab_merges_from_model(tiktoken_url)
        return vocabulary | self.encoding._special_tokens, merges


def to_hub(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    """Return an equal tokenizer of Hugging Face's.

    A character that a character tokenizer lacks is left out there, as it is in prompts here.
    """
    if isinstance(tokenizer, SubwordTokenizer):
        return EncodingConverter(tokenizer.encoding).converted()
    if isinstance(tokenizer, CharTokenizer):
        vocabulary = {char: i for i, char in enumerate(tokenizer.chars)}
        made = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
        made.decoder = decoders.Fuse()
        return made
    assert isinstance(tokenizer, ByteTokenizer)
    made = tokenizers.Tokenizer(models.BPE(vocab={LETTER_OF[i]: i for i in range(256)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    return made


def read_tokenizer(folder: Path, vocab_size: int) -> dict[str, Any]:
    """Return the tokenizer of a Hugging Face folder as the plain dict of one of ours.

    A folder without a tokenizer, but with a vocabulary of GPT-2's size, has GPT-2's.

    Args:
        folder: Folder with tokenizer.json, or with vocab.json and merges.txt.
        vocab_size: Number of tokens of the model.

    Raises:
        ValueError: There is no tokenizer, it is damaged, or it works in another way than ours.
    """
    try:
        if (folder / "tokenizer.json").is_file():
            made = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        elif (folder / "vocab.json").is_file():
            files = str(folder / "vocab.json"), str(folder / "merges.txt")
            made = tokenizers.Tokenizer(models.BPE.from_file(*files))
            made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        elif vocab_size == GPT2_VOCAB_SIZE:
            return {"kind": "tiktoken", "name": "gpt2"}
        else:
            raise ValueError("there is neither tokenizer.json nor vocab.json and merges.txt")
        return _from_hub(json.loads(made.to_str()))
    except Exception as error:  # whatever the library raises for a damaged file
        raise ValueError(f"the tokenizer of {folder} cannot be used: {error}") from error


def _from_hub(content: dict[str, Any]) -> dict[str, Any]:
    """Return our dict for the content of a tokenizer.json."""
    model = content["model"]
    if model["type"] != "BPE" or content["normalizer"] is not None:
        raise ValueError(f"it is {model['type']} with the normalizer {content['normalizer']}, no plain BPE")
    vocabulary = model["vocab"] | {token["content"]: token["id"] for token in content["added_tokens"]}
    names = sorted(vocabulary, key=vocabulary.__getitem__)
    if [vocabulary[name] for name in names] != [*range(len(names))]:
        raise ValueError("its ids have gaps")
    splits_words = _splits_words(content["pre_tokenizer"])
    if splits_words is None and not model["merges"]:
        if names != sorted(names) or any(len(name) != 1 for name in names):
            raise ValueError("its tokens are not characters in the order of their code points")
        return {"kind": "char", "chars": "".join(names)}
    if splits_words is False and names == [LETTER_OF[i] for i in range(256)]:
        return {"kind": "byte"}
    if not splits_words:
        raise ValueError("it does not split text into words as GPT-2's does")
    return _byte_pairs(names, model["merges"])


def _splits_words(pre_tokenizer: dict[str, Any] | None) -> bool | None:
    """Return whether a byte-level tokenizer splits words as GPT-2's; None if it is not byte-level."""
    if pre_tokenizer is None:
        return None
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    if steps[-1]["type"] != "ByteLevel" or steps[-1]["add_prefix_space"]:
        return None
    if len(steps) == 1:
        return bool(steps[0].get("use_regex", True))  # the pattern built in is GPT-2's
    return len(steps) == 2 and steps[0].get("pattern") == {"Regex": r50k_pat_str}


def _byte_pairs(names: list[str], merges: list[Any]) -> dict[str, Any]:
    """Return a vocabulary of the 256 bytes, the results of the merges in their order, and `<|endoftext|>`."""
    if names[-1] != END_OF_TEXT:
        raise ValueError(f"its last token is not {END_OF_TEXT}")
    made = ("".join(pair if isinstance(pair, list) else pair.split(" ")) for pair in merges)
    if names[256:-1] != list(dict.fromkeys(made)) or {*map(len, names[:256])} != {1}:
        raise ValueError("its ids are not in the order of its merges")
    byte_of = byte_of_letter()
    tokens = [bytes(byte_of[letter] for letter in name).decode("latin-1") for name in names[:-1]]
    return {"kind": "bpe", "tokens": tokens}
