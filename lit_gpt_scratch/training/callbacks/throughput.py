"""How fast a run goes."""

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_gpt_scratch.training.metrics import peak_flops_per_second, train_flops_per_token
from lit_gpt_scratch.training.parts import data_of, gpt_of, is_log_step


class Throughput(Callback):
    """Logs training's tokens per second over all devices, evaluations left out, and MFU where it can.

    MFU, model FLOPs utilisation, is the share of the device's promised FLOPs that the model's own arithmetic
    takes (Chowdhery et al. 2022, "PaLM").
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Learn what a step holds, and start the clock."""
        self.tokens_per_step = data_of(trainer).tokens_per_step
        self.flops_per_token = train_flops_per_token(gpt_of(pl_module))
        precision = str(trainer.precision)
        dtype = (
            torch.bfloat16 if "bf16" in precision else torch.float16 if "16" in precision else torch.float32
        )
        peak = peak_flops_per_second(pl_module.device, dtype)
        self.peak_flops_per_second = peak * trainer.world_size if peak else None
        self.stopped = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the evaluation out, and the samples and saves that follow it."""
        self.stopped = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Start the clock again."""
        if self.stopped:
            self._restart_clock(trainer)
            self.stopped = False

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Log the rate since the last log or evaluation."""
        if not is_log_step(trainer, trainer.global_step):
            return
        steps = trainer.global_step - self.since_step
        tokens_per_second = steps * self.tokens_per_step / (time.perf_counter() - self.since_seconds)
        scalars = {"throughput/tokens_per_second": tokens_per_second}
        if self.peak_flops_per_second:
            scalars["throughput/mfu"] = tokens_per_second * self.flops_per_token / self.peak_flops_per_second
        pl_module.log_dict(scalars)
        self._restart_clock(trainer)

    def _restart_clock(self, trainer: Trainer) -> None:
        self.since_seconds = time.perf_counter()
        self.since_step = trainer.global_step
