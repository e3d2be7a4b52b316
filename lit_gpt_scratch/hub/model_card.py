"""The model card of an exported model."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lit_gpt_scratch import __version__
from lit_gpt_scratch.api import Model
from lit_gpt_scratch.training.metrics import bits_per_byte, perplexity

TEMPLATE = """\
---
library_name: transformers
pipeline_tag: text-generation
tags: [{model_type}, lit_gpt_scratch]
---

# {title}

Trained and exported with lit_gpt_scratch {version}. The model continues text in the style of its training
text, and its statements may be false.

| | |
|---|---|
{rows}
"""


def model_card(checkpoint: dict[str, Any], model: Model, model_type: str, title: str) -> str:
    """Return the content of a README.md: the size, corpus, losses and training of a checkpoint's model."""
    rows = "\n".join(f"| {name} | {value} |" for name, value in _facts(checkpoint, model).items())
    return TEMPLATE.format(model_type=model_type, title=title, version=__version__, rows=rows)


def _facts(checkpoint: dict[str, Any], model: Model) -> dict[str, str]:
    config, settings, text = model.gpt.config, checkpoint["hyper_parameters"], checkpoint["TextDataModule"]
    shape = f"{config.n_layer} layers, {config.n_head} heads, {config.n_embd} wide"
    sizes = f"context {config.block_size} tokens, vocabulary {config.vocab_size:,} tokens"
    facts = {"parameters": f"{model.n_parameters:,}", "architecture": f"{shape}, {sizes}"}
    if corpus := text["corpus"]:
        name = _public_name(corpus["name"])
        facts["corpus"] = f"{name}: {corpus['n_chars']:,} characters, sha256 {corpus['sha256']}"
    if (loss := checkpoint["evaluation"].get("val/loss")) is not None:
        facts["validation loss"] = f"{loss:.4f} nats per token (perplexity {perplexity(loss):.2f})"
        facts["training loss"] = f"{checkpoint['evaluation']['train/eval_loss']:.4f} nats per token"
        if "val" in text:
            facts["validation bits per byte"] = f"{bits_per_byte(loss, text['val']['bytes_per_token']):.4f}"
    begun_from = checkpoint.get("init_from")
    facts["initial weights"] = "/".join(Path(begun_from).parts[-2:]) if begun_from else "random"
    if steps := checkpoint["global_step"]:
        data = checkpoint["datamodule_hyper_parameters"]
        n_tokens = f"{data['batch_size']} x {config.block_size} tokens, {checkpoint['n_tokens']:,} in all"
        rates = f"learning rate {settings['learning_rate']:g} to {settings['min_learning_rate']:g}"
        facts["training"] = f"{steps:,} steps of {n_tokens}; {settings['optimizer']}, {rates}"
    return facts


def _public_name(name: str) -> str:
    """Return the name of a text without its folder, or its URL without user, password and query."""
    if "://" not in name:
        return Path(name).name
    url = urlsplit(name)
    return f"{url.scheme}://{url.hostname}{url.path}"
