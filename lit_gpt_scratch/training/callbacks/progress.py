"""Show the progress of a run."""

import math
import sys
import time
from typing import Any, cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from lit_gpt_scratch.data.progress_bar import Bar, is_interactive, print_above_bar
from lit_gpt_scratch.training.trainer_state import get_gpt, is_fitting

MIN_DRAW_SECONDS = 0.2  # minimum interval between updates of the bar, since drawing takes time


class Progress(ProgressBar):
    """Show a progress bar of optimizer steps on a terminal, and print a line for each evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.bar: Bar | None = None

    def enable(self) -> None:
        """Do nothing: only Lightning's tuner calls this method, and this program does not use the tuner."""

    def disable(self) -> None:
        """Do nothing: Lightning calls this method on ranks other than 0, which show nothing anyway."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start timing, and show the bar on a terminal."""
        self.start_seconds = time.perf_counter()
        self.start_step = trainer.global_step
        if not trainer.is_global_zero or not is_interactive():
            return
        has_end = trainer.max_steps > 0
        self.bar = Bar(
            total=trainer.max_steps if has_end else None,
            initial=self.start_step,
            bar_format="step {n}/{total} {bar:30} {desc} {remaining}" if has_end else "step {n} {desc}",
            leave=False,
            dynamic_ncols=True,
            mininterval=MIN_DRAW_SECONDS,
            miniters=1,
        )

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Advance the bar; update the bar's text when tqdm redraws, at most every `MIN_DRAW_SECONDS`."""
        if self.bar is not None and self.bar.update():
            self._draw(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Redraw the bar, so that it shows the current step during the evaluation."""
        self._draw(trainer, pl_module)

    def _draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.bar is None:
            return
        metrics, parts = trainer.callback_metrics, []
        if "train/loss" in metrics:
            parts.append(f"train {metrics['train/loss']:.3f}")
        if evaluation := cast(dict[str, float], pl_module.evaluation):
            parts.append(f"val {evaluation['val/loss']:.3f}")
        self.bar.set_description_str(" · ".join([*parts, *format_throughput(trainer)]))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print a line with the results of the evaluation."""
        if is_fitting(trainer) and trainer.is_global_zero:
            print_above_bar(self._line(trainer, pl_module), sys.stdout)

    def _line(self, trainer: Trainer, pl_module: LightningModule) -> str:
        metrics, step, max_steps = trainer.callback_metrics, trainer.global_step, trainer.max_steps
        parts = [
            f"step {step:>{len(str(max_steps))}}" + (f"/{max_steps}" if max_steps > 0 else ""),
            f"train {metrics['train/eval_loss']:.4f}",
            f"val {metrics['val/loss']:.4f}",
        ]
        if "val/perplexity" in metrics:
            parts.append(f"perplexity {metrics['val/perplexity']:.2f}")
            parts.append(f"{metrics['val/bits_per_byte']:.3f} bits/byte")
        if trainer.sanity_checking and pl_module.init_from is None:
            vocab_size = get_gpt(pl_module).config.vocab_size
            uniform = math.log(vocab_size)  # loss of a uniform distribution over the vocabulary
            distance = abs(float(metrics["val/loss"]) - uniform)
            near = "within 0.1 of" if distance < 0.1 else f"{distance:.2f} from"
            parts.append(f"untrained: {near} ln {vocab_size} = {uniform:.4f}, a pure guess")
        else:
            parts += format_throughput(trainer)
        last, best = (cast(dict[str, float], e) for e in (pl_module.evaluation, pl_module.best_evaluation))
        if last["val/loss"] > best["val/loss"] and last["train/eval_loss"] < best["train/eval_loss"]:
            parts.append(f"overfitting: val was {best['val/loss']:.4f} at step {best['step']}")
        if not trainer.sanity_checking and step < max_steps:
            elapsed = time.perf_counter() - self.start_seconds
            seconds = round(elapsed / (step - self.start_step) * (max_steps - step))
            parts.append(f"{seconds // 60}:{seconds % 60:02} to go")
        return " · ".join(parts)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove the bar before the error is printed."""
        self.on_train_end(trainer, pl_module)


def format_throughput(trainer: Trainer) -> list[str]:
    """Return the last logged throughput in tokens/s, as a list of one string; [] if none is logged yet."""
    name = "throughput/tokens_per_second"
    return [f"{trainer.callback_metrics[name]:,.0f} tokens/s"] if name in trainer.callback_metrics else []
