"""Record the options of a run: config.yaml, and a row of TensorBoard's table of runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from lit_gpt_scratch.training.metrics import bits_per_byte, perplexity
from lit_gpt_scratch.training.parts import data_of
from lit_gpt_scratch.training.run_folder import write_config

TOGETHER = {  # charts of TensorBoard's custom scalars
    "learning": {
        "loss: the gap is overfitting": ["Multiline", ["train/loss", "train/eval_loss", "val/loss"]],
    }
}


class RunConfig(Callback):
    """Write the options of a run once it has begun: one that cannot begin leaves the last ones as they were.

    A new run writes its row of TensorBoard's table, too, with the metrics of step 0, which Lightning does not
    log. A resumed run keeps the row that it has.
    """

    def __init__(self, yaml: str, comparable: Mapping[str, str | float]) -> None:
        """Set what is written.

        Args:
            yaml: The options.
            comparable: Options that the table of runs shows.
        """
        self.yaml = yaml
        self.comparable = comparable

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write."""
        if trainer.is_global_zero:
            write_config(Path(trainer.default_root_dir), self.yaml)
        if trainer.global_step > 0 or not cast(Any, pl_module).evaluation:
            return
        metrics = {name: value for name, value in cast(Any, pl_module).evaluation.items() if name != "step"}
        bytes_per_token = data_of(trainer).val_set.bytes_per_token
        metrics["val/perplexity"] = perplexity(metrics["val/loss"])
        metrics["val/bits_per_byte"] = bits_per_byte(metrics["val/loss"], bytes_per_token)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.log_hyperparams(dict(self.comparable), metrics)
                logger.experiment.add_custom_scalars(TOGETHER)
