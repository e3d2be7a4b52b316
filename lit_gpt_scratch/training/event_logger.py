"""TensorBoard's event files."""

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import TensorBoardLogger


class EventLogger(TensorBoardLogger):
    """Lightning's TensorBoard logger without its `hparams.yaml`: a run folder has `config.yaml`."""

    @rank_zero_only
    def save(self) -> None:
        """Write out what is buffered."""
        self.experiment.flush()
