"""The best checkpoint of a run."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lit_gpt_scratch.training.parts import begins_anew, is_training
from lit_gpt_scratch.training.saving import OnSaveError, save


class BestCheckpoint(Checkpoint):
    """Writes `best.ckpt` to the run folder after each evaluation that is better than all before it."""

    def __init__(self, monitor: str = "val/loss", on_save_error: OnSaveError = "retry") -> None:
        """Remember what counts.

        Args:
            monitor: The logged number that is to be small.
            on_save_error: What to do when a save fails.
        """
        self.monitor = monitor
        self.on_save_error = on_save_error
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
            before, self.best = self.best, value  # the checkpoint keeps it
            if not save(trainer, "best.ckpt", self.on_save_error):
                self.best = before

    def state_dict(self) -> dict[str, Any]:
        """The best so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best so far."""
        self.best = state_dict["best"]
