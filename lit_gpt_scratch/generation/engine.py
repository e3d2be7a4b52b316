"""Autoregressive generation: token ids in, token ids out."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from lit_gpt_scratch.generation import sampling
from lit_gpt_scratch.generation.decoder import Decoder
from lit_gpt_scratch.generation.recorded import RecordedDecode

TINY_TEMPERATURE = 1e-5  # dividing by less overflows


@dataclass(frozen=True)
class SamplingOptions:
    """How text is drawn from a model.

    Args:
        max_new_tokens: Tokens to write after the prompt.
        temperature: 0 takes the likeliest token each time; lower is safer, higher is wilder.
        top_k: Draw from the k likeliest tokens only; null draws from all.
        top_p: Draw from the likeliest tokens only that together reach this probability; null draws from all.
        min_p: Draw from tokens only that are at least so many times as likely as the likeliest; null draws
            from all.
        repetition_penalty: Above 1, what has been read or written becomes less likely; 1 is none.
        banned_tokens: Ids of tokens that are never written.
        stop_tokens: Ids of tokens after which a text ends.
        seed: The same seed gives the same text; null gives another each time. Each further sample of a prompt
            has the next seed.

    Raises:
        ValueError: A number is out of range.
    """

    max_new_tokens: int = 300
    temperature: float = 0.8
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    banned_tokens: list[int] = field(default_factory=list)
    stop_tokens: list[int] = field(default_factory=list)
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be 0 (greedy) or above, not {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(
                f"top_k must be at least 1, not {self.top_k}; leave it out to draw from all tokens"
            )
        for name in ("top_p", "min_p"):
            share = getattr(self, name)
            if share is not None and not 0 < share <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1, not {share}")
        if not 0 < self.repetition_penalty < float("inf"):
            raise ValueError(f"repetition_penalty must be above 0, not {self.repetition_penalty}")


@dataclass
class Continuation:
    """What was written after a prompt.

    Args:
        tokens: Token ids, the prompt's not among them.
        logprobs: Of each token, the logarithm of the probability that the model itself gave it, before
            temperature and the rest; empty unless asked for.
        finish_reason: length, or stop for a stop token or what `on_token` said.
    """

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: Literal["length", "stop"] = "length"


@dataclass
class Generation:
    """Continuations of prompts, and how long reading and writing took for all of them."""

    continuations: list[Continuation]
    prefill_seconds: float
    decode_seconds: float


OnToken = Callable[[int, int], bool]


@torch.inference_mode()
def generate(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    options: SamplingOptions,
    seeds: Sequence[int] | None = None,
    on_token: OnToken | None = None,
    with_logprobs: bool = False,
) -> Generation:
    """Continue each prompt; what a row becomes does not depend on those beside it.

    Once block_size tokens are read, a row goes on from the last half of them, so that most tokens cost one
    step of the cache.

    Args:
        decoder: The model; neither its mode nor torch's global generator matters or changes.
        prompts: Token ids, each at least one; the model looks at the last block_size of them.
        options: How to draw.
        seeds: Of each row; None: options.seed, + 1, + 2 ..., or fresh ones where that is None.
        on_token: Told of each row's every token as (row, token); True ends the row.
        with_logprobs: Keep the tokens' log-probabilities.

    Returns:
        The continuations, in the prompts' order.

    Raises:
        ValueError: A banned token is none of the model's, or all are banned.
    """
    check_banned(options.banned_tokens, decoder.config.vocab_size)
    begun = time.perf_counter()
    device, block_size = decoder.wte.device, decoder.config.block_size
    read = [list(prompt) for prompt in prompts]
    written = [Continuation() for _ in prompts]
    seeds = row_seeds(options.seed, len(prompts)) if seeds is None else seeds
    seen = (
        tokens_seen(read, decoder.config.vocab_size).to(device) if options.repetition_penalty != 1 else None
    )
    longest = max(len(ids) for ids in read) + options.max_new_tokens
    batch = Batch(
        decoder,
        rows=list(range(len(read))),
        positions=[min(len(ids), block_size) for ids in read],
        cache=decoder.new_cache(len(read), min(longest, block_size)),
        # Apple's GPUs have no float64.
        luck=draws_of_luck(seeds, options.max_new_tokens).to("cpu" if device.type == "mps" else device),
        seen=seen,
    )
    windows = [torch.tensor(ids[-block_size:], device=device) for ids in read]
    logits = decoder.prefill(batch.cache, batch.rows, windows)
    prefilled = time.perf_counter()
    for step in range(options.max_new_tokens):
        ids = choose(logits.float(), options, batch.luck[:, step], batch.seen)  # (B,)
        if with_logprobs:
            chosen = logits.float().log_softmax(dim=-1).gather(1, ids[:, None])
            for row, logprob in zip(batch.rows, chosen[:, 0].tolist(), strict=True):
                written[row].logprobs.append(logprob)
        going = []
        for place, (row, token) in enumerate(zip(batch.rows, ids.tolist(), strict=True)):
            read[row].append(token)
            written[row].tokens.append(token)
            told_to_stop = on_token is not None and on_token(row, token)
            if told_to_stop or token in options.stop_tokens:
                written[row].finish_reason = "stop"
            else:
                going.append(place)
        if not going or step == options.max_new_tokens - 1:
            break
        if batch.seen is not None:
            batch.seen[torch.arange(len(ids), device=device), ids] = True
        if len(going) < len(ids):
            batch, ids = batch.only(going), ids[going]
        slide(batch, read)
        logits = batch.decode(ids)
    return Generation(written, prefilled - begun, time.perf_counter() - prefilled)


@dataclass
class Batch:
    """The rows that are being written.

    Args:
        decoder: The model.
        rows: Which prompt each belongs to.
        positions: How many tokens its cache holds.
        cache: What `Decoder.new_cache` gives.
        luck: What decides its draws, (B, max_new_tokens).
        seen: The tokens that it has read, (B, V) of bool; None where that does not matter.
    """

    decoder: Decoder
    rows: list[int]
    positions: list[int]
    cache: Tensor
    luck: Tensor
    seen: Tensor | None

    def __post_init__(self) -> None:
        on_gpu = self.cache.device.type == "cuda"
        self._step = (
            RecordedDecode(self.decoder, self.cache) if on_gpu else partial(self.decoder.decode, self.cache)
        )

    def decode(self, ids: Tensor) -> Tensor:
        """Read the rows' newest tokens, (B,); logits of those after them, (B, V)."""
        logits = self._step(ids, self.positions)
        self.positions = [position + 1 for position in self.positions]
        return logits

    def only(self, places: list[int]) -> "Batch":
        """Some of the rows: what has ended costs nothing further."""
        return Batch(
            self.decoder,
            rows=[self.rows[place] for place in places],
            positions=[self.positions[place] for place in places],
            cache=self.cache[:, :, places],
            luck=self.luck[places],
            seen=None if self.seen is None else self.seen[places],
        )


