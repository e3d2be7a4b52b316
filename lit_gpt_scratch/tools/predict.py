"""`predict`: a model's weights made ready to write, and what they are to write."""

import logging
import math

import torch

from lit_gpt_scratch.data.corpus import HAMLET
from lit_gpt_scratch.data.tokenizer import Tokenizer
from lit_gpt_scratch.model.cpu_linear import quantize_linear_layers
from lit_gpt_scratch.model.gpt import GPT, eval_mode
from lit_gpt_scratch.tools.interactive import converse
from lit_gpt_scratch.tools.texts import PredictOptions, write_texts

log = logging.getLogger(__name__)

__all__ = ["PredictOptions", "predict"]


def predict(gpt: GPT, tokenizer: Tokenizer, prompts: list[str], options: PredictOptions) -> None:
    """Write texts to standard output.

    Args:
        gpt: The model; `weights` int8 replaces its layers.
        tokenizer: Its tokenizer.
        prompts: What the texts continue.
        options: How to sample and write.

    Raises:
        ValueError: An option is wrong, or the file of prompts cannot be read.
    """
    if options.interactive and (prompts or options.prompts_file or options.format != "text"):
        raise ValueError("--interactive asks for its prompts: leave prompt, prompts_file and format out")
    if options.weights == "int8":
        exact = perplexity(gpt, tokenizer)
        quantize_linear_layers(gpt)
        rounded = perplexity(gpt, tokenizer)
        change = 100 * (rounded / exact - 1)
        costs = f"perplexity {rounded:.2f} in place of {exact:.2f} ({change:+.2f} %)"
        log.warning("int8 weights: %s on a part of Hamlet", costs)
    if options.interactive:
        converse(gpt, tokenizer, options)
    else:
        write_texts(gpt, tokenizer, prompts, options)


@torch.inference_mode()
def perplexity(gpt: GPT, tokenizer: Tokenizer) -> float:
    """Return the perplexity of the first block of the embedded text."""
    known = "".join(char for char in HAMLET if not tokenizer.unknown(char))
    ids = torch.from_numpy(tokenizer.encode(known)[: gpt.config.block_size + 1].astype("int64"))
    ids = ids.to(gpt.wte.weight.device)
    with eval_mode(gpt):
        logits = gpt(ids[None, :-1])[0].float()
    return math.exp(torch.nn.functional.cross_entropy(logits, ids[1:]).item())
