"""Loss, perplexity, bits per byte and bits per character of a model on a text, with confidence intervals."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit  # quantiles of Student's t

from lit_gpt_scratch.api import Model
from lit_gpt_scratch.data.corpus import Corpus, load_corpus
from lit_gpt_scratch.data.progress_bar import progress_bar
from lit_gpt_scratch.data.token_files import Tokens, load_tokens
from lit_gpt_scratch.evaluation.scoring import TokenScores, score_tokens
from lit_gpt_scratch.training.metrics import perplexity

log = logging.getLogger(__name__)

MAX_UNKNOWN_SHARE = 0.01  # of the characters; if more are left out, the text is a different one
# The losses of nearby tokens are correlated; their sums over blocks of this size are nearly independent.
BLOCK_TOKENS = 256
MIN_BLOCKS = 10
MIN_BLOCK_TOKENS = 16


@dataclass(frozen=True)
class Estimate:
    """A value and the bounds of its 95 % confidence interval, which are None if the text is too short."""

    value: float
    low: float | None
    high: float | None

    def map(self, function: Callable[[float], float]) -> "Estimate":
        """Return the estimate with an increasing function applied to its value and its bounds."""
        low, high = (None if bound is None else function(bound) for bound in (self.low, self.high))
        return Estimate(function(self.value), low, high)


@dataclass(frozen=True)
class Evaluation:
    """Result of the evaluation of a model on a text."""

    checkpoint: str
    corpus: str
    n_parameters: int
    n_tokens: int  # scored tokens: all but the first
    n_bytes: int  # of the scored tokens, in UTF-8, without separators of documents
    n_characters: int  # of the scored tokens, without separators of documents
    n_unknown_characters: int  # left out, because they are unknown to the tokenizer
    block_size: int  # the model's longest context, in tokens
    stride: int  # tokens from one window to the next
    loss: Estimate  # mean cross-entropy, in nats per token
    perplexity: Estimate  # exp(loss)
    bits_per_byte: Estimate  # comparable across tokenizers
    bits_per_character: Estimate


def evaluate(model: Model, corpus: str | Path, stride: int | None = None) -> Evaluation:
    """Evaluate a model on a text: measure its loss, perplexity, bits per byte and bits per character.

    The model reads the text in overlapping windows of block_size tokens.

    Args:
        model: The model.
        corpus: The text: a file, a folder, a glob pattern, a URL, or a name such as `hamlet`.
        stride: Number of tokens from the start of one window to the start of the next; None means half of the
            model's block_size. A smaller stride gives each token more context and takes longer.

    Raises:
        ValueError: The text cannot be read, is too short, or has too many characters (more than 1 %) that are
            unknown to the tokenizer; stride is out of range; or a loss is NaN or infinite.
    """
    return evaluate_corpus(model, load_corpus(str(corpus)), stride)[0]


def evaluate_corpus(
    model: Model, corpus: Corpus, stride: int | None = None, n_guesses: int = 0
) -> tuple[Evaluation, TokenScores]:
    """Return the evaluation of a model on a text, and the scores of each token.

    Args:
        model: The model.
        corpus: The text.
        stride: Number of tokens from the start of one window to the start of the next; None means half of the
            model's block_size.
        n_guesses: Number of most probable tokens in the scores of each token.

    Raises:
        ValueError: As for `evaluate`.
    """
    block_size = model.gpt.config.block_size
    stride = block_size // 2 if stride is None else stride
    if not 1 <= stride < block_size:
        raise ValueError(f"stride must be at least 1 and below the block_size of {block_size}, not {stride}")
    tokens, n_unknown = _tokenize(model, corpus)
    ids, tokenizer = tokens.ids, model.tokenizer
    with progress_bar(f"reading {Path(corpus.name).name}", len(ids) - 1, " tokens") as advance:
        scores = score_tokens(model.gpt, ids, stride, n_guesses, advance)
    if not np.isfinite(scores.losses).all():
        raise ValueError(
            f"{model.path} has losses that are NaN or infinite on this text: its run has diverged"
        )
    n_token_bytes = tokenizer.token_n_bytes[scores.targets]
    n_bytes = tokens.n_bytes - int(tokenizer.token_n_bytes[ids[0]])
    share = n_bytes / int(n_token_bytes.sum())  # the rest are separators
    n_characters = len(tokenizer.decode(scores.targets.tolist()))
    if tokens.n_separators:
        n_characters -= tokens.n_separators * len(tokenizer.decode(tokenizer.separator_ids))
    loss = mean_per_unit(scores.losses, np.ones_like(n_token_bytes))
    bits_per_byte = mean_per_unit(scores.losses, n_token_bytes).map(lambda nats: nats / share / math.log(2))
    characters_per_byte = n_characters / n_bytes
    evaluation = Evaluation(
        checkpoint=str(model.path),
        corpus=corpus.name,
        n_parameters=model.n_parameters,
        n_tokens=len(scores.losses),
        n_bytes=n_bytes,
        n_characters=n_characters,
        n_unknown_characters=n_unknown,
        block_size=block_size,
        stride=stride,
        loss=loss,
        perplexity=loss.map(perplexity),
        bits_per_byte=bits_per_byte,
        bits_per_character=bits_per_byte.map(lambda bits: bits / characters_per_byte),
    )
    return evaluation, scores


def _tokenize(model: Model, corpus: Corpus) -> tuple[Tokens, int]:
    """Return the tokens of a text, and the number of its characters that are unknown to the tokenizer."""
    tokenizer = model.tokenizer
    unknown = tokenizer.unknown_chars(corpus.alphabet)
    if not unknown:
        return load_tokens(corpus, 0, corpus.n_chars, tokenizer), 0
    pieces = list(corpus.pieces())
    text = "".join("\n\n" if piece is None else piece for piece in pieces)
    known = text.translate(dict.fromkeys(map(ord, unknown)))
    n_unknown = len(text) - len(known)
    found = (
        f"{n_unknown:,} of {len(text):,} characters of {corpus.name} are unknown to the tokenizer of "
        f"{model.path}, such as {' '.join(map(repr, unknown[:5]))}"
    )
    if n_unknown > MAX_UNKNOWN_SHARE * len(text):
        raise ValueError(f"{found}: more than 1 %, too many for a meaningful loss")
    log.warning("%s: they are left out", found)
    ids = tokenizer.encode(known)
    n_bytes = int(tokenizer.token_n_bytes[ids].sum())
    n_separators = 0 if "\n" in unknown else pieces.count(None)  # without a newline, they are left out, too
    if n_separators:
        n_bytes -= n_separators * tokenizer.separator_n_bytes
    return Tokens(ids, n_bytes, n_separators), n_unknown


def mean_per_unit(losses: npt.NDArray[np.float32], units: npt.NDArray[np.int64]) -> Estimate:
    """Estimate the sum of losses divided by the sum of units, such as nats per byte.

    Consecutive losses are correlated, but their sums over blocks of tokens are nearly independent. Therefore,
    the variance is estimated from these sums (batch means, Conway 1963). The value is a ratio estimator; its
    confidence interval uses quantiles of Student's t distribution.

    Args:
        losses: Loss of each token in nats, (n,).
        units: Number of units in each token, such as its bytes, (n,).
    """
    total = float(units.sum())
    ratio = float(losses.sum(dtype=np.float64)) / total
    if len(losses) < MIN_BLOCKS * MIN_BLOCK_TOKENS:
        return Estimate(ratio, None, None)
    n_blocks = max(MIN_BLOCKS, len(losses) // BLOCK_TOKENS)
    starts = np.linspace(0, len(losses), n_blocks, endpoint=False).astype(np.int64)
    sums = np.add.reduceat(losses.astype(np.float64), starts)
    residuals = sums - ratio * np.add.reduceat(units, starts)
    standard_error = math.sqrt(n_blocks / (n_blocks - 1) * float((residuals**2).sum())) / total
    margin = float(stdtrit(n_blocks - 1, 0.975)) * standard_error
    return Estimate(ratio, ratio - margin, ratio + margin)
