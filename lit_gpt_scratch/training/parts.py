"""What callbacks need of a run, typed: Lightning hangs these on its objects without declaring them."""

from typing import Any, cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.tensorboard import SummaryWriter

from lit_gpt_scratch.data.datamodule import TextDataModule
from lit_gpt_scratch.model.gpt import GPT


def data_of(trainer: Trainer) -> TextDataModule:
    """The run's data."""
    return cast(TextDataModule, cast(Any, trainer).datamodule)


def gpt_of(pl_module: LightningModule) -> GPT:
    """The network in a LitGPT."""
    return cast(GPT, pl_module.gpt)


def is_log_step(trainer: Trainer, step: int) -> bool:
    """Return whether an optimizer step, counted from 1, is logged."""
    every_n_steps = cast(Any, trainer).log_every_n_steps
    return bool(every_n_steps and step % every_n_steps == 0)


def log_with_global_step(trainer: Trainer) -> None:
    """Have Lightning log the step that begins with its own number.

    Lightning counts the steps of its logs apart from `global_step`, and saves that count before or after a
    step, so that a resumed run would log a step twice or leave one out.
    """
    trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step


def tensorboards(trainer: Trainer) -> list[SummaryWriter]:
    """Return the writers of the run's TensorBoard loggers, for text and pictures; none on other ranks."""
    loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    return [logger.experiment for logger in loggers] if trainer.is_global_zero else []


def is_training(trainer: Trainer) -> bool:
    """Whether this is a training run that has begun: step 0's evaluation is over."""
    return is_fit(trainer) and not trainer.sanity_checking


def is_fit(trainer: Trainer) -> bool:
    """Whether this is a training run, and not the evaluation of a checkpoint."""
    return trainer.state.fn == TrainerFn.FITTING
