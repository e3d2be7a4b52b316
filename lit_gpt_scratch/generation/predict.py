"""The command `predict`: continue prompts, printed as they are generated or in batches."""

import dataclasses
import json
import logging
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gpt_scratch.data.corpus import HAMLET
from lit_gpt_scratch.data.progress_bar import print_above_bar, progress_bar
from lit_gpt_scratch.data.readers import file_format
from lit_gpt_scratch.data.tokenizers import Tokenizer, encode_prompt
from lit_gpt_scratch.generation.detokenizer import Detokenizer
from lit_gpt_scratch.generation.generate import (
    Continuation,
    Generation,
    SamplingOptions,
    generate_tokens,
    row_seeds,
)
from lit_gpt_scratch.model.cpu_linear import quantize_linear_layers
from lit_gpt_scratch.model.gpt import GPT, eval_mode

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PredictOptions(SamplingOptions):
    """Options of the command `predict`, except the prompts on the command line.

    Args:
        num_samples: Number of continuations of each prompt.
        stop: Strings that end a text and are left out of it.
        prompts_file: File with one prompt per line; in a .jsonl file, each line is a JSON string or a JSON
            object with a string `prompt`.
        format: Output format: text is the prompt and its continuation; jsonl is one line of JSON for each
            continuation, with its tokens, the tokens' log-probabilities, the finish reason and times.
        batch_size: Number of texts generated at once. It has no effect if each text is printed as it is
            generated: on a terminal, with format text and without prompts_file.
        allow_special: Whether <|endoftext|> in a prompt is the special token; otherwise, it is ordinary text.
        weights: Precision of the linear layers' weights. int8 (8-bit weights, on a CPU) is faster for models
            that do not fit into the CPU's caches, and a little less exact; the change in perplexity is
            measured and reported.
        interactive: Interactive session that reads prompts from the terminal.

    Raises:
        ValueError: A number is out of range, or a stop string is empty.
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
    """A text to generate: its prompt, the prompt's tokens, and its seed."""

    prompt: str
    ids: list[int]
    seed: int


def print_continuations(gpt: GPT, tokenizer: Tokenizer, prompts: list[str], options: PredictOptions) -> None:
    """Print continuations of each prompt, or of a newline if there is no prompt, to standard output.

    Args:
        gpt: The model; if `options.weights` is int8, its linear layers are replaced in place.
        tokenizer: The model's tokenizer.
        prompts: Texts to continue; the prompts of `options.prompts_file` are continued after them.
        options: Sampling and output options.

    Raises:
        ValueError: An option is wrong, or the file of prompts cannot be read.
    """
    if options.interactive and (prompts or options.prompts_file or options.format != "text"):
        raise ValueError("--interactive asks for its prompts: leave prompt, prompts_file and format out")
    if options.weights == "int8":
        quantize_with_report(gpt, tokenizer)
    if options.interactive:
        from lit_gpt_scratch.generation.interactive import interact  # not at the top: it imports this module

        interact(gpt, tokenizer, options)
    else:
        print_texts(gpt, tokenizer, prompts, options)


def print_texts(gpt: GPT, tokenizer: Tokenizer, prompts: list[str], options: PredictOptions) -> None:
    """Print each prompt and its continuations: on a terminal as they are generated, otherwise in batches."""
    if options.prompts_file is not None:
        prompts = [*prompts, *read_prompts(Path(options.prompts_file).expanduser())]
    rows = list(make_rows(gpt, tokenizer, prompts or [""], options))
    if options.format == "text" and options.prompts_file is None and sys.stdout.isatty():
        for row in rows:
            print(tokenizer.decode(row.ids), end="", flush=True)
            stream_text(gpt, tokenizer, [*row.ids], dataclasses.replace(options, seed=row.seed))
        return
    with progress_bar("writing", len(rows)) as advance:
        for first in range(0, len(rows), options.batch_size):
            batch = rows[first : first + options.batch_size]
            print_batch(gpt, tokenizer, batch, options)
            advance(len(batch))


def quantize_with_report(gpt: GPT, tokenizer: Tokenizer) -> None:
    """Replace a model's linear layers by 8-bit layers in place; log the change in perplexity on `HAMLET`."""
    known = "".join(char for char in HAMLET if not tokenizer.unknown_chars(char))
    ids = torch.from_numpy(tokenizer.encode(known)[: gpt.config.block_size + 1].astype("int64"))
    if len(ids) < 2:
        quantize_linear_layers(gpt)
        log.warning("int8 weights: the change of perplexity cannot be measured with this vocabulary")
        return
    exact = measure_perplexity(gpt, ids)
    quantize_linear_layers(gpt)
    rounded = measure_perplexity(gpt, ids)
    change = f"perplexity {rounded:.2f} instead of {exact:.2f} ({100 * (rounded / exact - 1):+.2f} %)"
    log.warning("int8 weights: %s on a part of Hamlet", change)


