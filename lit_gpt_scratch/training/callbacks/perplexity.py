"""Log perplexity and bits per byte."""

from lightning.pytorch import Callback, LightningModule, Trainer
from torchmetrics import MeanMetric

from lit_gpt_scratch.training.metrics import bits_per_byte, perplexity
from lit_gpt_scratch.training.trainer_state import get_data


class Perplexity(Callback):
    """Log perplexity and bits per byte of each validation or test loss.

    Both are functions of the mean loss over the whole text: the mean of batch perplexities would be too high.
    """

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log `val/perplexity` and `val/bits_per_byte`."""
        log_metrics(pl_module, "val", get_data(trainer).val_set.bytes_per_token)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log `test/perplexity` and `test/bits_per_byte`."""
        log_metrics(pl_module, "test", get_data(trainer).test_set.bytes_per_token)


def log_metrics(pl_module: LightningModule, stage: str, bytes_per_token: float) -> None:
    """Log the metrics of the mean loss so far."""
    assert isinstance(pl_module.val_loss, MeanMetric)
    loss = float(pl_module.val_loss.compute())
    pl_module.log(f"{stage}/perplexity", perplexity(loss))
    pl_module.log(f"{stage}/bits_per_byte", bits_per_byte(loss, bytes_per_token))
