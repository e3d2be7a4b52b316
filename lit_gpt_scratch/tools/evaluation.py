"""What a model makes of a text: loss, perplexity, bits per byte and per character, and how sure they are."""

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lit_gpt_scratch.data.corpus import Corpus, load_corpus
from lit_gpt_scratch.data.progress_bar import progress_bar
from lit_gpt_scratch.data.tokenizer import TokenArray, Tokenizer
from lit_gpt_scratch.data.tokens import load_tokens
from lit_gpt_scratch.tools.loaded import Model
from lit_gpt_scratch.tools.surprise import Estimate, Surprise, mean_per_unit, measure
from lit_gpt_scratch.training.metrics import perplexity

log = logging.getLogger(__name__)

MOST_UNKNOWN = 0.01  # of a text's characters; the rest of a text with more of them is another text


@dataclass(frozen=True)
class Evaluation:
    """What a model made of a text.

    Args:
        checkpoint: Its file.
        corpus: The text's name.
        n_parameters: Of the model.
        n_tokens: That were scored: all but the first.
        n_bytes: Of UTF-8, that they stand for.
        n_characters: That they stand for.
        n_unknown_characters: That the tokenizer has no token for, and that were left out.
        block_size: The model's longest context, in tokens.
        stride: Tokens between two windows.
        loss: Mean cross-entropy in nats per token.
        perplexity: e to it.
        bits_per_byte: The same in bits per byte of text, which compares models of different tokenizers.
        bits_per_character: And per character.
    """

    checkpoint: str
    corpus: str
    n_parameters: int
    n_tokens: int
    n_bytes: int
    n_characters: int
    n_unknown_characters: int
    block_size: int
    stride: int
    loss: Estimate
    perplexity: Estimate
    bits_per_byte: Estimate
    bits_per_character: Estimate


@dataclass(frozen=True)
class Reading:
    """A text that a model has read.

    Args:
        evaluation: What came of it.
        tokenizer: The model's.
        ids: The text's tokens, (n + 1,).
        surprise: What the model made of each but the first.
    """

    evaluation: Evaluation
    tokenizer: Tokenizer
    ids: TokenArray
    surprise: Surprise


def evaluate(model: Model, corpus: str | Path, stride: int | None = None) -> Evaluation:
    """Measure a model on a text.

    Args:
        model: The model.
        corpus: The text: a file, a folder, a pattern, a URL, or the name of an embedded one.
        stride: Tokens between two windows; the fewer, the more context a token has, and the longer it takes;
            None is half the model's block_size.

    Raises:
        ValueError: The text cannot be read, is too short, or too much of it is unknown to the model; or
            stride is out of range.
    """
    return read(model, load_corpus(str(corpus)), stride).evaluation


def read(model: Model, corpus: Corpus, stride: int | None = None, n_guesses: int = 0) -> Reading:
    """The same with what each token was to the model, and the likeliest tokens in its place.

    Raises:
        ValueError: As `evaluate`.
    """
    block_size = model.gpt.config.block_size
    stride = block_size // 2 if stride is None else stride
    if not 1 <= stride < block_size:
        raise ValueError(f"stride must be at least 1 and below the block_size of {block_size}, not {stride}")
    ids, n_unknown = _tokens(model, corpus)
    with progress_bar(f"reading {Path(corpus.name).name}", len(ids) - 1, " tokens") as advance:
        surprise = measure(model.gpt, ids, stride, n_guesses, advance)
    n_bytes = model.tokenizer.token_n_bytes[ids[1:]]
    n_characters = len(model.tokenizer.decode(ids[1:].tolist()))
    per_token = mean_per_unit(surprise.losses, np.ones(len(n_bytes), dtype=np.int64))
    per_byte = mean_per_unit(surprise.losses, n_bytes)
    characters_per_byte = n_characters / float(n_bytes.sum())
    evaluation = Evaluation(
        checkpoint=str(model.path),
        corpus=corpus.name,
        n_parameters=model.n_parameters,
        n_tokens=len(surprise.losses),
        n_bytes=int(n_bytes.sum()),
        n_characters=n_characters,
        n_unknown_characters=n_unknown,
        block_size=block_size,
        stride=stride,
        loss=per_token,
        perplexity=per_token.through(perplexity),
        bits_per_byte=per_byte.through(lambda nats: nats / math.log(2)),
        bits_per_character=per_byte.through(lambda nats: nats / math.log(2) / characters_per_byte),
    )
    return Reading(evaluation, model.tokenizer, ids, surprise)


def _tokens(model: Model, corpus: Corpus) -> tuple[TokenArray, int]:
    """A text's tokens, and how many characters have none."""
    tokenizer = model.tokenizer
    if not (unknown := tokenizer.unknown(corpus.alphabet)):
        return load_tokens(corpus, 0, corpus.n_chars, tokenizer).ids, 0
    text = "".join(piece if piece is not None else "\n\n" for piece in corpus.pieces())
    known = text.translate(dict.fromkeys(map(ord, unknown)))
    n_unknown = len(text) - len(known)
    some = " ".join(map(repr, unknown[:5]))
    share = f"{n_unknown:,} of {len(text):,} characters of {corpus.name}, such as {some}"
    if n_unknown > MOST_UNKNOWN * len(text):
        raise ValueError(f"{model.path} never saw {share}: more than 1 %, so that no number would mean much")
    log.warning("%s never saw %s: they are left out", model.path, share)
    return tokenizer.encode(known), n_unknown
