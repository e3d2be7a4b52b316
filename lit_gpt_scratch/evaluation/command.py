"""The command `evaluate`: score checkpoints on a text."""

import json
import logging
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from lit_gpt_scratch.api import load
from lit_gpt_scratch.data.atomic_write import atomic_write
from lit_gpt_scratch.data.corpus import load_corpus
from lit_gpt_scratch.evaluation.evaluate import Estimate, Evaluation, evaluate_corpus
from lit_gpt_scratch.evaluation.heatmap import N_GUESSES, heatmap
from lit_gpt_scratch.training.checkpoint import find_checkpoint

log = logging.getLogger(__name__)


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of `evaluate`."""
    add = parser.add_argument
    add("--ckpt_path", type=str, nargs="+", required=True, help="Checkpoints: files, or run folders.")
    add("--corpus", type=str, required=True, help="Text: a file, folder, glob pattern, URL or corpus name.")
    stride = "Tokens from one window to the next; fewer give more context. null: half of the block_size."
    add("--stride", type=int | None, default=None, help=stride)
    add("--heatmap", type=str | None, default=None, help="HTML page to write: each token shaded by its loss.")
    add("--json", action="store_true", help="Print JSON, a list with an object for each checkpoint.")


def run(options: Namespace) -> None:
    """Evaluate the checkpoints, print the results and write the heat map.

    Raises:
        ValueError: An option is invalid.
    """
    page = None if options.heatmap is None else Path(options.heatmap).expanduser()
    if page is not None:
        if len(options.ckpt_path) > 1:
            raise ValueError("--heatmap is of one checkpoint: give one --ckpt_path")
        check_writable(page)
    for path in options.ckpt_path:
        find_checkpoint(path)
    corpus = load_corpus(options.corpus)
    evaluations = []
    for path in options.ckpt_path:
        model = load(path)
        if model.corpus is not None and model.corpus["sha256"] == corpus.sha256:
            log.warning("%s was trained on a part of this text: validate measures the rest", model.path)
        n_guesses = 0 if page is None else N_GUESSES
        evaluation, scores = evaluate_corpus(model, corpus, options.stride, n_guesses)
        evaluations.append(evaluation)
        if page is not None:
            with atomic_write(page) as file:
                file.write(heatmap(evaluation, model.tokenizer, scores).encode())
    if options.json:
        print(json.dumps([to_dict(evaluation) for evaluation in evaluations], indent=1))
    else:
        print(table(evaluations))
        if page is not None:
            print(f"\nheat map  {page}")


def to_dict(evaluation: Evaluation) -> dict[str, Any]:
    """Return an evaluation as a dict for JSON, with None in place of infinite values, which JSON lacks."""
    content = asdict(evaluation)
    for name, value in content.items():
        if isinstance(value, dict):
            content[name] = {bound: None if number == math.inf else number for bound, number in value.items()}
    return content


def check_writable(page: Path) -> None:
    """Raise ValueError if a file cannot be written."""
    if not page.parent.is_dir():
        raise ValueError(f"cannot write {page}: there is no folder {page.parent}")
    if page.is_dir():
        raise ValueError(f"cannot write {page}: it is a folder")
    if not os.access(page.parent, os.W_OK):
        raise ValueError(f"cannot write {page}: the folder {page.parent.resolve()} is not writable")


def table(evaluations: list[Evaluation]) -> str:
    """Return a table with one line per evaluation."""
    rows = [["checkpoint", "tokens", "loss", "perplexity", "bits/byte", "bits/character"]]
    for each in evaluations:
        estimates = (each.loss, each.perplexity, each.bits_per_byte, each.bits_per_character)
        rows.append([each.checkpoint, f"{each.n_tokens:,}", *map(format_estimate, estimates)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    note = "in parentheses: 95 % confidence intervals"
    return "\n".join([f"text  {evaluations[0].corpus}", "", *lines, "", note])


def format_estimate(estimate: Estimate) -> str:
    """Format an estimate as text: its value to four significant digits, and its confidence interval."""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.4g} (text too short for an interval)"
    if math.inf in (estimate.value, estimate.high):
        return f"{estimate.value:.4g} ({estimate.low:.4g} to {estimate.high:.4g})"
    digits = max(0, 3 - math.floor(math.log10(estimate.value))) if estimate.value > 0 else 4
    return f"{estimate.value:.{digits}f} ({estimate.low:.{digits}f} to {estimate.high:.{digits}f})"
