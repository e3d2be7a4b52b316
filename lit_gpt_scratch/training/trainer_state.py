"""Trainer state shared by the module and the callbacks, with types that Lightning does not declare."""

from typing import Any, cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.tensorboard import SummaryWriter

from lit_gpt_scratch.data.datamodule import TextDataModule
from lit_gpt_scratch.model.gpt import GPT


def get_data(trainer: Trainer) -> TextDataModule:
    """Return the data module of a run."""
    return cast(TextDataModule, cast(Any, trainer).datamodule)


def get_gpt(pl_module: LightningModule) -> GPT:
    """Return the network of a LitGPT."""
    return cast(GPT, pl_module.gpt)


def is_log_step(trainer: Trainer, step: int) -> bool:
    """Return whether an optimizer step, counted from 1, is logged."""
    every_n_steps = cast(Any, trainer).log_every_n_steps
    return bool(every_n_steps and step % every_n_steps == 0)


def log_with_global_step(trainer: Trainer) -> None:
    """Make Lightning use `global_step` as the step number for the metrics of the step that now starts.

    Lightning takes the step number from a separate counter. Depending on when a checkpoint is saved, it has
    the counter's value from before or after the increment, and a resumed run would log a step number twice
    or skip it.
    """
    trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step


def tensorboard_writers(trainer: Trainer) -> list[SummaryWriter]:
    """Return the TensorBoard loggers' writers of text and images; an empty list on ranks other than 0."""
    loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    return [logger.experiment for logger in loggers] if trainer.is_global_zero else []


def is_fitting(trainer: Trainer) -> bool:
    """Return whether the Trainer is running `fit`, not `validate`, `test` or `predict`."""
    return trainer.state.fn == TrainerFn.FITTING
