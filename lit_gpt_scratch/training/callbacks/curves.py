"""Plot the learning curves of a run."""

from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_gpt_scratch.data.atomic_write import atomic_write
from lit_gpt_scratch.training.run_folder import warn_on_os_error
from lit_gpt_scratch.training.trainer_state import tensorboard_writers

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Curves(Callback):
    """Write `curves.png` at the end of a run: losses and learning rate from TensorBoard's event files.

    The event files also have the steps before a resume, so that the plot shows the whole run.
    """

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the plot."""
        for writer in tensorboard_writers(trainer):
            path = Path(trainer.default_root_dir) / "curves.png"
            with warn_on_os_error(path.name):
                writer.flush()
                figure = plot_curves(Path(writer.log_dir))
                with atomic_write(path) as file:
                    figure.savefig(file, format="png", dpi=110)


def plot_curves(log_dir: Path) -> "Figure":
    """Return a plot of the losses and the learning rate, read from the event files in a folder."""
    # Imported late: both take a while, and only the end of a run needs them.
    from matplotlib.figure import Figure
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    events = EventAccumulator(str(log_dir), size_guidance={SCALARS: 0}).Reload()
    figure = Figure(figsize=(11, 4), layout="constrained")
    losses, rate = figure.subplots(1, 2)
    lines = (
        (losses, "train/loss", "train, each batch", "#c6dbef", "-"),
        (losses, "train/eval_loss", "train", "#2171b5", "o-"),
        (losses, "val/loss", "validation", "#d94801", "o-"),
        (rate, "learning_rate/decay", "learning rate", "#238b45", "-"),
    )
    for axes, tag, label, color, style in lines:
        if tag in events.Tags()["scalars"]:
            points = events.Scalars(tag)
            axes.plot([p.step for p in points], [p.value for p in points], style, label=label, color=color)
    losses.set(title="Loss (the gap between train and validation is overfitting)", ylabel="nats per token")
    rate.set(title="Learning rate")
    for axes in (losses, rate):
        axes.set_xlabel("optimizer step")
        axes.grid(alpha=0.3)
    if losses.lines:
        losses.legend()
    return figure
