"""The best checkpoint of a run."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lit_gpt_scratch.training.parts import begins_anew, is_training


class BestCheckpoint(Checkpoint):
    """Writes `best.ckpt` to the run folder after each evaluation that is better than all before it."""

    def __init__(self, monitor: str = "val/loss") -> None:
        """Remember what counts.

        Args:
            monitor: The logged number that is to be small.
        """
        self.monitor = monitor
        self.best = float("inf")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the best of another run, from whose checkpoint this one begins."""
        if begins_anew(trainer):
            self.best = float("inf")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare and save."""
        if not is_training(trainer):
            return
        if self.monitor not in trainer.callback_metrics:
            known = ", ".join(sorted(trainer.callback_metrics))
            raise ValueError(f"best_checkpoint.monitor {self.monitor!r} is not logged; there are {known}")
        value = float(trainer.callback_metrics[self.monitor])
        if value < self.best:
            self.best = value
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "best.ckpt")

    def state_dict(self) -> dict[str, Any]:
        """The best so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best so far."""
        self.best = state_dict["best"]
