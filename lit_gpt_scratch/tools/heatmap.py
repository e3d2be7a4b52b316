"""A page that shows how much each token of a text surprises a model."""

import html
import math

import numpy as np

from lit_gpt_scratch.data.tokenizer import token_label
from lit_gpt_scratch.tools.evaluation import Reading

N_GUESSES = 5
PASSAGE_TOKENS = 100
MOST_PASSAGES = 300  # of the worst ones: a page of more is slow to open
DARKEST_BITS = 12.0  # and above

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b;
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } .facts { color: #555; }
section { border-top: 1px solid #ddd; padding: .6rem 0; }
section h2 { font-size: .85rem; font-weight: 600; color: #555; margin: 0 0 .3rem; }
p.text { font: 15px/1.9 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }
.t { background: rgb(217 72 1 / calc(var(--s) * 85%)); border-radius: 2px; padding: 2px 0; }
.t:hover { outline: 2px solid #2171b5; }
.scale span { padding: 2px .7rem; }
#card { position: fixed; display: none; pointer-events: none; max-width: 22rem; padding: .5rem .8rem;
  border-radius: 6px; background: #1b1b1b; color: #fff; font-size: .85rem; white-space: pre-wrap; }
"""
# The guesses stand in each token's title, which any browser shows; this shows them at once.
SCRIPT = """
const card = document.getElementById("card");
document.addEventListener("mouseover", event => {
  const token = event.target.closest(".t");
  if (!token) { card.style.display = "none"; return; }
  if (token.title) { token.dataset.card = token.title; token.removeAttribute("title"); }
  card.textContent = token.dataset.card;
  card.style.display = "block";
  const place = token.getBoundingClientRect();
  card.style.left = Math.min(place.left, innerWidth - card.offsetWidth - 8) + "px";
  const below = place.bottom + 6, above = place.top - card.offsetHeight - 6;
  card.style.top = (below + card.offsetHeight < innerHeight ? below : above) + "px";
});
const list = document.getElementById("passages");
const sorted = { worst: "loss", text: "start" };
for (const button of document.querySelectorAll("button"))
  button.onclick = () => {
    const key = sorted[button.dataset.order], sign = key === "loss" ? -1 : 1;
    const passages = [...list.children].sort((a, b) => sign * (a.dataset[key] - b.dataset[key]));
    list.append(...passages);
  };
"""


def heatmap(reading: Reading) -> str:
    """The page, as HTML with all that it needs: passages of the text, those that surprise most first."""
    losses, facts = reading.surprise.losses, reading.evaluation
    starts = np.arange(0, len(losses), PASSAGE_TOKENS)
    means = np.add.reduceat(losses, starts) / np.diff([*starts, len(losses)])
    worst = np.argsort(-means, kind="stable")[:MOST_PASSAGES]
    passages = "\n".join(_passage(reading, int(starts[i]), float(means[i])) for i in worst)
    shown = f"{len(worst)} of {len(starts):,} passages" if len(worst) < len(starts) else "all of the text"
    legend = "".join(
        f'<span class="t" style="--s:{_shade(bits):.2f}">{bits}</span>' for bits in (0, 2, 4, 8, 12)
    )
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>What surprises {html.escape(facts.checkpoint)}</title>
<style>{STYLE}</style></head>
<body>
<h1>What surprises the model</h1>
<p class="facts">{html.escape(facts.checkpoint)} on {html.escape(facts.corpus)}: {facts.n_tokens:,} tokens,
{facts.loss.value:.4f} nats per token, perplexity {facts.perplexity.value:.2f},
{facts.bits_per_byte.value:.3f} bits per byte.
Point at a token to see what the model expected in its place.</p>
<p class="scale">surprise in bits: {legend}</p>
<p>{shown}: <button data-order="worst">the worst first</button>
<button data-order="text">in the order of the text</button></p>
<main id="passages">
{passages}
</main>
<div id="card"></div><script>{SCRIPT}</script></body></html>
"""


def _passage(reading: Reading, start: int, mean_nats: float) -> str:
    losses = reading.surprise.losses
    places = range(start, min(start + PASSAGE_TOKENS, len(losses)))
    tokens = "".join(_token(reading, place) for place in places)
    bits = mean_nats / math.log(2)
    title = f"tokens {start + 2:,} to {places[-1] + 2:,} · {bits:.2f} bits per token"
    return (
        f'<section data-start="{start}" data-loss="{mean_nats:.4f}"><h2>{title}</h2>'
        f'<p class="text">{tokens}</p></section>'
    )


def _token(reading: Reading, place: int) -> str:
    """A token's text on its shade, with the guesses in its title."""
    surprise, tokenizer = reading.surprise, reading.tokenizer
    bits = float(surprise.losses[place]) / math.log(2)
    token = int(reading.ids[place + 1])
    guesses = "\n".join(
        f"{probability:6.1%}  {token_label(tokenizer, int(guess))}"
        for guess, probability in zip(surprise.guesses[place], surprise.probabilities[place], strict=True)
    )
    title = f"{token_label(tokenizer, token)}: {bits:.1f} bits, {2**-bits:.2%}\n{guesses}"
    return (
        f'<span class="t" style="--s:{_shade(bits):.2f}" title="{html.escape(title)}">'
        f"{html.escape(tokenizer.decode([token]))}</span>"
    )


def _shade(bits: float) -> float:
    return min(1.0, bits / DARKEST_BITS)
