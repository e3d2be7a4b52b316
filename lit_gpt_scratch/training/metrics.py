"""Formulas of the metrics of a run."""

import math
import warnings

import torch

from lit_gpt_scratch.model.gpt import GPT


def check_finite(name: str, loss: float, step: int) -> None:
    """Check that a run has not diverged.

    Raises:
        FloatingPointError: The loss is NaN or infinite.
    """
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"{name} is {loss} at step {step}: the run has diverged; try a smaller model.learning_rate or "
            "more model.warmup_steps"
        )


def perplexity(loss_nats: float) -> float:
    """Return exp(loss); infinity from 700 nats on, since exp overflows float64 above 709."""
    return math.exp(loss_nats) if loss_nats < 700 else math.inf


def bits_per_byte(loss_nats: float, bytes_per_token: float) -> float:
    """Return the cross-entropy in bits per UTF-8 byte of text, which is comparable across tokenizers."""
    return loss_nats / math.log(2) / bytes_per_token


def loss_metrics(loss_nats: float, bytes_per_token: float) -> dict[str, float]:
    """Return the metrics that are derived from a loss, ``perplexity`` and ``bits_per_byte``, by name."""
    bits = bits_per_byte(loss_nats, bytes_per_token)
    return {"perplexity": perplexity(loss_nats), "bits_per_byte": bits}


def train_flops_per_token(gpt: GPT) -> int:
    """Return the FLOPs of a training step, forward and backward, per token.

    The result is the sum of two terms: 6 N for the N weights in matrix products, and 12 L T C for attention
    in L layers (Chowdhery et al. 2022, "PaLM", appendix B). T is the block size. N excludes position
    embeddings and untied token embeddings, which are table lookups.
    """
    config = gpt.config
    n_parameters = gpt.n_parameters
    if config.arch == "gpt2":
        n_parameters -= gpt.wpe.weight.numel()
    if not config.tie_weights:
        n_parameters -= gpt.wte.weight.numel()
    return 6 * n_parameters + 12 * config.n_layer * config.block_size * config.n_embd


def peak_flops_per_second(device: torch.device, dtype: torch.dtype) -> int | None:
    """Return a GPU's peak FLOPs per second for a dtype according to its data sheet.

    The result is None for an unknown GPU, and for device types other than cuda.
    """
    if device.type != "cuda":
        return None
    from lightning.fabric.utilities.throughput import get_available_flops  # some commands avoid Lightning

    with warnings.catch_warnings():  # Lightning warns about an unknown GPU
        warnings.simplefilter("ignore")
        return get_available_flops(device, dtype)
