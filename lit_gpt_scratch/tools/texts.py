"""Texts from prompts, written live or in batches."""

import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lit_gpt_scratch.data.progress_bar import print_above_bar, progress_bar
from lit_gpt_scratch.data.tokenizer import Tokenizer, encode_prompt
from lit_gpt_scratch.generation.generate import Continuation, Generation, SamplingOptions, generate, row_seeds
from lit_gpt_scratch.model.gpt import GPT
from lit_gpt_scratch.tools.prompts import read_prompts
from lit_gpt_scratch.tools.text_stream import TextStream

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PredictOptions(SamplingOptions):
    """What is asked for, beside how tokens are drawn.

    Args:
        num_samples: Texts to write for each prompt.
        stop: Strings at which a text ends, themselves left out.
        prompts_file: File of prompts to continue, one a line; in .jsonl, each a string or an object with a
            string `prompt`.
        format: text is prompt and continuation; jsonl is a line a text, with its tokens, their
            log-probabilities, why it ended, and times.
        batch_size: Texts that are written at once; on a terminal it is one, to be read as it comes.
        allow_special: Read <|endoftext|> in a prompt as the token that it names, not as text.
        weights: int8 writes with 8-bit weights: quicker on a CPU for models that do not fit its caches, and a
            little less exact, which is measured and said.
        interactive: Keep a prompt open.

    Raises:
        ValueError: A number is out of range.
    """

    num_samples: int = 1
    stop: list[str] = field(default_factory=list)
    prompts_file: str | None = None
    format: Literal["text", "jsonl"] = "text"
    batch_size: int = 16
    allow_special: bool = False
    weights: Literal["float", "int8"] = "float"
    interactive: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_samples", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if "" in self.stop:
            raise ValueError("a stop string must not be empty")


@dataclass(frozen=True)
class Row:
    """A text to write: its prompt as it was given and as the model reads it, and its seed."""

    prompt: str
    ids: list[int]
    seed: int


def write_texts(gpt: GPT, tokenizer: Tokenizer, prompts: list[str], options: PredictOptions) -> None:
    """Continue each prompt, on standard output; no prompt at all starts from a newline.

    Raises:
        ValueError: The file of prompts cannot be read.
    """
    if options.prompts_file is not None:
        prompts = [*prompts, *read_prompts(Path(options.prompts_file).expanduser())]
    rows = list(rows_to_write(gpt, tokenizer, prompts or [""], options))
    if options.format == "text" and options.prompts_file is None and on_terminal():
        for row in rows:
            print(tokenizer.decode(row.ids), end="", flush=True)
            write_live(gpt, tokenizer, row, options, [])
        return
    with progress_bar("writing", len(rows)) as advance:
        for first in range(0, len(rows), options.batch_size):
            batch = rows[first : first + options.batch_size]
            write_batch(gpt, tokenizer, batch, options)
            advance(len(batch))


def on_terminal() -> bool:
    """Whether somebody reads along."""
    return sys.stdout.isatty()


def rows_to_write(
    gpt: GPT, tokenizer: Tokenizer, prompts: list[str], options: PredictOptions
) -> Iterator[Row]:
    """Each prompt's samples, with what a person should know of them as notices."""
    if options.top_k is not None and options.top_k > gpt.config.vocab_size:
        log.warning("top_k is lowered to the vocabulary's %s tokens", gpt.config.vocab_size)
    if options.temperature == 0 and options.num_samples > 1:
        log.warning("temperature 0 is greedy: all %s samples of a prompt are the same", options.num_samples)
    for prompt in prompts:
        ids = encode_prompt(tokenizer, prompt, options.allow_special).tolist()
        if len(ids) > gpt.config.block_size:
            log.warning(
                "the model reads the last %s of the prompt's %s tokens", gpt.config.block_size, len(ids)
            )
        for seed in row_seeds(options.seed, options.num_samples):
            yield Row(prompt, ids, seed)


def write_live(gpt: GPT, tokenizer: Tokenizer, row: Row, options: PredictOptions, tokens: list[int]) -> None:
    """Write what follows a prompt as it comes, and collect its tokens in `tokens`."""
    stream = TextStream(tokenizer, options.stop)

    def on_token(_: int, token: int) -> bool:
        tokens.append(token)
        print(stream.feed(token), end="", flush=True)
        return stream.ended

    generate(gpt, [row.ids], options, [row.seed], on_token)
    print(stream.finish(), flush=True)


def write_batch(gpt: GPT, tokenizer: Tokenizer, rows: list[Row], options: PredictOptions) -> None:
    """Write some texts when all of them are there."""
    streams = [TextStream(tokenizer, options.stop) for _ in rows]

    def on_token(row: int, token: int) -> bool:
        streams[row].feed(token)
        return streams[row].ended

    prompts, seeds = [row.ids for row in rows], [row.seed for row in rows]
    made = generate(gpt, prompts, options, seeds, on_token, with_logprobs=options.format == "jsonl")
    for row, stream, continuation in zip(rows, streams, made.continuations, strict=True):
        stream.finish()
        if options.format == "text":
            print_above_bar(tokenizer.decode(row.ids) + stream.text, sys.stdout)
        else:
            print_above_bar(as_json(row, stream.text, continuation, made), sys.stdout)


def as_json(row: Row, text: str, continuation: Continuation, made: Generation) -> str:
    """A line of JSON; times are those of the batch, and the rate is of decoding alone."""
    n_decoded = sum(len(other.tokens) - 1 for other in made.continuations)  # prefill gives the first ones
    content = {
        "prompt": row.prompt,
        "text": text,
        "tokens": continuation.tokens,
        "logprobs": [round(logprob, 6) for logprob in continuation.logprobs],
        "finish_reason": continuation.finish_reason,
        "seed": row.seed,
        "prefill_seconds": round(made.prefill_seconds, 6),
        "decode_seconds": round(made.decode_seconds, 6),
        "tokens_per_second": round(n_decoded / made.decode_seconds, 1) if n_decoded else None,
    }
    return json.dumps(content, ensure_ascii=False)
