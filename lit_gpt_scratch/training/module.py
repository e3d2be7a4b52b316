"""LitGPT, the LightningModule: steps, optimizer, learning-rate schedule and checkpoint contents."""

import logging
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import ParallelStrategy
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lit_gpt_scratch.data.batches import IGNORE, Batch
from lit_gpt_scratch.data.bpe import tokenizer_from_dict
from lit_gpt_scratch.data.tokenizers import Tokenizer
from lit_gpt_scratch.generation.generate import SamplingOptions, generate_tokens
from lit_gpt_scratch.model.gpt import GPT, GPTConfig
from lit_gpt_scratch.training.fsdp import shard_model
from lit_gpt_scratch.training.loss import MeanLoss, evaluation_loss, next_token_loss
from lit_gpt_scratch.training.lr_schedule import Schedule, check_schedule, learning_rate
from lit_gpt_scratch.training.metrics import check_finite
from lit_gpt_scratch.training.micro_batch import find_micro_batch
from lit_gpt_scratch.training.optim import check_optimizer, make_optimizer
from lit_gpt_scratch.training.trainer_state import get_data, is_log_step, log_with_global_step

log = logging.getLogger(__name__)

EAGER_STEPS = 10  # on a CPU, a compiled run executes the steps before this one eagerly, also when resumed


