"""Log training throughput."""

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_gpt_scratch.training.metrics import peak_flops_per_second, train_flops_per_token
from lit_gpt_scratch.training.trainer_state import get_data, get_gpt, is_log_step


class Throughput(Callback):
    """Log the training tokens per second of all devices together, and MFU if the GPU's peak FLOPs/s is known.

    The time of evaluations is excluded. MFU, model FLOPs utilization, is the model's FLOPs per second divided
    by the peak FLOPs per second of all devices (Chowdhery et al. 2022, "PaLM").
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the tokens per step, the FLOPs per token and the devices' peak FLOPs per second."""
        self.tokens_per_step = get_data(trainer).tokens_per_step
        self.flops_per_token = train_flops_per_token(get_gpt(pl_module))
        precision = str(trainer.precision)
        dtype = (
            torch.bfloat16 if "bf16" in precision else torch.float16 if "16" in precision else torch.float32
        )
        peak = peak_flops_per_second(pl_module.device, dtype)
        self.peak_flops_per_second = peak * trainer.world_size if peak else None
        self.start_seconds: float | None = None  # start of the measurement; None outside of training steps

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Exclude the evaluation, and the sampling and saving after it, from the measured time."""
        self.start_seconds = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Start a measurement if none is in progress."""
        if self.start_seconds is None:
            self._start(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Log the throughput since the last logged step or evaluation if this step is logged."""
        if not is_log_step(trainer, trainer.global_step) or self.start_seconds is None:
            return
        n_tokens = (trainer.global_step - self.start_step) * self.tokens_per_step
        tokens_per_second = n_tokens / (time.perf_counter() - self.start_seconds)
        pl_module.log("throughput/tokens_per_second", tokens_per_second)
        if self.peak_flops_per_second:
            mfu = tokens_per_second * self.flops_per_token / self.peak_flops_per_second
            pl_module.log("throughput/mfu", mfu)
        self._start(trainer)

    def _start(self, trainer: Trainer) -> None:
        self.start_seconds, self.start_step = time.perf_counter(), trainer.global_step
