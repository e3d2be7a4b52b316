"""Models and folders of Hugging Face's for the tests that need them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lit_gpt_scratch.api import load
from lit_gpt_scratch.data.corpus import HAMLET, Corpus
from lit_gpt_scratch.data.subwords import SubwordTokenizer, train_bpe
from lit_gpt_scratch.model.gpt import GPT

transformers = pytest.importorskip("transformers")

SIZES = {"n_positions": 32, "n_embd": 48, "n_layer": 3, "n_head": 4}
ENDS = {"bos_token_id": 280, "eos_token_id": 280}


def random_hub_model(std: float = 0.1, **settings: Any) -> Any:
    """A GPT-2 of theirs whose every parameter, biases and norms too, is random."""
    torch.manual_seed(1)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**{**SIZES, **ENDS, **settings})).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return model


def bpe(n_tokens: int = 280) -> SubwordTokenizer:
    tokenizer = train_bpe(Corpus.read("hamlet", (HAMLET,)), len(HAMLET), n_tokens)
    assert tokenizer.vocab_size == n_tokens
    return tokenizer


def write_hub_folder(folder: Path) -> None:
    """As transformers writes it, with a tokenizer of 281 tokens."""
    from lit_gpt_scratch.hub.tokenizer import to_hub  # only if transformers is there

    random_hub_model(vocab_size=281).save_pretrained(folder)
    to_hub(bpe(281)).save(str(folder / "tokenizer.json"))


@torch.no_grad()
def assert_same_logits(ours: GPT, theirs: Any) -> None:
    idx = torch.randint(ours.config.vocab_size, (3, ours.config.block_size))
    torch.testing.assert_close(ours.eval()(idx), theirs.eval()(idx).logits, atol=1e-5, rtol=1e-5)


def gpt_of(ckpt: Path) -> GPT:
    return load(ckpt).gpt
