"""Clip gradients, and skip optimizer steps with a non-finite or unusually large loss or gradient."""

import logging
import math
from collections import deque
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from lit_gpt_scratch.data.datamodule import TextDataModule
from lit_gpt_scratch.training.run_folder import warn_on_os_error
from lit_gpt_scratch.training.trainer_state import is_log_step, tensorboard_writers

log = logging.getLogger(__name__)

WINDOW_STEPS = 100  # length of the running means of loss and gradient norm
MIN_SPIKE_NORM = 1.0  # gradient norms below this are never spikes
MAX_ROWS = 64  # maximum number of rows in the report of a skipped step


class StepControl(Callback):
    """Clip the gradient, and skip a step whose loss or gradient norm is NaN, infinite or unusually large.

    A skipped step does not change the weights, the optimizer state, or the running means of loss and gradient
    norm, but it counts as a step. The text of the first 64 sequences in its batch is written to
    ``spikes/step-N.md`` in the run folder and to TensorBoard. The gradient norm before clipping is logged as
    ``train/grad_norm``. Each step waits for the GPU, because the CPU reads the loss and the gradient norm.
    """

    def __init__(
        self,
        max_norm: float | None = 1.0,
        loss_jump: float | None = 2.0,
        norm_ratio: float | None = 100.0,
        max_skipped_steps: int = 10,
    ) -> None:
        """Set the limits.

        Args:
            max_norm: Maximum L2 norm of the gradient of all parameters together, to which a larger gradient
                is scaled down; null disables clipping.
            loss_jump: Maximum increase of the loss, in nats, above its mean over the last 100 steps that were
                not skipped; a step with a larger increase is skipped. null disables the check.
            norm_ratio: Maximum ratio of the gradient norm to its mean over the last 100 steps that were not
                skipped; a step with a larger ratio is skipped if its gradient norm is also above 1. null
                disables the check.
            max_skipped_steps: Number of consecutive skipped steps after which the run ends with an error; 1
                ends the run at the first skipped step.

        Raises:
            ValueError: A limit is not positive.
        """
        limits = {"max_norm": max_norm, "loss_jump": loss_jump, "norm_ratio": norm_ratio}
        for name, limit in (limits | {"max_skipped_steps": max_skipped_steps}).items():
            if limit is not None and not limit > 0:
                hint = "" if name == "max_skipped_steps" else "; null disables it"
                raise ValueError(f"step_control.{name} must be above 0, not {limit}{hint}")
        self.max_norm = math.inf if max_norm is None else max_norm
        self.loss_jump = math.inf if loss_jump is None else loss_jump
        self.norm_ratio = math.inf if norm_ratio is None else norm_ratio
        self.max_skipped_steps = max_skipped_steps
        self.losses: deque[float] = deque(maxlen=WINDOW_STEPS)
        self.norms: deque[float] = deque(maxlen=WINDOW_STEPS)
        self.n_skipped = 0  # number of consecutive skipped steps

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Clip the gradient, or set it to None if the step must be skipped.

        Raises:
            FloatingPointError: `max_skipped_steps` consecutive steps were skipped.
        """
        step = trainer.global_step + 1
        loss = float(trainer.strategy.reduce(cast(Any, pl_module).step_loss, reduce_op="mean"))
        total_norm = clip_grad_norm_(pl_module.parameters(), self.max_norm)  # norm before clipping
        norm = float(total_norm.full_tensor() if isinstance(total_norm, DTensor) else total_norm)
        if is_log_step(trainer, step):
            pl_module.log("train/grad_norm", norm)
        if trainer.precision == "16-mixed" and math.isfinite(loss) and not math.isfinite(norm):
            return  # the gradient scaler skips the step, and lowers its scale
        reason = self._skip_reason(loss, norm)
        if reason is None:
            self.losses.append(loss)
            self.norms.append(norm)
            self.n_skipped = 0
            return
        for parameter in pl_module.parameters():
            parameter.grad = None  # optimizers ignore parameters without a gradient
        self.n_skipped += 1
        log.warning("skipped step %s: %s; %s", step, reason, write_report(trainer, step, reason))
        if self.n_skipped >= self.max_skipped_steps:
            raise FloatingPointError(
                f"consecutive skipped steps: {self.n_skipped}, up to step {step}: the run has diverged; "
                "try a smaller model.learning_rate or more model.warmup_steps"
            )

    def _skip_reason(self, loss: float, norm: float) -> str | None:
        if not math.isfinite(loss):
            return f"loss is {loss}"
        if not math.isfinite(norm):
            return f"gradient norm is {norm}"
        if len(self.losses) < WINDOW_STEPS:
            return None
        mean_loss, mean_norm = sum(self.losses) / WINDOW_STEPS, sum(self.norms) / WINDOW_STEPS
        if loss > mean_loss + self.loss_jump:
            return f"loss is {loss:.3f} (mean {mean_loss:.3f})"
        if norm > MIN_SPIKE_NORM and norm > mean_norm * self.norm_ratio:
            return f"gradient norm is {norm:.3g} (mean {mean_norm:.3g})"
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return the recent losses and gradient norms, and the number of consecutive skipped steps."""
        return {"losses": list(self.losses), "norms": list(self.norms), "n_skipped": self.n_skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self.losses.extend(state_dict["losses"])
        self.norms.extend(state_dict["norms"])
        self.n_skipped = state_dict["n_skipped"]


def write_report(trainer: Trainer, step: int, reason: str) -> str:
    """Write a skipped step's training text to a file and to TensorBoard; return a message about the file.

    The message names the file, or says that the text was not written or is unknown.
    """
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, TextDataModule):
        return "its text is unknown"
    rows = [data.tokenizer.decode(row.tolist()) for row in data.global_batch(step - 1)[:MAX_ROWS]]
    code = "\n".join("".join(f"    {line}\n" for line in row.splitlines()) for row in rows)
    markdown = f"# Step {step}: {reason}\n\n{code}"
    for writer in tensorboard_writers(trainer):
        writer.add_text("spikes", markdown, step)
    path = Path(trainer.default_root_dir) / "spikes" / f"step-{step}.md"
    if trainer.is_global_zero:
        with warn_on_os_error(str(path)):
            path.parent.mkdir(exist_ok=True)
            path.write_text(markdown, encoding="utf-8")
    return f"details in {path}" if path.is_file() else "its text was not written"
