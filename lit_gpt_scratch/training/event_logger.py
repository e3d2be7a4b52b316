"""TensorBoard's event files."""

import time
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import TensorBoardLogger


class EventLogger(TensorBoardLogger):
    """Lightning's TensorBoard logger without its `hparams.yaml`: a run folder has `config.yaml`."""

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        """Write to a run folder.

        Args:
            folder: The run folder.
            purge_step: Of an interrupted run, TensorBoard forgets this step and all later ones.
        """
        if purge_step is not None:
            _let_a_second_pass(folder)
        options: dict[str, Any] = {"default_hp_metric": False, "purge_step": purge_step}
        super().__init__(folder, name="", version="", **options)

    @rank_zero_only
    def save(self) -> None:
        """Write out what is buffered."""
        self.experiment.flush()


def _let_a_second_pass(folder: Path) -> None:
    """Event files are read in the order of their names, which begin with the second of their making."""
    seconds = [path.name.split(".")[3] for path in folder.glob("events.out.tfevents.*")]
    newest = max((int(second) for second in seconds if second.isdecimal()), default=0)
    while 0 <= newest - int(time.time()) <= 1:  # a clock that was set back is not waited for
        time.sleep(0.05)
