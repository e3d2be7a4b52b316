"""Tokenizers as Hugging Face's tokenizer.json, out and in."""

import json
import re
from pathlib import Path
from typing import Any

import tokenizers
from tiktoken_ext.openai_public import r50k_pat_str
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers

from lit_gpt_scratch.data.subwords import END_OF_TEXT, SubwordTokenizer, byte_of_letter
from lit_gpt_scratch.data.tokenizer import ByteTokenizer, CharTokenizer, Tokenizer

GPT2_VOCAB_SIZE = 50257
LETTER_OF = {byte: letter for letter, byte in byte_of_letter().items()}


def to_tokenizer_json(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    """An equal tokenizer of Hugging Face's `tokenizers`.

    A character that a character tokenizer lacks is left out there, as it is in prompts here.
    """
    if isinstance(tokenizer, CharTokenizer):
        vocabulary = {char: i for i, char in enumerate(tokenizer.chars)}
        made = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
        made.decoder = decoders.Fuse()
        return made
    if isinstance(tokenizer, ByteTokenizer):
        made = tokenizers.Tokenizer(models.BPE(vocab={LETTER_OF[i]: i for i in range(256)}, merges=[]))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    else:
        assert isinstance(tokenizer, SubwordTokenizer)
        made = _from_encoding(tokenizer)
    made.decoder = decoders.ByteLevel()
    return made


def _from_encoding(tokenizer: SubwordTokenizer) -> tokenizers.Tokenizer:
    ranks, special = tokenizer.encoding._mergeable_ranks, tokenizer.encoding._special_tokens
    vocabulary = {_letters(token): rank for token, rank in ranks.items()} | special
    merges = [(_letters(left), _letters(right)) for left, right in _merges(ranks)]
    made = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    by_pattern = tokenizer.encoding._pat_str != r50k_pat_str  # GPT-2's own pattern is built in
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not by_pattern)
    if by_pattern:
        # To their regular expressions, {1,3}+ is not a greedy {1,3} but a repeated one.
        pattern = re.sub(r"(\{\d+,\d+\})\+", r"\1", tokenizer.encoding._pat_str)
        split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
        made.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    else:
        made.pre_tokenizer = byte_level
    made.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in special])
    return made


def _letters(token: bytes) -> str:
    return "".join(LETTER_OF[byte] for byte in token)


def _merges(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The pairs whose merging makes each token, in the order of their ranks.

    A token's last merge joins the two parts that are left of its bytes after all merges of lower rank.
    """
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        parts = [bytes([byte]) for byte in token]
        while len(parts) > 2:
            joined = [ranks.get(parts[i] + parts[i + 1], rank) for i in range(len(parts) - 1)]
            if min(joined) >= rank:
                break
            i = joined.index(min(joined))
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        if len(parts) == 2:
            merges.append((parts[0], parts[1]))
    return merges


def read_hub_tokenizer(folder: Path, vocab_size: int) -> dict[str, Any]:
    """The tokenizer of a Hugging Face folder, as the plain dict of one of ours.

    It is looked for in tokenizer.json, then in vocab.json and merges.txt. A folder that has neither, and a
    vocabulary of GPT-2's size, has GPT-2's.

    Raises:
        ValueError: There is none, it is damaged, or it works in another way than ours.
    """
    try:
        if (folder / "tokenizer.json").is_file():
            state = _from_tokenizer_json(json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")))
        elif (folder / "vocab.json").is_file():
            vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
            lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
            merges = lines[1:] if lines and lines[0].startswith("#version") else lines
            state = _byte_pairs(vocabulary, [line.split(" ") for line in merges])
        elif vocab_size == GPT2_VOCAB_SIZE:
            return {"kind": "tiktoken", "name": "gpt2"}
        else:
            raise _Unlike("there is neither tokenizer.json nor vocab.json and merges.txt")
    except OSError as error:
        raise ValueError(f"cannot read {error.filename}: {error.strerror}") from error
    except _Unlike as error:
        raise ValueError(f"the tokenizer of {folder} cannot be used: {error}") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"the tokenizer of {folder} is damaged") from error
    return state


class _Unlike(Exception):
    """A tokenizer that ours cannot be equal to."""


def _from_tokenizer_json(content: dict[str, Any]) -> dict[str, Any]:
    model, before = content["model"], content["pre_tokenizer"]
    if model["type"] != "BPE" or content["normalizer"] is not None:
        raise _Unlike(f"it is {model['type']} with the normalizer {content['normalizer']}, not a plain BPE")
    if before is None and not model["merges"]:
        return {"kind": "char", "chars": _characters(model["vocab"])}
    if before is None or before["type"] != "ByteLevel" or before["add_prefix_space"]:
        raise _Unlike("it does not take its text apart as GPT-2's does")
    if model["vocab"] == {LETTER_OF[i]: i for i in range(256)} and not model["merges"]:
        return {"kind": "byte"}
    if not before.get("use_regex", True):
        raise _Unlike("it does not take its text apart as GPT-2's does")
    merges = [pair if isinstance(pair, list) else pair.split(" ") for pair in model["merges"]]
    added = {token["content"]: token["id"] for token in content["added_tokens"]}
    return _byte_pairs(model["vocab"] | added, merges)


def _characters(vocabulary: dict[str, int]) -> str:
    chars = sorted(vocabulary, key=vocabulary.__getitem__)
    if chars != sorted(chars) or any(len(char) != 1 for char in chars):
        raise _Unlike("its tokens are not characters in the order of their code points")
    return "".join(chars)


def _byte_pairs(vocabulary: dict[str, int], merges: list[list[str]]) -> dict[str, Any]:
    """A vocabulary of the 256 bytes, what the merges make of them, in their order, and `<|endoftext|>`."""
    names = sorted(vocabulary, key=vocabulary.__getitem__)
    if [vocabulary[name] for name in names] != [*range(len(names))] or names[-1] != END_OF_TEXT:
        raise _Unlike(f"its ids have gaps, or the last token is not {END_OF_TEXT}")
    if names[256:-1] != ["".join(pair) for pair in merges] or {*map(len, names[:256])} != {1}:
        raise _Unlike("its ids are not in the order of its merges")
    byte_of = byte_of_letter()
    tokens = [bytes(byte_of[letter] for letter in name).decode("latin-1") for name in names[:-1]]
    return {"kind": "bpe", "tokens": tokens}
