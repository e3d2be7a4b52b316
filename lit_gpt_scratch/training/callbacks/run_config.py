"""The settings of a run."""

from collections.abc import Mapping
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_gpt_scratch.atomic_write import atomic_write
from lit_gpt_scratch.training.event_logger import SETTINGS, EventLogger, settings_file
from lit_gpt_scratch.training.run_folder import warn_on_os_error, write_config


class RunConfig(Callback):
    """Writes a run's settings once it has begun: one that cannot begin leaves the last ones as they were.

    They go to `config.yaml` and, with its own TensorBoard, to the table of runs there.
    """

    def __init__(self, yaml: str, comparable: Mapping[str, str | float]) -> None:
        """Remember what to write.

        Args:
            yaml: The settings.
            comparable: Those that the table of runs shows.
        """
        self.yaml = yaml
        self.comparable = comparable

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write."""
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir)
        write_config(folder, self.yaml)
        if any(isinstance(logger, EventLogger) for logger in trainer.loggers):
            with warn_on_os_error(SETTINGS), atomic_write(folder / SETTINGS) as file:
                file.write(settings_file(self.comparable))
