"""The curves of a run as a picture."""

import io
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_gpt_scratch.atomic_write import atomic_write
from lit_gpt_scratch.training.parts import tensorboards
from lit_gpt_scratch.training.run_folder import warn_on_os_error


class Curves(Callback):
    """Draws `curves.png` at the end: train and validation loss, and the learning rate beside them.

    The points are read from TensorBoard's event files, so that a resumed run shows its whole life.
    """

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw."""
        for writer in tensorboards(trainer):
            picture = Path(trainer.default_root_dir) / "curves.png"
            with warn_on_os_error(picture.name):
                writer.flush()
                with atomic_write(picture) as file:
                    file.write(drawn(Path(writer.log_dir)))


def drawn(log_dir: Path) -> bytes:
    """The scalars of a folder of event files as a PNG."""
    # Both take a while to import, and are needed at the end only.
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
    png = io.BytesIO()
    figure.savefig(png, dpi=110)
    return png.getvalue()
