"""HTML page with the loss of each token of a text and the most probable tokens in its place."""

import math
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader

from lit_gpt_scratch.data.tokenizers import Tokenizer, token_label
from lit_gpt_scratch.evaluation.evaluate import Evaluation
from lit_gpt_scratch.evaluation.scoring import TokenScores
from lit_gpt_scratch.generation.detokenizer import Detokenizer

N_GUESSES = 5  # most probable tokens in a tooltip
PASSAGE_TOKENS = 100
MAX_PASSAGES = 300  # a longer page is slow to open
PARTIAL = "▫"  # shown for a token that is only the beginning of a character


def heatmap(evaluation: Evaluation, tokenizer: Tokenizer, scores: TokenScores) -> str:
    """Return a self-contained HTML page that shades each token of a text by its loss.

    The text is divided into passages of `PASSAGE_TOKENS` tokens. The page shows the passages in descending
    order of their mean loss, at most the first `MAX_PASSAGES`.
    """
    losses = scores.losses
    starts = np.arange(0, len(losses), PASSAGE_TOKENS)
    means = np.add.reduceat(losses, starts) / np.diff([*starts, len(losses)])
    passages = []
    for i in np.argsort(-means, kind="stable")[:MAX_PASSAGES]:
        start, stop = int(starts[i]), min(int(starts[i]) + PASSAGE_TOKENS, len(losses))
        detokenizer = Detokenizer(tokenizer, [])
        tokens = [_token(tokenizer, detokenizer, scores, position) for position in range(start, stop)]
        passages.append({"start": start, "mean_bits": float(means[i]) / math.log(2), "tokens": tokens})
    pages = Environment(loader=PackageLoader("lit_gpt_scratch", "evaluation"), autoescape=True)
    page = pages.get_template("heatmap.html")
    return page.render(evaluation=evaluation, passages=passages, n_passages=len(starts))


def _token(
    tokenizer: Tokenizer, detokenizer: Detokenizer, scores: TokenScores, position: int
) -> dict[str, Any]:
    """Return a dict with the text, the loss in bits and the tooltip of the token at a position.

    A character that spans several tokens is in the text of the last of these tokens; the text of the earlier
    tokens is `PARTIAL`.
    """
    token = int(scores.targets[position])
    bits = float(scores.losses[position]) / math.log(2)
    lines = [f"{token_label(tokenizer, token)}: {bits:.1f} bits, {2**-bits:.2%}"]
    for guess, probability in zip(scores.guesses[position], scores.probabilities[position], strict=True):
        lines.append(f"{probability:6.1%}  {token_label(tokenizer, int(guess))}")
    return {"text": detokenizer.feed(token) or PARTIAL, "bits": bits, "title": "\n".join(lines)}