class LitGPT(LightningModule):
    """GPT trained on next-token cross-entropy with AdamW or Muon, and a learning rate with warmup and decay.

    A training batch is the data of one optimizer step: either one micro-batch (a pair of inputs and
    targets, each (B, T)) or a list of micro-batches whose gradients are summed.

    Attributes:
        n_tokens: Number of training tokens read so far, over all devices.
        evaluation: Step and losses of the last evaluation.
        best_evaluation: Step and losses of the evaluation with the lowest validation loss.
        tokenizer: Tokenizer of the data module, or of a loaded checkpoint.
        sampling: Options of `predict_step`.
        init_from: Checkpoint or folder of the initial weights; None if they are random.
    """

    def __init__(
        self,
        learning_rate: float = 1e-3,
        min_learning_rate: float = 1e-4,
        schedule: Schedule = "cosine",
        warmup_steps: int = 100,
        decay_steps: int | None = None,
        weight_decay: float = 0.1,
        beta1: float = 0.9,
        beta2: float = 0.95,
        optimizer: Literal["adamw", "muon"] = "adamw",
        muon_learning_rate: float = 0.02,
        activation_checkpointing: bool = False,
        **gpt: Any,
    ) -> None:
        """Check the options, and build the network if vocab_size and block_size are given.

        Args:
            learning_rate: AdamW's learning rate at the end of warmup.
            min_learning_rate: AdamW's learning rate at the end of decay; Muon's learning rate decays by
                the same factor.
            schedule: Decay after warmup: cosine (half a period), linear, wsd (constant, then linear over the
                last fifth of decay_steps) or constant (no decay).
            warmup_steps: Number of optimizer steps of linear warmup.
            decay_steps: Optimizer step at which min_learning_rate is reached; null means trainer.max_steps.
            weight_decay: Coefficient of decoupled weight decay of matrices; norms and biases do not decay.
            beta1: AdamW's coefficient of the running mean of the gradient.
            beta2: AdamW's coefficient of the running mean of the squared gradient.
            optimizer: adamw for all parameters, or muon, which updates the matrices of the blocks with Muon
                and the other parameters with AdamW.
            muon_learning_rate: Muon's learning rate at the end of warmup.
            activation_checkpointing: Recomputation of the activations inside blocks in the backward pass,
                instead of storing them: less memory, more time.
            **gpt: Fields of `GPTConfig`. If vocab_size or block_size is missing, `configure_model` builds the
                network with the data module's values.

        Raises:
            ValueError: An option is out of range.
        """
        super().__init__()
        check_schedule(learning_rate, min_learning_rate, warmup_steps, decay_steps)
        check_optimizer(weight_decay, beta1, beta2, muon_learning_rate)
        self.save_hyperparameters()
        self.learning_rate = learning_rate
        self.min_learning_rate = min_learning_rate
        self.schedule = schedule
        self.warmup_steps = warmup_steps
        self.decay_steps = decay_steps
        self.weight_decay = weight_decay
        self.betas = (beta1, beta2)
        self.optimizer = optimizer
        self.muon_learning_rate = muon_learning_rate
        self.activation_checkpointing = activation_checkpointing
        self.gpt_options = dict(gpt)
        if {"vocab_size", "block_size"} <= gpt.keys():
            self._set_gpt(GPTConfig(**gpt))  # jsonargparse reads this line to find the fields of GPTConfig
        self.val_loss = MeanLoss()
        self.train_eval_loss = MeanLoss()
        self.group_options: list[dict[str, Any]] = []  # optimizer options of each parameter group
        self.n_tokens = 0
        self.evaluation: dict[str, float] = {}
        self.best_evaluation: dict[str, float] = {}
        self.tokenizer: Tokenizer | None = None
        self.sampling = SamplingOptions()
        self.init_from: str | None = None

    def build_gpt(self, **sizes: int) -> None:
        """Build the network; `sizes` has vocab_size and block_size, unless the model's options set them."""
        options = sizes | self.gpt_options
        self.hparams.update(options)
        self._set_gpt(GPTConfig(**options))

    def _set_gpt(self, config: GPTConfig) -> None:
        self.gpt = GPT(config)
        self.gpt.activation_checkpointing = self.activation_checkpointing

    def configure_model(self) -> None:
        """Build a missing network with the data module's vocab_size and block_size; under FSDP, shard it.

        Raises:
            ValueError: vocab_size or block_size is missing, and there is no data module.
        """
        if not hasattr(self, "gpt"):
            if getattr(self.trainer, "datamodule", None) is None:
                raise ValueError("LitGPT needs vocab_size and block_size, or a TextDataModule that sets them")
            data = get_data(self.trainer)
            self.build_gpt(vocab_size=data.vocab_size, block_size=data.block_size)
        if self.device_mesh is not None:
            shard_model(self.gpt, self.device_mesh["data_parallel"])

    def forward(self, idx: Tensor) -> Tensor:
        """Return the logits (B, T, V) of token ids (B, T)."""
        return cast(Tensor, self.gpt(idx))

    def setup(self, stage: str) -> None:
        """Use the data module's tokenizer; sum losses in float64: float32 is imprecise for long texts."""
        if stage != "predict":
            data = getattr(self.trainer, "datamodule", None)
            self.tokenizer = getattr(data, "tokenizer", self.tokenizer)
        # `self.device` is still the CPU. MPS has no float64.
        if self.trainer.strategy.root_device.type != "mps":
            self.val_loss.set_dtype(torch.float64)
            self.train_eval_loss.set_dtype(torch.float64)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer and the scheduler, which sets the learning rates of each step.

        Raises:
            ValueError: The learning rate decays, but neither decay_steps nor max_steps is set.
        """
        if self.decay_steps is None and self.trainer.max_steps < 1 and self.schedule != "constant":
            raise ValueError(
                "the decay of the learning rate needs a last step: set trainer.max_steps or model.decay_steps"
            )
        # With a gradient scaler, a fused optimizer unscales gradients in its step, after they were clipped.
        fused = self.trainer.precision != "16-mixed"
        optimizer = make_optimizer(self.gpt, self.optimizer, self.betas, self.weight_decay, fused)
        groups = optimizer.param_groups
        self.group_options = [{k: v for k, v in group.items() if k != "params"} for group in groups]
        # LambdaLR multiplies the optimizer's learning rate, which is 1.
        functions = {"muon": self.muon_learning_rate_at}
        scheduler = LambdaLR(optimizer, [functions.get(g["name"], self.learning_rate_at) for g in groups])
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "learning_rate"},
        }

    def learning_rate_at(self, step: int) -> float:
        """Return AdamW's learning rate of an optimizer step, counted from 0."""
        decay_steps = self.trainer.max_steps if self.decay_steps is None else self.decay_steps
        return learning_rate(
            self.schedule, step, self.learning_rate, self.min_learning_rate, self.warmup_steps, decay_steps
        )

    def muon_learning_rate_at(self, step: int) -> float:
        """Return Muon's learning rate of an optimizer step: AdamW's times a constant."""
        return self.learning_rate_at(step) * self.muon_learning_rate / self.learning_rate

    def on_fit_start(self) -> None:
        """Store the run's seed; search for the largest micro-batch if data.micro_batch_size is auto.

        Raises:
            ValueError: accumulate_grad_batches or gradient_clip_val of the Trainer is set; the message names
                the option of this project that replaces it.
        """
        if self.trainer.accumulate_grad_batches != 1:
            raise ValueError(
                "accumulate_grad_batches is replaced by data.micro_batch_size, since a batch is one step"
            )
        if self.trainer.gradient_clip_val is not None:
            raise ValueError("gradient_clip_val is replaced by the callback StepControl(max_norm=...)")
        data = getattr(self.trainer, "datamodule", None)
        self.seed = getattr(data, "seed", torch.initial_seed())
        if getattr(data, "auto_micro_batch", False):
            if self.device.type == "cuda" and not self.device_mesh:
                size = find_micro_batch(self.trainer, self.gpt, get_data(self.trainer).rows_per_device)
                get_data(self.trainer).micro_batch_size = size
            else:  # with sharded weights, no device can test a micro-batch alone
                log.warning("data.micro_batch_size auto has no effect on a CPU, and with sharded weights")

    def on_train_start(self) -> None:
        """Replace the optimizer options that were restored from a checkpoint with the options of this run."""
        for optimizer in self.trainer.optimizers:
            for group, options in zip(optimizer.param_groups, self.group_options, strict=False):
                group.update(options)
        for config in self.trainer.lr_scheduler_configs:
            if isinstance(scheduler := config.scheduler, LambdaLR):
                for group, rate in zip(scheduler.optimizer.param_groups, scheduler.lr_lambdas, strict=True):
                    group["lr"] = group["initial_lr"] * rate(scheduler.last_epoch)

    def on_train_batch_start(self, batch: list[Batch], batch_idx: int) -> None:
        """Make dropout a pure function of (seed, step, rank), so that resuming needs no generator state."""
        log_with_global_step(self.trainer)
        seed = hash((self.seed, self.global_step, self.global_rank))
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":  # torch.manual_seed would seed all device types and take 0.5 ms
            torch.get_device_module(self.device).manual_seed(seed)

    def training_step(self, batch: list[Batch] | Batch, batch_idx: int) -> Tensor:
        """Run the backward passes of all micro-batches but the last; return the last micro-batch's loss.

        Lightning runs the backward pass of the returned loss. Each loss is weighted by its micro-batch's
        fraction of the rows, so that the sum of the gradients is the gradient of the mean loss, `step_loss`.
        """
        micro_batches = cast(list[Batch], [batch] if isinstance(batch[0], Tensor) else batch)
        n_rows = sum(len(inputs) for inputs, _ in micro_batches)
        self.step_tokens = sum(inputs.numel() for inputs, _ in micro_batches) * self.trainer.world_size
        self.step_loss = torch.zeros((), device=self.device)
        *others, last = micro_batches
        with self._no_gradient_sync():
            for micro_batch in others:
                self.trainer.strategy.backward(self._weighted_loss(micro_batch, n_rows), None)
        return self._weighted_loss(last, n_rows)

    def _weighted_loss(self, micro_batch: Batch, n_rows: int) -> Tensor:
        inputs, targets = micro_batch
        with self._eager_at_first():
            loss = next_token_loss(self.gpt, inputs, targets) * (len(inputs) / n_rows)
        self.step_loss += loss.detach()
        return loss

    def optimizer_zero_grad(self, *_: Any) -> None:
        """Do nothing, to keep the earlier micro-batches' gradients; `on_train_batch_end` clears them."""

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Add the step's tokens to `n_tokens`; if the step is logged, log its loss, averaged over devices.

        Raises:
            FloatingPointError: The loss is NaN or infinite, and no callback skips the step.
        """
        self.n_tokens += self.step_tokens
        if not is_log_step(self.trainer, self.global_step + 1):
            return
        loss = float(self.trainer.strategy.reduce(self.step_loss, reduce_op="mean"))
        if any(p.grad is not None for group in optimizer.param_groups for p in group["params"]):
            check_finite("train/loss", loss, self.global_step + 1)
        self.log("train/loss", loss)

    def on_train_batch_end(self, *_: Any) -> None:
        """Clear the gradients of the step."""
        for optimizer in self.trainer.optimizers:
            optimizer.zero_grad()

    def _eager_at_first(self) -> AbstractContextManager[Any]:
        """Return a context that runs the first steps on a CPU eagerly.

        These steps, and errors in them, then do not wait for compilation.
        """
        eager = self.device.type == "cpu" and self.global_step < EAGER_STEPS
        return cast(Any, torch.compiler.set_stance("force_eager")) if eager else nullcontext()

    def _no_gradient_sync(self) -> AbstractContextManager[Any]:
        """Return a context without gradient synchronization, for all micro-batches except the last."""
        strategy = self.trainer.strategy
        return strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) else nullcontext()

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add a batch to the mean loss of dataloader 0 (validation text) or 1 (fixed training windows)."""
        inputs, targets = batch
        metric = self.val_loss if dataloader_idx == 0 else self.train_eval_loss
        with torch.compiler.set_stance("force_eager"):  # another compilation would take longer than it saves
            loss = evaluation_loss(self.gpt, inputs, targets)
        metric.update(loss, (targets != IGNORE).sum())

    def on_validation_epoch_end(self) -> None:
        """Log and store the validation loss, the training loss and their difference."""
        losses = {"val/loss": float(self.val_loss.compute())}
        check_finite("val/loss", losses["val/loss"], self.global_step)
        if self.train_eval_loss.update_called:
            train = float(self.train_eval_loss.compute())
            losses |= {"train/eval_loss": train, "val/gap": losses["val/loss"] - train}
        self.log_dict(losses)
        self.evaluation = {"step": self.global_step, **losses}
        if losses["val/loss"] < self.best_evaluation.get("val/loss", math.inf):
            self.best_evaluation = self.evaluation
        self.val_loss.reset()
        self.train_eval_loss.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the mean test loss."""
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Log the mean test loss."""
        self.log("test/loss", float(self.val_loss.compute()))
        self.val_loss.reset()

    def predict_step(self, batch: Sequence[str], batch_idx: int) -> list[str]:
        """Return each prompt followed by its continuation.

        Raises:
            ValueError: There is no tokenizer, neither from a data module nor from a checkpoint.
        """
        if self.tokenizer is None:
            raise ValueError("LitGPT has no tokenizer: fit it first, or pass ckpt_path to Trainer.predict")
        prompts = [self.tokenizer.encode(prompt).tolist() for prompt in batch]
        texts = generate_tokens(self.gpt, prompts, self.sampling).continuations
        return [self.tokenizer.decode(ids + text.tokens) for ids, text in zip(prompts, texts, strict=True)]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add this project's keys to a checkpoint."""
        checkpoint["class_path"] = f"{type(self).__module__}.{type(self).__qualname__}"  # --model.class_path
        data_name = type(getattr(self.trainer, "datamodule", None)).__qualname__
        if data_name in checkpoint:
            checkpoint["TextDataModule"] = checkpoint.pop(data_name)  # one key for all subclasses
        checkpoint["evaluation"] = self.evaluation
        checkpoint["best_evaluation"] = self.best_evaluation
        checkpoint["n_tokens"] = self.n_tokens
        checkpoint["init_from"] = self.init_from
        checkpoint["device"] = {"kind": self.device.type, "precision": str(self.trainer.precision)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the attributes that `on_save_checkpoint` stores, and the checkpoint's tokenizer, if any."""
        self.evaluation = checkpoint["evaluation"]
        self.best_evaluation = checkpoint["best_evaluation"]
        self.n_tokens = checkpoint["n_tokens"]
        self.init_from = checkpoint["init_from"]
        if "TextDataModule" in checkpoint:
            self.tokenizer = tokenizer_from_dict(checkpoint["TextDataModule"]["tokenizer"])
        checkpoint.get("callbacks", {}).pop("Timer", None)  # trainer.max_time counts from the resume
