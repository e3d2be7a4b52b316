"""The numbers of a run, and how they are computed."""

import math
import warnings

import torch

from lit_gpt_scratch.model.gpt import GPT


def check_finite(name: str, loss: float, step: int) -> None:
    """Check that a run has not diverged, which it would not recover from.

    Raises:
        FloatingPointError: The loss is NaN or infinite.
    """
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"{name} is {loss} at step {step}: the run has diverged; a smaller model.learning_rate or "
            "longer model.warmup_steps may help"
        )


def perplexity(loss_nats: float) -> float:
    """E to the mean cross-entropy: among how many equally likely tokens the model hesitates."""
    return math.exp(loss_nats) if loss_nats < 700 else math.inf


def bits_per_byte(loss_nats: float, bytes_per_token: float) -> float:
    """Cross-entropy in bits for each UTF-8 byte of text, which compares models of different tokenizers."""
    return loss_nats / math.log(2) / bytes_per_token


def train_flops_per_token(gpt: GPT) -> int:
    """FLOPs of a training step, forward and backward, for one token.

    6 N for the matrices and 12 L T C for attention (Chowdhery et al. 2022, "PaLM", appendix B). N leaves out
    the position table, which is looked up and not multiplied, and the token table where it is not the head.
    """
    config = gpt.config
    n_parameters = gpt.n_parameters
    if config.arch == "gpt2":
        n_parameters -= gpt.wpe.weight.numel()
    if not config.tie_weights:
        n_parameters -= gpt.wte.weight.numel()
    return 6 * n_parameters + 12 * config.n_layer * config.block_size * config.n_embd


def peak_flops_per_second(device: torch.device, dtype: torch.dtype) -> int | None:
    """What the device's maker promises; None for a CPU or a device that Lightning's table lacks."""
    if device.type != "cuda":
        return None
    from lightning.fabric.utilities.throughput import get_available_flops  # tools do without Lightning

    with warnings.catch_warnings():  # an unknown device is no trouble: its MFU is left out
        warnings.simplefilter("ignore")
        return get_available_flops(device, dtype)
