"""The settings of a run."""

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_gpt_scratch.training.run_folder import write_config


class RunConfig(Callback):
    """Writes `config.yaml` once the run has begun: one that cannot begin leaves the last one as it was."""

    def __init__(self, yaml: str) -> None:
        """Remember what to write.

        Args:
            yaml: The settings.
        """
        self.yaml = yaml

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write."""
        if trainer.is_global_zero:
            write_config(Path(trainer.default_root_dir), self.yaml)
