"""A page that shows the loss of each token of a text, with what the model expected in its place."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader

from lit_gpt_scratch.data.tokenizer import token_label
from lit_gpt_scratch.tools.evaluation import Reading

N_GUESSES = 5
PASSAGE_TOKENS = 100
MAX_PASSAGES = 300  # a page of more is slow to open
DARKEST_BITS = 12.0  # and above
LEGEND_BITS = (0, 2, 4, 8, 12)


@dataclass(frozen=True)
class Token:
    """A token's text, its loss, and the likeliest tokens in its place."""

    text: str
    bits: float
    title: str


@dataclass(frozen=True)
class Passage:
    """Consecutive tokens, from `start` on, and the mean of their losses."""

    start: int
    mean_nats: float
    title: str
    tokens: list[Token]


def heatmap(reading: Reading) -> str:
    """Return the page as HTML that needs no other file: the passages with the largest mean loss first."""
    losses = reading.surprise.losses
    starts = np.arange(0, len(losses), PASSAGE_TOKENS)
    means = np.add.reduceat(losses, starts) / np.diff([*starts, len(losses)])
    worst = np.argsort(-means, kind="stable")[:MAX_PASSAGES]
    some = f"{len(worst)} of {len(starts):,} passages"
    pages = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    return pages.get_template("heatmap.html").render(
        facts=reading.evaluation,
        shown=some if len(worst) < len(starts) else "all of the text",
        legend_bits=LEGEND_BITS,
        passages=[_passage(reading, int(starts[i]), float(means[i])) for i in worst],
        shade=lambda bits: min(1.0, bits / DARKEST_BITS),
    )


def _passage(reading: Reading, start: int, mean_nats: float) -> Passage:
    positions = range(start, min(start + PASSAGE_TOKENS, len(reading.surprise.losses)))
    bits = mean_nats / math.log(2)
    title = f"tokens {start + 2:,} to {positions[-1] + 2:,} · {bits:.2f} bits per token"
    return Passage(start, mean_nats, title, [_token(reading, position) for position in positions])


def _token(reading: Reading, position: int) -> Token:
    surprise, tokenizer = reading.surprise, reading.tokenizer
    bits = float(surprise.losses[position]) / math.log(2)
    token = int(reading.ids[position + 1])
    guesses = zip(surprise.guesses[position], surprise.probabilities[position], strict=True)
    lines = [f"{token_label(tokenizer, token)}: {bits:.1f} bits, {2**-bits:.2%}"]
    lines += [f"{probability:6.1%}  {token_label(tokenizer, int(guess))}" for guess, probability in guesses]
    return Token(tokenizer.decode([token]), bits, "\n".join(lines))