@torch.inference_mode()
def measure_perplexity(gpt: GPT, ids: Tensor) -> float:
    """Return the perplexity of a model on token ids, (T + 1,), of which it predicts the last T."""
    ids = ids.to(gpt.wte.weight.device)
    with eval_mode(gpt):
        logits = gpt(ids[None, :-1])[0].float()
    return math.exp(F.cross_entropy(logits, ids[1:]).item())


def read_prompts(path: Path) -> list[str]:
    """Return the prompts of a file, one per line.

    A line is the text of a prompt. If the file's name implies JSON Lines, such as p.jsonl, a line is a JSON
    string or a JSON object with a string `prompt`. Blank lines are left out.

    Raises:
        ValueError: The file or one of its lines cannot be read, or it has no prompt.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    prompts = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            prompt: Any = line.decode("utf-8-sig" if number == 1 else "utf-8").removesuffix("\r")
            if file_format(path) == ".jsonl":
                prompt = json.loads(prompt)
            str(prompt).encode()  # fails for an unpaired surrogate, which JSON allows
        except (ValueError, RecursionError) as error:
            kind = "UTF-8" if isinstance(error, UnicodeError) else "JSON"
            raise ValueError(f"line {number} of {path} is not {kind}") from error
        if isinstance(prompt, dict):
            prompt = prompt.get("prompt")
        if not isinstance(prompt, str):
            raise ValueError(
                f"line {number} of {path} is neither a string nor an object with a string prompt"
            )
        prompts.append(prompt)
    if not prompts:
        raise ValueError(f"{path} has no prompt in it")
    return prompts


def make_rows(gpt: GPT, tokenizer: Tokenizer, prompts: list[str], options: PredictOptions) -> Iterator[Row]:
    """Yield `num_samples` rows for each prompt; log a warning for options that have no effect."""
    block_size, vocab_size = gpt.config.block_size, gpt.config.vocab_size
    if options.top_k is not None and options.top_k > vocab_size:
        log.warning("top_k is lowered to the vocabulary's %s tokens", vocab_size)
    if options.temperature == 0 and options.num_samples > 1:
        log.warning("temperature 0 is greedy: all %s samples of a prompt are the same", options.num_samples)
    for prompt in prompts:
        ids = encode_prompt(tokenizer, prompt, options.allow_special).tolist()
        if len(ids) > block_size:
            log.warning("the model reads the last %s of the prompt's %s tokens", block_size, len(ids))
        for seed in row_seeds(options.seed, options.num_samples):
            yield Row(prompt, ids, seed)


def stream_text(gpt: GPT, tokenizer: Tokenizer, ids: list[int], options: PredictOptions) -> None:
    """Print a continuation of the tokens `ids` as it is generated, and append the new tokens to `ids`."""
    detokenizer = Detokenizer(tokenizer, options.stop)

    def on_token(_: int, token: int) -> bool:
        ids.append(token)
        print(detokenizer.feed(token), end="", flush=True)
        return detokenizer.stopped

    generate_tokens(gpt, [ids], options, on_token=on_token)
    print(detokenizer.finish(), flush=True)


def print_batch(gpt: GPT, tokenizer: Tokenizer, rows: list[Row], options: PredictOptions) -> None:
    """Generate a batch of texts and print them."""
    detokenizers = [Detokenizer(tokenizer, options.stop) for _ in rows]

    def on_token(row: int, token: int) -> bool:
        detokenizers[row].feed(token)
        return detokenizers[row].stopped

    prompts, seeds = [row.ids for row in rows], [row.seed for row in rows]
    result = generate_tokens(gpt, prompts, options, seeds, on_token, with_logprobs=options.format == "jsonl")
    for row, detokenizer, continuation in zip(rows, detokenizers, result.continuations, strict=True):
        detokenizer.finish()
        if options.format == "text":
            print_above_bar(tokenizer.decode(row.ids) + detokenizer.text, sys.stdout)
        else:
            print_above_bar(jsonl_line(row, detokenizer.text, continuation, result), sys.stdout)


def jsonl_line(row: Row, text: str, continuation: Continuation, result: Generation) -> str:
    """Return a generated text as a line of JSON.

    The times and tokens_per_second, the speed of decoding, are measured for the whole batch.
    """
    n_decoded = sum(len(each.tokens) - 1 for each in result.continuations)  # prefill gives the first tokens
    content = {
        "prompt": row.prompt,
        "text": text,
        "tokens": continuation.tokens,
        "logprobs": [round(logprob, 6) for logprob in continuation.logprobs],
        "finish_reason": continuation.finish_reason,
        "seed": row.seed,
        "prefill_seconds": round(result.prefill_seconds, 6),
        "decode_seconds": round(result.decode_seconds, 6),
        "tokens_per_second": round(n_decoded / result.decode_seconds, 1) if n_decoded else None,
    }
    return json.dumps(content, ensure_ascii=False)
