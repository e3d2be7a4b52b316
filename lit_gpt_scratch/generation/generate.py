"""Autoregressive generation: token ids in, token ids out."""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lit_gpt_scratch.generation import sampling
from lit_gpt_scratch.model.cpu_linear import packed_weights
from lit_gpt_scratch.model.gpt import GPT, eval_mode
from lit_gpt_scratch.model.kv_cache import KVCache

MIN_TEMPERATURE = 1e-5  # sampling is greedy below it, because dividing by less overflows
MAX_NEW_TOKENS = 10**6  # a uniform number for each is drawn in advance
MIN_PACKED_ROWS = 4  # batch size from which `packed_weights` is used


@dataclass(frozen=True)
class SamplingOptions:
    """Sampling options.

    Args:
        max_new_tokens: Maximum number of tokens to generate.
        temperature: Divisor of the logits; 0 is greedy decoding, the most probable token each time.
        top_k: Number of most probable tokens to sample from; null means all tokens.
        top_p: Cumulative probability of the most probable tokens to sample from (nucleus sampling); null
            means no limit.
        min_p: Minimum probability of tokens to sample from, as a fraction of the probability of the most
            probable token; null means no limit.
        repetition_penalty: Penalty on tokens that already occur in the prompt or its continuation; values
            above 1 make them less probable, and 1 has no effect.
        banned_tokens: Ids of tokens that are never sampled.
        stop_tokens: Ids of tokens after which a text ends.
        seed: Seed of a prompt's first sample; the seed of each further sample is the next integer. null means
            a random seed.

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
        if not 1 <= self.max_new_tokens <= MAX_NEW_TOKENS:
            raise ValueError(f"max_new_tokens must be 1 to {MAX_NEW_TOKENS:,}, not {self.max_new_tokens}")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be 0 (greedy) or above, not {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(
                f"top_k must be at least 1, not {self.top_k}; leave it out to sample from all tokens"
            )
        for name in ("top_p", "min_p"):
            share = getattr(self, name)
            if share is not None and not 0 < share <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1, not {share}")
        if not 0 < self.repetition_penalty < float("inf"):
            raise ValueError(f"repetition_penalty must be above 0, not {self.repetition_penalty}")


@dataclass
class Continuation:
    """Continuation of a prompt.

    Args:
        tokens: Token ids of the continuation, without the prompt.
        logprobs: Log-probability of each token under the model, before temperature and the other options;
            empty unless requested.
        finish_reason: "stop" if the last token is a stop token or `on_token` returned True for it, otherwise
            "length".
    """

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: Literal["length", "stop"] = "length"


@dataclass
class Generation:
    """Continuations of prompts, and the time that prefill and decoding took for all of them."""

    continuations: list[Continuation]
    prefill_seconds: float
    decode_seconds: float


OnToken = Callable[[int, int], bool]


@torch.inference_mode()
def generate_tokens(
    gpt: GPT,
    prompts: Sequence[Sequence[int]],
    options: SamplingOptions,
    seeds: Sequence[int] | None = None,
    on_token: OnToken | None = None,
    with_logprobs: bool = False,
) -> Generation:
    """Continue the prompts, which are the rows of a batch; a row's tokens do not depend on the other rows.

    When the cache of a row has block_size tokens, it is refilled with the row's last block_size / 2 tokens,
    so that most forward passes compute only one token per row.

    Args:
        gpt: Model in training or evaluation mode; the mode and torch's global random generator do not change.
        prompts: Token ids of each prompt, at least one id; the model reads only the last block_size ids.
        options: Sampling options.
        seeds: Seed of each row; if None, consecutive seeds that start at options.seed, or at a random seed if
            options.seed is None.
        on_token: Function called with (row, token) for each new token; it returns True to end the row.
        with_logprobs: Whether to return the log-probabilities of the new tokens.

    Returns:
        The continuations, in the order of the prompts, with the times that they took.

    Raises:
        ValueError: A banned or stop token is not in the vocabulary, all tokens are banned, or logits are NaN
            or infinite.
    """
    check_tokens(options, gpt.config.vocab_size)
    started = time.perf_counter()
    texts = [list(prompt) for prompt in prompts]
    continuations = [Continuation() for _ in prompts]
    with eval_mode(gpt), packed_weights(gpt) if len(prompts) >= MIN_PACKED_ROWS else nullcontext():
        batch = new_batch(gpt, texts, options, seeds)
        logits = prefill(gpt, batch.cache, texts)
        check_finite_logits(logits)
        prefilled = time.perf_counter()
        for step in range(options.max_new_tokens):
            ids = sample_next(logits.float(), options, batch.uniforms[:, step], batch.seen)  # (B,)
            if with_logprobs:
                chosen = logits.float().log_softmax(dim=-1).gather(1, ids[:, None])
                for row, logprob in zip(batch.rows, chosen[:, 0].tolist(), strict=True):
                    continuations[row].logprobs.append(logprob)
            unfinished = []
            for slot, (row, token) in enumerate(zip(batch.rows, ids.tolist(), strict=True)):
                texts[row].append(token)
                continuations[row].tokens.append(token)
                stopped = on_token is not None and on_token(row, token)
                if stopped or token in options.stop_tokens:
                    continuations[row].finish_reason = "stop"
                else:
                    unfinished.append(slot)
            if not unfinished or step == options.max_new_tokens - 1:
                break
            if batch.seen is not None:
                batch.seen[torch.arange(len(ids), device=ids.device), ids] = True
            if len(unfinished) < len(ids):
                batch, ids = batch.select(unfinished), ids[unfinished]
            slide(gpt, batch, texts)
            logits = gpt(ids[:, None], batch.cache)[:, 0]
    check_finite_logits(logits)  # what is NaN in the cache stays NaN
    return Generation(continuations, prefilled - started, time.perf_counter() - prefilled)


@dataclass
class DecodingBatch:
    """State of the unfinished rows of a generation; a row is a prompt with its continuation.

    Args:
        rows: Index of each row's prompt.
        cache: Keys and values of the rows' tokens so far.
        uniforms: Uniform random numbers from [0, 1), one for each new token, (B, max_new_tokens) of float64.
        seen: Mask of the tokens that each row contains, (B, V) of bool; None without a repetition penalty.
    """

    rows: list[int]
    cache: KVCache
    uniforms: Tensor
    seen: Tensor | None

    def select(self, slots: list[int]) -> "DecodingBatch":
        """Return a batch of the rows at the indices `slots` of this batch."""
        return DecodingBatch(
            rows=[self.rows[slot] for slot in slots],
            cache=self.cache.select(slots),
            uniforms=self.uniforms[slots],
            seen=None if self.seen is None else self.seen[slots],
        )


def new_batch(
    gpt: GPT, texts: list[list[int]], options: SamplingOptions, seeds: Sequence[int] | None
) -> DecodingBatch:
    """Return a batch of all prompts, with an empty cache."""
    device, vocab_size = gpt.wte.weight.device, gpt.config.vocab_size
    seeds = row_seeds(options.seed, len(texts)) if seeds is None else seeds
    uniforms = sample_uniforms(seeds, options.max_new_tokens)
    return DecodingBatch(
        rows=list(range(len(texts))),
        cache=gpt.new_cache(len(texts), max(len(text) for text in texts) + options.max_new_tokens),
        uniforms=uniforms.to("cpu" if device.type == "mps" else device),  # Apple's GPUs have no float64
        seen=tokens_seen(texts, vocab_size).to(device) if options.repetition_penalty != 1 else None,
    )


def prefill(gpt: GPT, cache: KVCache, texts: list[list[int]]) -> Tensor:
    """Fill an empty cache with each text's last block_size tokens; return the next token's logits, (B, V)."""
    windows = [torch.tensor(text[-gpt.config.block_size :]) for text in texts]
    # No token attends to the padding after a shorter text, and later tokens overwrite it.
    x = gpt.features(pad_sequence(windows, batch_first=True).to(gpt.wte.weight.device), cache)
    cache.lengths = [len(window) for window in windows]
    last = torch.tensor(cache.lengths, device=x.device) - 1
    return gpt.lm_head(x[torch.arange(len(x), device=x.device), last])


def check_finite_logits(logits: Tensor) -> None:
    """Raise ValueError if a logit is NaN or infinite, for example because the training run diverged."""
    if not torch.isfinite(logits).all():
        raise ValueError(
            "the model's logits are NaN or infinite: its weights are damaged, or its run diverged"
        )


def slide(gpt: GPT, batch: DecodingBatch, texts: list[list[int]]) -> None:
    """Refill each full row of the cache with its last block_size / 2 tokens, except the newest token.

    The next forward pass adds the newest token to the cache.
    """
    half = max(1, gpt.config.block_size // 2)
    for slot, row in enumerate(batch.rows):
        if batch.cache.lengths[slot] == gpt.config.block_size:
            window = texts[row][-half:-1]
            if window:
                ids = torch.tensor([window], device=gpt.wte.weight.device)
                gpt.features(ids, batch.cache.empty_row(slot))
            batch.cache.lengths[slot] = len(window)


def sample_next(logits: Tensor, options: SamplingOptions, uniforms: Tensor, seen: Tensor | None) -> Tensor:
    """Return the next token of each row; logits (B, V), uniforms (B,) and seen (B, V) -> (B,)."""
    if seen is not None:
        logits = sampling.penalize_repeats(logits, seen, options.repetition_penalty)
    if options.banned_tokens:
        logits = sampling.ban(logits, options.banned_tokens)
    if options.temperature < MIN_TEMPERATURE:
        return logits.argmax(dim=-1)
    logits = logits / options.temperature
    if options.top_k is not None:
        logits = sampling.keep_top_k(logits, options.top_k)
    if options.top_p is not None:
        logits = sampling.keep_top_p(logits, options.top_p)
    if options.min_p is not None:
        logits = sampling.keep_min_p(logits, options.min_p)
    return sampling.sample(logits, uniforms)


def check_tokens(options: SamplingOptions, vocab_size: int) -> None:
    """Check the banned and the stop tokens.

    Raises:
        ValueError: A token is not in the vocabulary, or all tokens are banned.
    """
    for name in ("banned_tokens", "stop_tokens"):
        for token in getattr(options, name):
            if not 0 <= token < vocab_size:
                raise ValueError(f"{name} has {token}, but the vocabulary's tokens are 0 to {vocab_size - 1}")
    if len(set(options.banned_tokens)) == vocab_size:
        raise ValueError("banned_tokens leaves no token to sample")


def row_seeds(seed: int | None, n_rows: int) -> list[int]:
    """Return consecutive seeds, one per row; the first is `seed`, or a random seed if `seed` is None."""
    first = torch.Generator().seed() % 2**53 if seed is None else seed  # exact in every JSON reader
    return [first + row for row in range(n_rows)]


def sample_uniforms(seeds: Sequence[int], n_draws: int) -> Tensor:
    """Return uniform random numbers from [0, 1), (n_rows, n_draws) of float64; each row has its own seed."""
    generators = (torch.Generator().manual_seed(seed % 2**63) for seed in seeds)
    return torch.stack([torch.rand(n_draws, dtype=torch.float64, generator=each) for each in generators])


def tokens_seen(texts: list[list[int]], vocab_size: int) -> Tensor:
    """Return a mask of the tokens that each text contains, (n_rows, vocab_size) of bool."""
    seen = torch.zeros(len(texts), vocab_size, dtype=torch.bool)
    for row, ids in enumerate(texts):
        seen[row, ids] = True
    return seen
