"""`evaluate`: what checkpoints make of any text, on one axis."""

import json
import logging
import math
import os
from dataclasses import asdict
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from lit_gpt_scratch.atomic_write import atomic_write
from lit_gpt_scratch.data.corpus import load_corpus
from lit_gpt_scratch.tools.evaluation import Evaluation, read
from lit_gpt_scratch.tools.heatmap import N_GUESSES, heatmap
from lit_gpt_scratch.tools.loaded import load
from lit_gpt_scratch.tools.surprise import Estimate
from lit_gpt_scratch.training.checkpoint_io import find_checkpoint

log = logging.getLogger(__name__)


def add_arguments(parser: ArgumentParser) -> None:
    """The options of `evaluate`."""
    add = parser.add_argument
    add("--ckpt_path", type=str, nargs="+", required=True, help="Checkpoints: files, or run folders.")
    add("--corpus", type=str, required=True, help="The text: a file, folder, pattern or URL, or a name.")
    stride = "Tokens between two windows, fewer for more context; null is half a model's block_size."
    add("--stride", type=int | None, default=None, help=stride)
    add("--heatmap", type=str | None, default=None, help="Page to write: each token shaded by its surprise.")
    add("--json", action="store_true", help="Print JSON, a list with an object for each checkpoint.")


def run(options: Namespace) -> None:
    """Evaluate, and print a table."""
    if options.heatmap is not None and len(options.ckpt_path) > 1:
        raise ValueError("--heatmap is of one checkpoint: give one --ckpt_path")
    page = None if options.heatmap is None else Path(options.heatmap).expanduser()
    if page is not None and not page.parent.is_dir():  # said before the work, not after it
        raise ValueError(f"cannot write {page}: there is no folder {page.parent}")
    if page is not None and page.is_dir():
        raise ValueError(f"cannot write {page}: it is a folder")
    if page is not None and not os.access(page.parent, os.W_OK):
        raise ValueError(f"cannot write {page}: the folder {page.parent.resolve()} must not be written")
    for path in options.ckpt_path:
        find_checkpoint(path)
    corpus = load_corpus(options.corpus)
    evaluations = []
    for path in options.ckpt_path:
        model = load(path)
        if model.corpus is not None and model.corpus["sha256"] == corpus.sha256:
            log.warning("%s was trained on a part of this text: validate measures the rest", model.path)
        n_guesses = N_GUESSES if page is not None else 0
        reading = read(model, corpus, options.stride, n_guesses)
        evaluations.append(reading.evaluation)
        if page is not None:
            with atomic_write(page) as file:
                file.write(heatmap(reading).encode())
    if options.json:
        print(json.dumps([asdict(evaluation) for evaluation in evaluations], indent=1))
    else:
        print(table(evaluations))
        if page is not None:
            print(f"\nlook at it  {page}")


def table(evaluations: list[Evaluation]) -> str:
    """Evaluations side by side."""
    first = evaluations[0]
    heads = ["checkpoint", "tokens", "loss", "perplexity", "bits/byte", "bits/character"]
    rows = [heads]
    for each in evaluations:
        estimates = (each.loss, each.perplexity, each.bits_per_byte, each.bits_per_character)
        rows.append([each.checkpoint, f"{each.n_tokens:,}", *map(_with_interval, estimates)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    note = "in brackets what the number lies between, with a confidence of 95 %"
    return "\n".join(line.rstrip() for line in [f"text  {first.corpus}", "", *lines, "", note])


def _with_interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.4g} (too short to say)"
    digits = max(0, 3 - math.floor(math.log10(estimate.value))) if estimate.value > 0 else 4
    return f"{estimate.value:.{digits}f} ({estimate.low:.{digits}f} to {estimate.high:.{digits}f})"
