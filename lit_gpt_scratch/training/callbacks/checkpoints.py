"""The checkpoints of a run: ``best.ckpt`` and ``last.ckpt`` in its folder."""

import os
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_gpt_scratch.training.callbacks.evaluation_schedule import evaluation_follows
from lit_gpt_scratch.training.parts import is_training


class RunCheckpoint(ModelCheckpoint):
    """Lightning's ``ModelCheckpoint`` in the run folder, which may be moved while the run is stopped.

    Its state holds file names without their folder. Files that are missing when a run is resumed, as in
    another run folder, are forgotten.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the run folder."""
        self.dirpath = os.path.realpath(trainer.default_root_dir)
        super().setup(trainer, pl_module, stage)

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        for logger in trainer.loggers:  # first: a resumed run does not log again what comes before its step
            logger.save()
        super()._save_checkpoint(trainer, filepath)

    def state_dict(self) -> dict[str, Any]:
        """Return the file names of the best checkpoints, each with its score."""
        return {"scores": {os.path.basename(path): score for path, score in self.best_k_models.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best checkpoints that the run folder has."""
        paths = {os.path.join(str(self.dirpath), name): score for name, score in state_dict["scores"].items()}
        self.best_k_models = {path: score for path, score in paths.items() if os.path.isfile(path)}
        if not self.best_k_models:
            return
        ranked = sorted(self.best_k_models, key=self.best_k_models.__getitem__, reverse=self.mode == "max")
        self.best_model_path, self.kth_best_model_path = ranked[0], ranked[-1]
        self.best_model_score = self.best_k_models[self.best_model_path]
        self.kth_value = self.best_k_models[self.kth_best_model_path]


class BestCheckpoint(RunCheckpoint):
    """Write ``best.ckpt`` after each evaluation that is better than all before it."""

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

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        if self.save_top_k != 1 and filepath == self.best_model_path:
            super()._save_checkpoint(trainer, os.path.join(str(self.dirpath), "best.ckpt"))


class LastCheckpoint(RunCheckpoint):
    """Write ``last.ckpt`` every n steps, after each evaluation, and when the run ends or is stopped.

    Where an evaluation follows a step, the save waits for it: a resumed run would not make up for it.
    """

    def __init__(self, every_n_train_steps: int) -> None:
        """Set the interval.

        Args:
            every_n_train_steps: Optimizer steps between saves.
        """
        super().__init__(
            filename="last", every_n_train_steps=every_n_train_steps, enable_version_counter=False
        )
        self.every_n_train_steps = every_n_train_steps

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Save every n-th step, and the last one."""
        step = trainer.global_step
        is_last = trainer.should_stop or step == trainer.max_steps
        if (is_last or step % self.every_n_train_steps == 0) and not evaluation_follows(trainer):
            self._save_step(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the step that has been evaluated."""
        if is_training(trainer):
            self._save_step(trainer)

    def _save_step(self, trainer: Trainer) -> None:
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_checkpoint(trainer, os.path.join(str(self.dirpath), "last.ckpt"))
