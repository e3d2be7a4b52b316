"""Write the options of a run to config.yaml and to TensorBoard's table of runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from lit_gpt_scratch.training.metrics import loss_metrics
from lit_gpt_scratch.training.run_folder import write_config
from lit_gpt_scratch.training.trainer_state import get_data

LOSSES = ["train/loss", "train/eval_loss", "val/loss"]
CUSTOM_SCALARS = {"learning": {"loss: the gap is overfitting": ["Multiline", LOSSES]}}  # TensorBoard's charts


class RunConfig(Callback):
    """Write the options to config.yaml when training starts; a run that fails earlier keeps the old file.

    For a new run, also write a row of TensorBoard's HParams table, with the metrics of the evaluation at step
    0, which Lightning does not log. A resumed run keeps its row.
    """

    def __init__(self, yaml: str, hparams: Mapping[str, str | float]) -> None:
        """Set the options to write.

        Args:
            yaml: Content of config.yaml: all options of the run as YAML.
            hparams: Options by name, for the row of TensorBoard's HParams table.
        """
        self.yaml = yaml
        self.hparams = hparams

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write config.yaml and, for a new run, its row of the HParams table."""
        if trainer.is_global_zero:
            write_config(Path(trainer.default_root_dir), self.yaml)
        evaluation = cast(dict[str, float], pl_module.evaluation)
        if trainer.global_step > 0 or not evaluation:
            return
        metrics = {name: value for name, value in evaluation.items() if name != "step"}
        derived = loss_metrics(metrics["val/loss"], get_data(trainer).val_set.bytes_per_token)
        metrics |= {f"val/{name}": value for name, value in derived.items()}
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.log_hyperparams(dict(self.hparams), metrics)
                logger.experiment.add_custom_scalars(CUSTOM_SCALARS)
