"""Save the checkpoints of a run: ``best.ckpt`` and ``last.ckpt`` in its folder."""

import os
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from lit_gpt_scratch.training.callbacks.evaluation_schedule import evaluation_follows


class BestCheckpoint(ModelCheckpoint):
    """Write ``best.ckpt`` after each evaluation that is better than all before it.

    The run folder may be moved while the run is stopped, since the callback's state has file names without
    their folder. When a run is resumed, files that do not exist, for example because the run folder is new,
    are dropped from the state.
    """

    def __init__(
        self, monitor: str = "val/loss", mode: Literal["min", "max"] = "min", save_top_k: int = 1
    ) -> None:
        """Set the metric and the number of checkpoints.

        Args:
            monitor: Logged metric that ranks the evaluations.
            mode: Direction of improvement: min if the smallest value is the best, max if the largest is.
            save_top_k: Number of checkpoints to keep, from the best evaluations; -1 keeps all. For values
                other than 1, each checkpoint is named ``best-STEP.ckpt``, and ``best.ckpt`` is a copy of the
                best checkpoint.

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
        """Set the folder of the checkpoints to the run folder."""
        self.dirpath = os.path.realpath(trainer.default_root_dir)
        super().setup(trainer, pl_module, stage)

    @property
    def state_key(self) -> str:
        """Key of this callback's state in a checkpoint.

        The key contains the metric, so that a run resumed with another metric does not restore the state.
        """
        return self._generate_state_key(monitor=self.monitor, mode=self.mode)

    def state_dict(self) -> dict[str, Any]:
        """Return the metric's value for each of the best checkpoints, keyed by file name."""
        return {"scores": {os.path.basename(path): score for path, score in self.best_k_models.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the ranking of the best checkpoints that exist in the run folder, at most `save_top_k`."""
        scores = state_dict["scores"]
        if self.save_top_k == 1 and scores:  # ``best.ckpt`` has the best score of all
            scores = {"best.ckpt": (min if self.mode == "min" else max)(scores.values())}
        paths = {os.path.join(str(self.dirpath), name): score for name, score in scores.items()}
        found = {path: score for path, score in paths.items() if os.path.isfile(path)}
        ranked = sorted(found, key=found.__getitem__, reverse=self.mode == "max")
        ranked = ranked if self.save_top_k == -1 else ranked[: self.save_top_k]
        if not ranked:
            return
        self.best_k_models = {path: found[path] for path in ranked}
        self.best_model_path, self.kth_best_model_path = ranked[0], ranked[-1]
        self.best_model_score = self.best_k_models[self.best_model_path]
        self.kth_value = self.best_k_models[self.kth_best_model_path]

    def _should_remove_checkpoint(self, trainer: Trainer, previous: str, current: str) -> bool:
        is_best = os.path.basename(previous) == "best.ckpt"
        return not is_best and super()._should_remove_checkpoint(trainer, previous, current)

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        if self.save_top_k != 1 and filepath == self.best_model_path:
            super()._save_checkpoint(trainer, os.path.join(str(self.dirpath), "best.ckpt"))


class LastCheckpoint(Checkpoint):
    """Write ``last.ckpt`` every n steps, after each evaluation, and when the run ends or is stopped.

    If an evaluation follows the step, the checkpoint is written after the evaluation, since a run resumed
    from a checkpoint written before the evaluation would skip it. Otherwise, the checkpoint is written when
    the next step starts, since only then do the loggers have the metrics of the step; the checkpoint of the
    last step is written at once.
    """

    def __init__(self, every_n_train_steps: int) -> None:
        """Set the interval between checkpoints.

        Args:
            every_n_train_steps: Number of optimizer steps between two saves of ``last.ckpt``.
        """
        self.every_n_train_steps = every_n_train_steps
        self.saved_step: int | None = None  # None before training, when nothing is saved

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Mark the initial step as already saved, since the state before training needs no checkpoint."""
        self.saved_step = trainer.global_step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Save a checkpoint if the number of finished steps is a multiple of `every_n_train_steps`."""
        if trainer.global_step % self.every_n_train_steps == 0:
            self._save(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Save a checkpoint after the last step of the run if no evaluation follows the step."""
        is_last = trainer.should_stop or trainer.global_step == trainer.max_steps
        if is_last and not evaluation_follows(trainer):
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save a checkpoint after an evaluation."""
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if self.saved_step in (None, trainer.global_step):
            return
        for logger in trainer.loggers:  # first: a resumed run does not log earlier steps again
            logger.save()
        trainer.save_checkpoint(os.path.join(os.path.realpath(trainer.default_root_dir), "last.ckpt"))
        self.saved_step = trainer.global_step
