"""How far a run is."""

import math
import sys
import time
from typing import Any, cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from lit_gpt_scratch.training.parts import gpt_of, is_fit


class Progress(ProgressBar):
    """A bar of optimizer steps on a terminal, and a line for each evaluation everywhere."""

    def __init__(self, refresh_per_second: float = 5.0) -> None:
        """Remember the rate.

        Args:
            refresh_per_second: How often the bar is drawn; it costs time.

        Raises:
            ValueError: The rate is not positive.
        """
        super().__init__()
        if refresh_per_second <= 0:
            raise ValueError(f"progress.refresh_per_second must be above 0, not {refresh_per_second}")
        self.seconds_between_draws = 1 / refresh_per_second
        self.bar: RichProgress | None = None
        self.enabled = True

    def enable(self) -> None:
        """Lightning's switch: show something (rank 0)."""
        self.enabled = True

    def disable(self) -> None:
        """Lightning's switch: show nothing (other ranks)."""
        self.enabled = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the terminal."""
        super().setup(trainer, pl_module, stage)
        # FORCE_COLOR, which notebooks and CI set, would make rich take any file for a terminal.
        on_terminal = None if sys.stdout.isatty() else False
        self.console = Console(
            highlight=False, soft_wrap=True, quiet=not self.enabled, force_terminal=on_terminal
        )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and the bar on a terminal."""
        self.started_seconds = self.drawn_seconds = time.perf_counter()
        self.first_step = trainer.global_step
        if not self.enabled or not self.console.is_terminal:
            return
        self.bar = RichProgress(
            TextColumn("step {task.completed}" + (f"/{trainer.max_steps}" if trainer.max_steps > 0 else "")),
            BarColumn(bar_width=30),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=self.console,
            auto_refresh=False,
            transient=True,
        )
        total = trainer.max_steps if trainer.max_steps > 0 else None
        self.task: TaskID = self.bar.add_task("", total=total, completed=self.first_step)
        self.bar.start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Draw the bar, when it is time."""
        if self.bar is None or time.perf_counter() - self.drawn_seconds < self.seconds_between_draws:
            return
        self.drawn_seconds = time.perf_counter()
        self._draw(trainer, pl_module)

    def _draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        shown, parts = trainer.callback_metrics, []
        if "train/loss" in shown:
            parts.append(f"train {shown['train/loss']:.3f}")
        evaluation = cast(dict[str, float], pl_module.evaluation)
        if evaluation:
            parts.append(f"val {evaluation['val/loss']:.3f}")
        if "throughput/tokens_per_second" in shown:
            parts.append(f"{shown['throughput/tokens_per_second']:,.0f} tokens/s")
        assert self.bar is not None
        self.bar.update(self.task, completed=trainer.global_step, description=" · ".join(parts))
        self.bar.refresh()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw where the steps stand still."""
        if self.bar is not None:
            self._draw(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the evaluation's line."""
        if is_fit(trainer):
            self.console.print(self._line(trainer, pl_module))

    def _line(self, trainer: Trainer, pl_module: LightningModule) -> str:
        shown, step = trainer.callback_metrics, trainer.global_step
        width = len(str(trainer.max_steps))
        parts = [
            f"step {step:>{width}}" + (f"/{trainer.max_steps}" if trainer.max_steps > 0 else ""),
            f"train {shown['train/eval_loss']:.4f}",
            f"val {shown['val/loss']:.4f}",
        ]
        if "val/perplexity" in shown:
            parts.append(f"perplexity {shown['val/perplexity']:.2f}")
            parts.append(f"{shown['val/bits_per_byte']:.3f} bits/byte")
        if trainer.sanity_checking and pl_module.begun_from is None:
            vocab_size = gpt_of(pl_module).config.vocab_size
            guess = math.log(vocab_size)
            off = abs(float(shown["val/loss"]) - guess)
            near = "within 0.1 of" if off < 0.1 else f"{off:.2f} from"
            parts.append(f"untrained: {near} ln {vocab_size} = {guess:.4f}, a pure guess")
        elif "throughput/tokens_per_second" in shown:
            parts.append(f"{shown['throughput/tokens_per_second']:,.0f} tokens/s")
        now, best = (cast(dict[str, float], e) for e in (pl_module.evaluation, pl_module.best_evaluation))
        if now["val/loss"] > best["val/loss"] and now["train/eval_loss"] < best["train/eval_loss"]:
            parts.append(f"overfitting: val was {best['val/loss']:.4f} at step {best['step']}")
        if not trainer.sanity_checking and step < trainer.max_steps:
            elapsed = time.perf_counter() - self.started_seconds
            seconds = round(elapsed / (step - self.first_step) * (trainer.max_steps - step))
            parts.append(f"{seconds // 60}:{seconds % 60:02} to go")
        return " · ".join(parts)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the bar away."""
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Take the bar away, so that the error stands alone."""
        self._stop()

    def _stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
