"""How far a run is."""

import math
import sys
import time
from typing import Any, cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from lit_gpt_scratch.data.progress_bar import Bar, is_watched, print_above_bar
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
        self.bar: Bar | None = None
        self.enabled = True

    def enable(self) -> None:
        """Lightning's switch: show something (rank 0)."""
        self.enabled = True

    def disable(self) -> None:
        """Lightning's switch: show nothing (other ranks)."""
        self.enabled = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and the bar where somebody watches."""
        self.started_seconds = self.drawn_seconds = time.perf_counter()
        self.first_step = trainer.global_step
        if not self.enabled or not is_watched():
            return
        has_end = trainer.max_steps > 0
        self.bar = Bar(
            total=trainer.max_steps if has_end else None,
            initial=self.first_step,
            bar_format="step {n}/{total} {bar:30} {desc} {remaining}" if has_end else "step {n} {desc}",
            leave=False,
            dynamic_ncols=True,
        )

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
        self.bar.n = trainer.global_step
        self.bar.set_description_str(" · ".join(parts))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw where the steps stand still."""
        if self.bar is not None:
            self._draw(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the evaluation's line."""
        if is_fit(trainer) and self.enabled:
            print_above_bar(self._line(trainer, pl_module), sys.stdout)

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
            self.bar.close()
            self.bar = None
