"""Save the checkpoints of a run: ``best.ckpt`` and ``last.ckpt`` in its folder."""

import os
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from lit_gpt_scratch.training.callbacks.evaluation_schedule import evaluation_follows
from lit_gpt_scratch.training.trainer_state import is_training


def save_loggers(trainer: Trainer) -> None:
    """Flush the loggers' files before a checkpoint is saved: a resumed run does not log its steps again."""
    for logger in trainer.loggers:
        logger.save()


class BestCheckpoint(ModelCheckpoint):
    """Write ``best.ckpt`` after each evaluation that is better than all before it.

    The run folder may be moved between runs: the state holds file names without their folder. Files that are
    missing when a run is resumed, as in another run folder, are ignored.
    """

    def __init__(
        self, monitor: str = "val/loss", mode: Literal["min", "max"] = "min", save_top_k: int = 1
    ) -> None:
        """Set the metric.

        Args:
            monitor: Logged metric that ranks the evaluations.
            mode: Whether the best value is the smallest or the largest.
            save_top_k: Number of evaluations whose checkpoints are kept; above 1 they are also kept as
                ``best-STEP.ckpt``; -1 keeps all.

        Raises:
            ValueError: save_top_k is neither positive nor -1.
        """
        if save_top_k < 1 and save_top_k != -1:
            raise ValueError(f"best_checkpoint.save_top_k must be at least 1, or -1, not {save_top_k}")
        super().__init__(
            filename="best" if save_top_k == 1 else "best-{step}",
            monitor=monitor,
            mode=mode,
            save_top_k=save_top_k,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save in the run folder."""
        self.dirpath = os.path.realpath(trainer.default_root_dir)
        super().setup(trainer, pl_module, stage)

    @property
    def state_key(self) -> str:
        """Name of the state in a checkpoint: values of different metrics are not compared."""
        return self._generate_state_key(monitor=self.monitor, mode=self.mode)

    def state_dict(self) -> dict[str, Any]:
        """Return the file names of the best checkpoints, each with its score."""
        return {"scores": {os.path.basename(path): score for path, score in self.best_k_models.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best checkpoints that exist, at most `save_top_k`."""
        scores, is_max = state_dict["scores"], self.mode == "max"
        if self.save_top_k == 1 and scores:  # the run may have kept several before
            scores = {"best.ckpt": max(scores.values()) if is_max else min(scores.values())}
        paths = {os.path.join(str(self.dirpath), name): score for name, score in scores.items()}
        ranked = sorted(filter(os.path.isfile, paths), key=paths.__getitem__, reverse=is_max)
        if self.save_top_k != -1:
            ranked = ranked[: self.save_top_k]
        if ranked:
            self.best_k_models = {path: paths[path] for path in ranked}
            self.best_model_path, self.kth_best_model_path = ranked[0], ranked[-1]
            self.best_model_score, self.kth_value = paths[ranked[0]], paths[ranked[-1]]

    def _should_remove_checkpoint(self, trainer: Trainer, previous: str, current: str) -> bool:
        is_best = os.path.basename(previous) == "best.ckpt"
        return not is_best and super()._should_remove_checkpoint(trainer, previous, current)

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        save_loggers(trainer)
        super()._save_checkpoint(trainer, filepath)
        if self.save_top_k != 1 and filepath == self.best_model_path:
            super()._save_checkpoint(trainer, os.path.join(str(self.dirpath), "best.ckpt"))


class LastCheckpoint(Checkpoint):
    """Write ``last.ckpt`` every n steps, after each evaluation, and when the run ends or is stopped.

    If an evaluation follows a step, the save waits for it: a resumed run would not make up for it. Otherwise
    the save waits for the start of the next step, when the loggers have the metrics of the previous one.
    """

    def __init__(self, every_n_train_steps: int) -> None:
        self.every_n_train_steps = every_n_train_steps

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the path; mark the first step as saved: a resumed run has it in its checkpoint."""
        self.path = Path(trainer.default_root_dir).resolve() / "last.ckpt"
        self.saved_step = trainer.global_step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Save every n steps."""
        if trainer.global_step % self.every_n_train_steps == 0:
            self._save(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Save the last step, unless an evaluation follows it."""
        is_last = trainer.should_stop or trainer.global_step == trainer.max_steps
        if is_last and not evaluation_follows(trainer):
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the step that was evaluated."""
        if is_training(trainer):
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if self.saved_step != trainer.global_step:
            save_loggers(trainer)
            trainer.save_checkpoint(self.path)
            self.saved_step = trainer.global_step
