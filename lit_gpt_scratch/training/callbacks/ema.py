"""Exponential moving average of the weights."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging


class EMA(EMAWeightAveraging):
    """Evaluate and save an exponential moving average of the weights.

    Samples and attention maps use the average, too, if their callbacks come before this callback. A
    checkpoint has the average in ``state_dict``, and the raw weights, with which training continues, in
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
        """Do nothing, so that the average stays in the model until this callback's `on_validation_end`."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the raw weights back into the model."""
        super().on_validation_epoch_end(trainer, pl_module)
