"""Perplexity and bits per byte."""

from lightning.pytorch import Callback, LightningModule, Trainer
from torchmetrics import MeanMetric

from lit_gpt_scratch.training.metrics import bits_per_byte, perplexity
from lit_gpt_scratch.training.parts import data_of


class Perplexity(Callback):
    """Logs perplexity and bits per byte beside each validation or test loss.

    Both come from the mean loss over the whole text: a mean of perplexities of batches would be too high.
    """

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log `val/perplexity` and `val/bits_per_byte`."""
        self._log(trainer, pl_module, "val", data_of(trainer).val_set.bytes_per_token)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log `test/perplexity` and `test/bits_per_byte`."""
        self._log(trainer, pl_module, "test", data_of(trainer).test_set.bytes_per_token)

    def _log(self, trainer: Trainer, pl_module: LightningModule, stage: str, bytes_per_token: float) -> None:
        metric = pl_module.val_loss
        assert isinstance(metric, MeanMetric)
        loss = float(metric.compute())
        pl_module.log(f"{stage}/perplexity", perplexity(loss))
        pl_module.log(f"{stage}/bits_per_byte", bits_per_byte(loss, bytes_per_token))
