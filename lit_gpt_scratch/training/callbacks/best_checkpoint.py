"""The best checkpoints of a run."""

import math
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lit_gpt_scratch.training.parts import begins_anew, is_training
from lit_gpt_scratch.training.saving import OnSaveError, save


class BestCheckpoint(Checkpoint):
    """Writes `best.ckpt` to the run folder after each evaluation that is better than all before it."""

    def __init__(
        self, monitor: str = "val/loss", top_k: int = 1, on_save_error: OnSaveError = "retry"
    ) -> None:
        """Remember what counts.

        Args:
            monitor: The logged number that is to be small.
            top_k: Evaluations to keep a checkpoint of; above 1, each of them as `best-STEP.ckpt` too.
            on_save_error: What to do when a save fails.

        Raises:
            ValueError: top_k is not positive.
        """
        if top_k < 1:
            raise ValueError(f"best_checkpoint.top_k must be at least 1, not {top_k}")
        self.monitor = monitor
        self.top_k = top_k
        self.on_save_error = on_save_error
        self.kept: list[tuple[float, int]] = []  # value and step, the best first

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the best of another run, from whose checkpoint this one begins."""
        if begins_anew(trainer):
            self.kept = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare and save."""
        if not is_training(trainer):
            return
        if self.monitor not in trainer.callback_metrics:
            known = ", ".join(sorted(trainer.callback_metrics))
            raise ValueError(f"best_checkpoint.monitor {self.monitor!r} is not logged; there are {known}")
        this = (float(trainer.callback_metrics[self.monitor]), trainer.global_step)
        if math.isnan(this[0]) or this in self.kept:
            return
        before = self.kept
        # The checkpoints keep what is kept. Of equals the first stays the best.
        self.kept = sorted([*before, this])[: self.top_k]
        names = [_name(this)] if self.top_k > 1 and this in self.kept else []
        if self.kept[0] == this:
            names.append("best.ckpt")
        if not all(save(trainer, name, self.on_save_error) for name in names):
            self.kept = before
        elif trainer.is_global_zero:
            for dropped in {*before} - {*self.kept}:
                (Path(trainer.default_root_dir) / _name(dropped)).unlink(missing_ok=True)

    def state_dict(self) -> dict[str, Any]:
        """The best so far."""
        return {"kept": [list(each) for each in self.kept]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best so far."""
        self.kept = [(value, step) for value, step in state_dict["kept"]]


def _name(kept: tuple[float, int]) -> str:
    return f"best-{kept[1]}.ckpt"
