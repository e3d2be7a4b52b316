"""`predict`: a model's weights made ready to write, and what they are to write."""

import logging
import math

import torch

from lit_gpt_scratch.data.corpus import HAMLET
from lit_gpt_scratch.data.tokenizer import Tokenizer
from lit_gpt_scratch.generation.decoder import Decoder
from lit_gpt_scratch.model.gpt import GPT
from lit_gpt_scratch.tools.interactive import converse
from lit_gpt_scratch.tools.texts import PredictOptions, write_texts

log = logging.getLogger(__name__)

__all__ = ["PredictOptions", "predict"]


def predict(gpt: GPT, tokenizer: Tokenizer, prompts: list[str], options: PredictOptions) -> None:
    """Write on standard output what is asked for.

    Raises:
        ValueError: An option is wrong, or the file of prompts cannot be read.
    """
    if options.interactive and (prompts or options.prompts_file or options.format != "text"):
        raise ValueError("--interactive asks for its prompts: leave prompt, prompts_file and format out")
    with torch.inference_mode():
        decoder = Decoder(gpt, options.weights)
        if options.weights == "int8":
            exact, rounded = (perplexity(each, tokenizer) for each in (Decoder(gpt), decoder))
            change = rounded / exact - 1
            log.warning(
                "int8 weights: perplexity %.2f in place of %.2f (%+.2f %%) on some Hamlet",
                rounded,
                exact,
                100 * change,
            )
        if options.interactive:
            converse(decoder, tokenizer, options)
        else:
            write_texts(decoder, tokenizer, prompts, options)


def perplexity(decoder: Decoder, tokenizer: Tokenizer) -> float:
    """Of the embedded text, as far as one block reaches."""
    known = "".join(char for char in HAMLET if not tokenizer.unknown(char))
    ids = torch.from_numpy(tokenizer.encode(known)[: decoder.config.block_size + 1].astype("int64"))
    logits = decoder.logits(ids[None, :-1])[0].float()
    return math.exp(torch.nn.functional.cross_entropy(logits, ids[1:]).item())
