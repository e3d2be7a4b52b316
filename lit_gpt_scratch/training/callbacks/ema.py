"""An average of the weights."""

from lightning.pytorch.callbacks import EMAWeightAveraging


class EMA(EMAWeightAveraging):
    """Evaluates and keeps an exponential moving average of the weights; training goes on with the weights.

    Checkpoints have the average, and the weights themselves beside it for a run to go on from.
    """

    def __init__(self, decay: float = 0.99) -> None:
        """Remember the rate.

        Args:
            decay: Share of the average that a step leaves; 0.99 averages about the last 100 steps.

        Raises:
            ValueError: The share is out of range.
        """
        if not 0 < decay < 1:
            raise ValueError(f"ema.decay must lie between 0 and 1, not {decay}")
        super().__init__(decay=decay)
