"""The README of an exported model."""

import math
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import ModelCard, ModelCardData

from lit_gpt_scratch import __version__
from lit_gpt_scratch.api import Model
from lit_gpt_scratch.training.metrics import bits_per_byte, perplexity

TEMPLATE = """\
---
{{ card_data }}
---

# {{ title }}

A GPT in the layout of {{ layout }}, exported by lit_gpt_scratch {{ version }}.

| | |
|---|---|
{% for name, value in facts.items() %}| {{ name }} | {{ value }} |
{% endfor %}
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model, tokenizer = AutoModelForCausalLM.from_pretrained("."), AutoTokenizer.from_pretrained(".")
inputs = tokenizer("To be", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=50)[0]))
```

It continues text in the manner of what it was trained on; what it writes is not fact.
"""


def model_card(checkpoint: dict[str, Any], model: Model, title: str) -> ModelCard:
    """Return a card with corpus, losses, size and training of a model.

    Args:
        checkpoint: The model's checkpoint.
        model: The model.
        title: Name of the model.
    """
    layout, tag = ("Qwen3", "qwen3") if model.gpt.config.arch == "modern" else ("GPT-2", "gpt2")
    data = ModelCardData(
        library_name="transformers", pipeline_tag="text-generation", tags=[tag, "lit_gpt_scratch"]
    )
    return ModelCard.from_template(
        data,
        template_str=TEMPLATE,
        title=title,
        layout=layout,
        version=__version__,
        facts=_facts(checkpoint, model),
    )


def _facts(checkpoint: dict[str, Any], model: Model) -> dict[str, str]:
    config, tokenizer = model.gpt.config, checkpoint["TextDataModule"]["tokenizer"]
    kind = {"tiktoken": tokenizer.get("name"), "bpe": "byte pair encoding learnt from the training text"}
    return {
        "parameters": f"{model.n_parameters:,}",
        "architecture": f"{config.n_layer} layers, {config.n_head} heads, {config.n_embd} wide, "
        f"context {config.block_size} tokens",
        "tokenizer": f"{kind.get(tokenizer['kind'], tokenizer['kind'])}, {config.vocab_size:,} tokens",
        **_corpus(checkpoint["TextDataModule"]),
        **_losses(checkpoint),
        **_training(checkpoint),
    }


def _corpus(state: dict[str, Any]) -> dict[str, str]:
    corpus = state["corpus"]
    if corpus is None:
        return {"corpus": "not known: the weights were imported and not trained further"}
    name, size = _public(corpus["name"]), f"{corpus['n_chars']:,} characters"
    return {"corpus": f"{name}: {size}, sha256 {corpus['sha256']}"}


def _public(name: str) -> str:
    """A text's or folder's name without what is nobody's business: where it lay, passwords, signatures."""
    if "://" not in name:
        return Path(name).name
    url = urlsplit(name)
    return f"{url.scheme}://{url.hostname}{url.path}"


def _losses(checkpoint: dict[str, Any]) -> dict[str, str]:
    evaluation = checkpoint.get("evaluation") or {}
    if "val/loss" not in evaluation:
        return {"validation loss": "not measured"}
    loss = evaluation["val/loss"]
    losses = {
        "validation loss": f"{loss:.4f} nats per token (perplexity {perplexity(loss):.2f})",
        "training loss": f"{evaluation['train/eval_loss']:.4f} nats per token",
    }
    bytes_per_token = checkpoint["TextDataModule"].get("val", {}).get("bytes_per_token", math.nan)
    if not math.isnan(bytes_per_token):
        losses["validation bits per byte"] = f"{bits_per_byte(loss, bytes_per_token):.4f}"
    return losses


def _training(checkpoint: dict[str, Any]) -> dict[str, str]:
    steps, settings = checkpoint["global_step"], checkpoint["hyper_parameters"]
    data = checkpoint["datamodule_hyper_parameters"]
    begun_from = checkpoint.get("begun_from")
    first = f"those of {'/'.join(Path(begun_from).parts[-2:])}" if begun_from else "random"
    if not steps:
        return {"first weights": first}
    return {
        "first weights": first,
        "training": f"{steps:,} steps of {data['batch_size']} x {settings['block_size']} tokens, "
        f"{checkpoint['n_tokens']:,} in all",
        "optimizer": _optimizer(settings),
        "seed": f"{data['seed']}",
    }


def _optimizer(settings: dict[str, Any]) -> str:
    """Describe optimizer and schedule of a checkpoint's hyper-parameters."""
    schedule = f"{settings['schedule']}, {settings['warmup_steps']} steps of warmup"
    first = ""
    if settings["optimizer"] == "muon":
        first = (
            f"Muon for the blocks' matrices, learning rate {settings['muon_learning_rate']:g}; for the rest "
        )
    return (
        f"{first}AdamW, learning rate {settings['learning_rate']:g} to {settings['min_learning_rate']:g} "
        f"({schedule}), betas {settings['beta1']:g} and {settings['beta2']:g}, weight decay "
        f"{settings['weight_decay']:g}"
    )
