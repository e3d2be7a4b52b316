"""Steps that would harm a run."""

import logging
import math
from collections import deque
from pathlib import Path
from typing import Any, Literal, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from lit_gpt_scratch.training.checkpoint_io import read_checkpoint
from lit_gpt_scratch.training.gradients import gradient_norm, trained_parameters, whole_norm
from lit_gpt_scratch.training.parts import begins_anew, data_of
from lit_gpt_scratch.training.run_folder import write_whole
from lit_gpt_scratch.training.saving import dispensable

log = logging.getLogger(__name__)

N_USUAL = 100  # steps that tell what is usual
SMALL_NORM = 1.0  # a gradient below it harms nothing, however small the ones before were


class Guard(Callback):
    """Leaves out a step whose loss or gradient is no number, or far above what is usual.

    The weights, the optimizer and what is usual stay as they are, the step counts, and `spikes/` in the run
    folder gets its text and its gradients. It looks at every step, for which a GPU has to be waited for.
    """

    def __init__(
        self,
        on_spike: Literal["skip", "rollback", "stop"] = "skip",
        loss_jump: float | None = 2.0,
        norm_ratio: float | None = 100.0,
        patience: int = 10,
    ) -> None:
        """Remember what to do.

        Args:
            on_spike: skip leaves the step out; rollback does, and after `patience` of them in a row takes
                weights and optimizer from last.ckpt, while steps, and with them the batches, go on; stop ends
                the run.
            loss_jump: Nats above the mean of the last 100 steps from which a loss is a spike; null: none is.
            norm_ratio: Times the mean of the last 100 steps from which a gradient's norm above 1 is a spike;
                null: none is.
            patience: Steps left out in a row after which skip ends the run, and rollback rolls back.

        Raises:
            ValueError: A number is not positive.
        """
        for name, number in (("loss_jump", loss_jump), ("norm_ratio", norm_ratio), ("patience", patience)):
            if number is not None and not number > 0:
                raise ValueError(f"guard.{name} must be above 0, not {number}")
        self.on_spike = on_spike
        self.loss_jump = loss_jump
        self.norm_ratio = norm_ratio
        self.patience = patience
        self._begin()

    def _begin(self) -> None:
        self.losses: deque[float] = deque(maxlen=N_USUAL)
        self.norms: deque[float] = deque(maxlen=N_USUAL)
        self.n_in_a_row = 0
        self.went_back_to: int | None = None  # the step of the checkpoint

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget another run, from whose checkpoint this one begins."""
        if begins_anew(trainer):
            self._begin()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Look at the step, and take its gradients away if it would do harm."""
        loss, norm = self._measure(trainer, pl_module, optimizer)
        if trainer.precision == "16-mixed" and math.isfinite(loss) and not math.isfinite(norm):
            return  # too large for its numbers: its own scaler leaves such a step out
        if (wrong := self._what_is_wrong(loss, norm)) is None:
            self.losses.append(loss)
            self.norms.append(norm)
            self.n_in_a_row = 0
            return
        self.n_in_a_row += 1
        step = trainer.global_step + 1  # as logs count: the first is 1
        where = self._report(trainer, pl_module, step, wrong)
        for parameter in trained_parameters(optimizer):
            parameter.grad = None  # which optimizers leave alone
        cast(Any, pl_module).step_is_taken = False
        if self.on_spike == "stop":
            raise RuntimeError(f"step {step}: {wrong}; {where}")
        log.warning("step %s is left out: %s; %s", step, wrong, where)
        if self.n_in_a_row >= self.patience:
            self._give_up(trainer, pl_module, optimizer)

    def _measure(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> tuple[float, float]:
        """The step's loss and its gradient's norm, the same on all devices."""
        loss = cast(Any, pl_module).step_loss
        if trainer.world_size > 1:
            loss = trainer.strategy.reduce(loss, reduce_op="mean")
        return float(loss), float(gradient_norm(pl_module, optimizer))

    def _what_is_wrong(self, loss: float, norm: float) -> str | None:
        if not math.isfinite(loss):
            return f"its loss is {loss}"
        if not math.isfinite(norm):
            return f"its gradient's norm is {norm}"
        if len(self.losses) < N_USUAL:
            return None
        usual_loss, usual_norm = sum(self.losses) / N_USUAL, sum(self.norms) / N_USUAL
        if self.loss_jump is not None and loss > usual_loss + self.loss_jump:
            return f"its loss is {loss:.3f}, and {usual_loss:.3f} is usual"
        if self.norm_ratio is not None and norm > max(SMALL_NORM, usual_norm * self.norm_ratio):
            return f"its gradient's norm is {norm:.3g}, and {usual_norm:.3g} is usual"
        return None

    def _report(self, trainer: Trainer, pl_module: LightningModule, step: int, wrong: str) -> str:
        """Write down what the step was; where that stands, in words."""
        path = Path(trainer.default_root_dir) / "spikes" / f"step-{step}.md"
        gradients = {name: p.grad for name, p in pl_module.named_parameters() if p.grad is not None}
        norms = {name: float(whole_norm(gradient.norm())) for name, gradient in gradients.items()}
        if trainer.is_global_zero:
            with dispensable(str(path)):
                path.parent.mkdir(exist_ok=True)
                write_whole(path, self._describe(trainer, f"Step {step}: {wrong}", norms).encode())
        return f"its text is in {path}" if path.is_file() else "its text could not be kept"

    def _describe(self, trainer: Trainer, title: str, norms: dict[str, float]) -> str:
        """The gradient of each parameter, the largest first, and the text of the step."""
        for_order = {name: norm if math.isfinite(norm) else math.inf for name, norm in norms.items()}
        largest_first = sorted(norms, key=lambda name: for_order[name], reverse=True)
        rows = "".join(f"| {name} | {norms[name]:.4g} |\n" for name in largest_first)
        data = data_of(trainer)
        texts = [data.tokenizer.decode(row.tolist()) for row in data.global_batch(trainer.global_step)]
        indented = "\n".join("".join(f"    {line}\n" for line in text.splitlines()) for text in texts)
        return f"# {title}\n\n| gradient of | norm |\n|---|---|\n{rows}\n## The text\n\n{indented}"

    def _give_up(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """So many in a row are no accident: the weights themselves are bad."""
        diverged = (
            f"{self.n_in_a_row} steps in a row, up to step {trainer.global_step + 1}, had to be left out: "
            "the run has diverged; a smaller model.learning_rate or longer model.warmup_steps may help"
        )
        if self.on_spike == "skip" or (checkpoint := _last_good_checkpoint(trainer)) is None:
            raise FloatingPointError(diverged)
        if checkpoint["global_step"] == self.went_back_to:
            raise FloatingPointError(f"{diverged}; it was rolled back once already")
        # With an average of the weights, those that are trained stand beside it.
        weights = checkpoint.get("current_model_state", checkpoint["state_dict"])
        trainer.strategy.load_model_state_dict({"state_dict": weights})
        trainer.strategy.load_optimizer_state_dict(checkpoint)
        self.went_back_to = checkpoint["global_step"]
        self.n_in_a_row = 0
        log.warning("rolled back to the weights of step %s", self.went_back_to)

    def state_dict(self) -> dict[str, Any]:
        """What is usual, and what has happened."""
        return {
            "losses": list(self.losses),
            "norms": list(self.norms),
            "n_in_a_row": self.n_in_a_row,
            "went_back_to": self.went_back_to,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them up."""
        self.losses.extend(state_dict["losses"])
        self.norms.extend(state_dict["norms"])
        self.n_in_a_row, self.went_back_to = state_dict["n_in_a_row"], state_dict["went_back_to"]


def _last_good_checkpoint(trainer: Trainer) -> dict[str, Any] | None:
    """The run's newest one that was not saved amid steps that were left out."""
    folder = Path(trainer.strategy.broadcast(trainer.default_root_dir))  # that rank 0 took
    for path in (folder / "last.ckpt", folder / "best.ckpt"):
        if path.is_file():
            checkpoint = read_checkpoint(path)
            if not checkpoint["callbacks"].get(Guard.__qualname__, {}).get("n_in_a_row"):
                return checkpoint
    return None
