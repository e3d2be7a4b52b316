"""Random models, tokenizers and folders in Hugging Face's layout."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lit_gpt_scratch.api import load
from lit_gpt_scratch.data.bpe import SubwordTokenizer, train_bpe
from lit_gpt_scratch.data.corpus import HAMLET, Corpus
from lit_gpt_scratch.model.gpt import GPT

transformers = pytest.importorskip("transformers")

# Fields of both families' configs, by transformers' common names.
SIZES = {
    "vocab_size": 281,
    "max_position_embeddings": 32,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "bos_token_id": 280,
    "eos_token_id": 280,
}
QWEN3 = {"intermediate_size": 128, "head_dim": 12, "num_key_value_heads": 4, "tie_word_embeddings": True}


def random_hub_model(model_type: str = "gpt2", **settings: Any) -> Any:
    """Return a model of transformers; all its parameters, also biases and norms, are random."""
    torch.manual_seed(1)
    sizes = SIZES | (QWEN3 if model_type == "qwen3" else {})
    config = transformers.AutoConfig.for_model(model_type, **{**sizes, **settings})
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def bpe(n_tokens: int = 281) -> SubwordTokenizer:
    """Return a tokenizer trained on Hamlet."""
    tokenizer = train_bpe(Corpus.read("hamlet", (HAMLET,)), len(HAMLET), n_tokens)
    assert tokenizer.vocab_size == n_tokens
    return tokenizer


def write_hub_folder(folder: Path, model: Any = None) -> None:
    """Write a model as transformers does, with a tokenizer of 281 tokens."""
    from lit_gpt_scratch.hub.tokenizer import to_hub  # needs transformers

    (model or random_hub_model()).save_pretrained(folder)
    to_hub(bpe()).save(str(folder / "tokenizer.json"))


@torch.no_grad()
def assert_same_logits(ours: GPT, theirs: Any) -> None:
    """Compare the logits of random tokens."""
    idx = torch.randint(ours.config.vocab_size, (3, ours.config.block_size))
    torch.testing.assert_close(ours.eval()(idx), theirs.eval()(idx).logits, atol=1e-5, rtol=1e-5)


def load_gpt(ckpt: Path | str) -> GPT:
    """Return the model of a checkpoint, on the CPU."""
    return load(ckpt).gpt.cpu()