def slide(batch: Batch, read: list[list[int]]) -> None:
    """Let each row whose cache is full go on from the last half of what it has read.

    The newest token is left for `decode`.
    """
    block_size = batch.decoder.config.block_size
    half = max(1, block_size // 2)
    for place, row in enumerate(batch.rows):
        if batch.positions[place] == block_size:
            window = read[row][-half:-1]
            batch.positions[place] = len(window)
            if window:
                tokens = torch.tensor(window, device=batch.cache.device)
                batch.decoder.prefill(batch.cache, [place], [tokens])


def choose(logits: Tensor, options: SamplingOptions, luck: Tensor, seen: Tensor | None) -> Tensor:
    """The next token of each row; logits (B, V), luck (B,) and seen (B, V) -> (B,)."""
    if seen is not None:
        logits = sampling.penalize_repeats(logits, seen, options.repetition_penalty)
    if options.banned_tokens:
        logits = sampling.ban(logits, options.banned_tokens)
    if options.temperature < TINY_TEMPERATURE:
        return logits.argmax(dim=-1)
    logits = logits / options.temperature
    if options.top_k is not None:
        logits = sampling.keep_top_k(logits, options.top_k)
    if options.top_p is not None:
        logits = sampling.keep_top_p(logits, options.top_p)
    if options.min_p is not None:
        logits = sampling.keep_min_p(logits, options.min_p)
    return sampling.draw(logits, luck)


def check_banned(tokens: list[int], vocab_size: int) -> None:
    """Raise ValueError if a banned token is out of range, or none is left to write."""
    for token in tokens:
        if not 0 <= token < vocab_size:
            raise ValueError(
                f"banned_tokens has {token}, but the vocabulary's tokens are 0 to {vocab_size - 1}"
            )
    if len(set(tokens)) == vocab_size:
        raise ValueError("banned_tokens leaves no token to write")


def row_seeds(seed: int | None, n_rows: int) -> list[int]:
    """A seed for each row."""
    first = torch.Generator().seed() if seed is None else seed
    return [first + row for row in range(n_rows)]


def draws_of_luck(seeds: Sequence[int], n_draws: int) -> Tensor:
    """Numbers from 0 to below 1, (rows, n_draws) of float64, each row from its own seed."""
    generators = (torch.Generator().manual_seed(seed % 2**63) for seed in seeds)
    return torch.stack([torch.rand(n_draws, dtype=torch.float64, generator=each) for each in generators])


def tokens_seen(read: list[list[int]], vocab_size: int) -> Tensor:
    """Which tokens each row has read, (rows, vocab_size) of bool."""
    seen = torch.zeros(len(read), vocab_size, dtype=torch.bool)
    for row, ids in enumerate(read):
        seen[row, ids] = True
    return seen
