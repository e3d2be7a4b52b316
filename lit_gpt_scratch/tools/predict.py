"""Texts from prompts."""

import logging
from collections.abc import Iterator

import torch

from lit_gpt_scratch.data.tokenizer import Tokenizer, encode_prompt
from lit_gpt_scratch.generation.engine import SamplingOptions, generate
from lit_gpt_scratch.model.gpt import GPT

log = logging.getLogger(__name__)


def write_texts(
    gpt: GPT,
    tokenizer: Tokenizer,
    prompts: list[str],
    num_samples: int,
    options: SamplingOptions,
    allow_special: bool = False,
) -> Iterator[str]:
    """Continue each prompt `num_samples` times; no prompt at all starts from a newline.

    `allow_special` reads `<|endoftext|>` in a prompt as the token that it names.

    Yields:
        Each text, its prompt at its head, as soon as it is written.

    Raises:
        ValueError: num_samples is not positive.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, not {num_samples}")
    vocab_size, block_size = gpt.config.vocab_size, gpt.config.block_size
    if options.top_k is not None and options.top_k > vocab_size:
        log.warning("top_k is lowered to the vocabulary's %s tokens", vocab_size)
    for prompt in prompts or [""]:
        ids = torch.from_numpy(encode_prompt(tokenizer, prompt, allow_special).astype("int64")).to(
            gpt.wte.weight.device
        )
        if len(ids) > block_size:
            log.warning("the model reads the last %s of the prompt's %s tokens", block_size, len(ids))
        for row in generate(gpt, ids.repeat(num_samples, 1), options):
            yield tokenizer.decode(row.tolist())
