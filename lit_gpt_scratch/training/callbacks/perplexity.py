"""Log perplexity and bits per byte."""

from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_gpt_scratch.training.metrics import loss_metrics
from lit_gpt_scratch.training.trainer_state import get_data


class Perplexity(Callback):
    """Log perplexity and bits per byte of each validation or test loss.

    Both are functions of the mean loss over the whole text: the mean of batch perplexities would be too high.
    """

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log `val/perplexity` and `val/bits_per_byte`."""
        self._log(pl_module, "val", get_data(trainer).val_set.bytes_per_token)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log `test/perplexity` and `test/bits_per_byte`."""
        self._log(pl_module, "test", get_data(trainer).test_set.bytes_per_token)

    def _log(self, pl_module: LightningModule, stage: str, bytes_per_token: float) -> None:
        loss = float(cast(Any, pl_module).val_loss.compute())
        for name, value in loss_metrics(loss, bytes_per_token).items():
            pl_module.log(f"{stage}/{name}", value)
