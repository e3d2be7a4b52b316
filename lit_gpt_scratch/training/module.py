"""The GPT as a LightningModule: what a step does, and what is logged of it."""

import math
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor
from torch.optim import Optimizer
from torchmetrics import MeanMetric

from lit_gpt_scratch.data.windows import IGNORE, Batch
from lit_gpt_scratch.model.gpt import GPT, GPTConfig
from lit_gpt_scratch.training.checkpoint_io import tokens_read
from lit_gpt_scratch.training.event_logger import log_scalars
from lit_gpt_scratch.training.hub_folder import read_weights
from lit_gpt_scratch.training.loss import cross_entropy, next_token_loss
from lit_gpt_scratch.training.micro_batch import fits, largest_micro_batch
from lit_gpt_scratch.training.optim import Muon, MuonAdamW, adamw
from lit_gpt_scratch.training.parts import data_of, is_log_step
from lit_gpt_scratch.training.schedule import Schedule, learning_rate
from lit_gpt_scratch.training.sharding import shard

EAGER_STEPS = 10  # of a compiled run on a CPU: by their number, so that a resumed run does the same


class LitGPT(LightningModule):
    """Trains a GPT on next-token cross-entropy with AdamW under warmup and cosine decay.

    A Lightning batch is an optimizer step: the list of micro-batches whose gradients are added up. So every
    count that the Trainer keeps, shows or stores is one of optimizer steps.
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
        init_from: str | None = None,
        **gpt: Any,
    ) -> None:
        """Build the model.

        Args:
            learning_rate: AdamW's learning rate at the end of warmup.
            min_learning_rate: The learning rate at the end of decay; Muon's falls by the same factor.
            schedule: How it falls after warmup: half a cosine; a line; wsd, a line over the last fifth of the
                steps; or not at all.
            warmup_steps: Optimizer steps of linear rise.
            decay_steps: Optimizer step at which min_learning_rate is reached; null takes trainer.max_steps.
            weight_decay: Decoupled decay of the matrices; norms and biases have none.
            beta1: AdamW's memory of gradients.
            beta2: AdamW's memory of squared gradients.
            optimizer: muon trains the matrices of the blocks with Muon, and the rest with AdamW.
            muon_learning_rate: Muon's learning rate at the end of warmup.
            activation_checkpointing: Keep no activations inside of blocks for the backward pass, but compute
                them again: less memory, more time.
            init_from: Hugging Face GPT-2 folder to take the first weights from; null draws them at random.
            **gpt: The fields of `GPTConfig`.

        Raises:
            ValueError: A number is out of range, or init_from has no such model.
        """
        super().__init__()
        if not learning_rate > 0 or not 0 <= min_learning_rate <= learning_rate:
            raise ValueError(
                f"model.learning_rate ({learning_rate}) must be above 0 and model.min_learning_rate "
                f"({min_learning_rate}) between 0 and it"
            )
        if warmup_steps < 0 or weight_decay < 0:
            raise ValueError("model.warmup_steps and model.weight_decay must not be negative")
        if decay_steps is not None and not warmup_steps <= decay_steps:
            raise ValueError(
                f"model.decay_steps ({decay_steps}) must not be below warmup_steps ({warmup_steps})"
            )
        if not muon_learning_rate > 0:
            raise ValueError(f"model.muon_learning_rate must be above 0, not {muon_learning_rate}")
        if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
            raise ValueError(
                f"model.beta1 and model.beta2 must be at least 0 and below 1, not {beta1}, {beta2}"
            )
        self.save_hyperparameters(ignore=["init_from"])  # a checkpoint brings weights of its own
        self.automatic_optimization = False  # the micro-batches of a step are added up here
        self.learning_rate = learning_rate
        self.min_learning_rate = min_learning_rate
        self.schedule = schedule
        self.warmup_steps = warmup_steps
        self.decay_steps = decay_steps
        self.weight_decay = weight_decay
        self.betas = (beta1, beta2)
        self.optimizer = optimizer
        self.muon_learning_rate = muon_learning_rate
        self.gpt = GPT(GPTConfig(**gpt))
        self.gpt.activation_checkpointing = activation_checkpointing
        self.begun_from: str | None = None  # whose weights were the first ones; None: random ones
        if init_from is not None:
            weights = read_weights(Path(init_from).expanduser(), self.gpt.config)
            self.take_weights({f"gpt.{name}": tensor for name, tensor in weights.items()}, init_from)
        self.lineage: list[dict[str, Any]] = []  # checkpoints that the run descends from, the first one first
        self.val_loss = MeanMetric()
        self.train_eval_loss = MeanMetric()
        self.grad_norm: Tensor | None = None  # of this step, once a callback has measured it
        self.step_is_taken = True  # a callback may leave a step out
        self.n_tokens = 0  # that the run has read, over all devices
        self.evaluation: dict[str, float] = {}  # the last one's step and losses; it travels in the checkpoint

    def take_weights(self, state_dict: dict[str, Tensor], whose: str) -> None:
        """Begin from weights that were trained elsewhere.

        Raises:
            RuntimeError: They do not fit.
        """
        self.load_state_dict(state_dict)
        self.begun_from = whose

    def compile_blocks(self, or_not: bool) -> None:
        """Train with compiled code, made once for all blocks, which are alike; names in checkpoints stay.

        Args:
            or_not: Go on without, with a warning, where compiling fails.
        """
        torch._dynamo.config.suppress_errors = or_not
        for block in self.gpt.h:
            block.compile()

    def configure_model(self) -> None:
        """Share the weights out, where the strategy (fsdp) says over which devices."""
        if self.device_mesh is not None:
            shard(self.gpt, self.device_mesh["data_parallel"])

    def setup(self, stage: str) -> None:
        """Sums over a long text outgrow float32; Apple's GPUs have nothing wider."""
        if self.device.type != "mps":
            self.val_loss.set_dtype(torch.float64)
            self.train_eval_loss.set_dtype(torch.float64)

    def configure_optimizers(self) -> Optimizer:
        """AdamW, or Muon with it; the learning rates are set before each step, from the step alone."""
        if self.decay_steps is None and self.trainer.max_steps < 1 and self.schedule != "constant":
            raise ValueError(
                "the learning rate needs an end to decay to: set trainer.max_steps or model.decay_steps"
            )
        # With a gradient scaler, Lightning leaves unscaling to a fused optimizer, too late for clipping.
        fused = self.trainer.precision != "16-mixed"
        trained = [p for p in self.gpt.parameters() if p.requires_grad]
        if self.optimizer == "adamw":
            return adamw(trained, self.betas, self.weight_decay, fused)
        matrices = [p for p in self.gpt.h.parameters() if p.requires_grad and p.dim() == 2]
        others = [p for p in trained if all(p is not matrix for matrix in matrices)]
        return MuonAdamW(
            adamw(others, self.betas, self.weight_decay, fused),
            Muon(matrices, lr=0.0, weight_decay=self.weight_decay),
        )

    def learning_rate_at(self, step: int) -> float:
        """AdamW's learning rate in an optimizer step, counted from 0; Muon's is in proportion to it."""
        decay_steps = self.trainer.max_steps if self.decay_steps is None else self.decay_steps
        return learning_rate(
            self.schedule, step, self.learning_rate, self.min_learning_rate, self.warmup_steps, decay_steps
        )

    def on_fit_start(self) -> None:
        """Remember the run's seed, from which each step takes its own; find the micro-batch where asked."""
        self.seed = torch.initial_seed()
        data = data_of(self.trainer)
        # Devices that share weights cannot try alone what fits.
        if data.finds_micro_batch and self.device.type == "cuda" and self.device_mesh is None:
            size = largest_micro_batch(data.rows_per_device, self._takes)
            data.micro_batch_size = self.trainer.strategy.broadcast(size)

    def _takes(self, n_rows: int) -> bool:
        """Whether the device has room for a micro-batch of so many rows."""
        idx = torch.zeros(n_rows, self.gpt.config.block_size, dtype=torch.int64, device=self.device)

        def step() -> None:
            with self.trainer.precision_plugin.forward_context():
                next_token_loss(self.gpt, idx, idx).backward()

        return fits(step, list(self.gpt.parameters()))

    def on_train_batch_start(self, batch: list[Batch], batch_idx: int) -> None:
        """Make dropout a pure function of (seed, step, rank): a resumed run needs no generator's state."""
        seed = hash((self.seed, self.global_step, self.global_rank))
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":  # torch.manual_seed asks every kind that there is: half a millisecond
            torch.get_device_module(self.device).manual_seed(seed)

    def training_step(self, batch: list[Batch], batch_idx: int) -> None:
        """One optimizer step on the mean loss over all the micro-batches' tokens."""
        optimizer = self.optimizers()
        assert isinstance(optimizer, Optimizer)
        rate = self.learning_rate_at(self.global_step)
        for group in optimizer.param_groups:
            is_muon = "momentum" in group
            group["lr"] = rate * self.muon_learning_rate / self.learning_rate if is_muon else rate
        self.grad_norm, self.step_is_taken = None, True
        n_rows = sum(len(inputs) for inputs, _ in batch)
        self.step_loss = torch.zeros((), device=self.device)
        for i, (inputs, targets) in enumerate(batch):
            with self._eager_at_first(), nullcontext() if i == len(batch) - 1 else self._no_gradient_sync():
                loss = next_token_loss(self.gpt, inputs, targets) * (len(inputs) / n_rows)
                self.manual_backward(loss)
            self.step_loss += loss.detach()
        optimizer.step()
        optimizer.zero_grad()
        self.n_tokens += data_of(self.trainer).tokens_per_step
        if is_log_step(self.trainer):
            self._log_step_loss()

    def _log_step_loss(self) -> None:
        """Log the step's loss, over all devices: before a callback saves the step."""
        loss = float(self.trainer.strategy.reduce(self.step_loss, reduce_op="mean"))
        if self.step_is_taken:
            self._check_finite("train/loss", loss)
        self.log("train/loss", loss, logger=False)
        log_scalars(self.trainer, {"train/loss": loss})

    def _eager_at_first(self) -> AbstractContextManager[Any]:
        """On a CPU the first steps come at once, with what is wrong in them; compiling comes after."""
        eager = self.device.type == "cpu" and self.global_step < EAGER_STEPS
        return cast(Any, torch.compiler.set_stance("force_eager")) if eager else nullcontext()

    def _no_gradient_sync(self) -> AbstractContextManager[Any]:
        """Several devices share their gradients once a step, with the last micro-batch."""
        strategy = self.trainer.strategy
        return strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) else nullcontext()

    def _check_finite(self, name: str, loss: float) -> None:
        """A run that has diverged does not come back: it ends before it saves anything."""
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"{name} is {loss} at step {self.global_step}: the run has diverged; a smaller "
                "model.learning_rate or longer model.warmup_steps may help"
            )

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add a batch to the mean loss of the validation text, or of the training text's fixed windows."""
        inputs, targets = batch
        metric = self.val_loss if dataloader_idx == 0 else self.train_eval_loss
        with torch.compiler.set_stance("force_eager"):  # compiling once more would take longer than it saves
            loss = cross_entropy(self.gpt(inputs), targets)
        metric.update(loss, weight=(targets != IGNORE).sum())

    def on_validation_epoch_end(self) -> None:
        """Log both losses and their gap, and keep them for the checkpoint."""
        val, train = float(self.val_loss.compute()), float(self.train_eval_loss.compute())
        self._check_finite("val/loss", val)
        losses = {"val/loss": val, "train/eval_loss": train, "val/gap": val - train}
        self.log_dict(losses, logger=False)
        log_scalars(self.trainer, losses)
        self.evaluation = {"step": self.global_step, **losses}
        self.val_loss.reset()
        self.train_eval_loss.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the mean loss of the test text."""
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Log the loss of the test text."""
        self.log("test/loss", float(self.val_loss.compute()))
        self.val_loss.reset()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the losses that the last evaluation gave, and what the run has read and began from."""
        checkpoint["evaluation"] = self.evaluation
        checkpoint["n_tokens"] = self.n_tokens
        checkpoint["begun_from"] = self.begun_from
        checkpoint["lineage"] = self.lineage
        checkpoint["device"] = {"kind": self.device.type, "precision": str(self.trainer.precision)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the checkpoint's last evaluation and its count of tokens."""
        self.evaluation = checkpoint["evaluation"]
        self.n_tokens = tokens_read(checkpoint)
        self.begun_from = checkpoint.get("begun_from")
        self.lineage = self.lineage or checkpoint.get("lineage", [])
        checkpoint["callbacks"].pop("Timer", None)  # trainer.max_time is a command's, not a run's whole life
