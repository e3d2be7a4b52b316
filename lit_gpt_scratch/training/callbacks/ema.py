"""Exponential moving average of the weights."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging


class EMA(EMAWeightAveraging):
    """Evaluate and save an exponential moving average of the weights.

    Samples and attention maps are those of the average, too, if their callbacks come before this one.
    Checkpoints hold the average. The raw weights, with which training continues, are in
    ``current_model_state``.
    """

    def __init__(self, decay: float = 0.99) -> None:
        """Set the decay.

        Args:
            decay: Weight of the previous average in each step; 0.99 averages about the last 100 steps.

        Raises:
            ValueError: decay is not between 0 and 1.
        """
        if not 0 < decay < 1:
            raise ValueError(f"ema.decay must lie between 0 and 1, not {decay}")
        super().__init__(decay=decay)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the average in the model until the callbacks of the evaluation have used it."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Return to the raw weights."""
        super().on_validation_epoch_end(trainer, pl_module)
