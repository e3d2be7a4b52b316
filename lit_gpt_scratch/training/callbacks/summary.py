"""What a run is, said before it; what came of it, said after."""

import math
import sys
import time
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_gpt_scratch import PROGRAM
from lit_gpt_scratch.data.datamodule import TextDataModule
from lit_gpt_scratch.data.progress_bar import print_above_bar
from lit_gpt_scratch.training.checkpoint_io import read_checkpoint
from lit_gpt_scratch.training.parts import data_of, gpt_of, tensorboards
from lit_gpt_scratch.training.run_folder import shell_path


class Summary(Callback):
    """Prints one compact summary at the start of a run, and at its end the result and the next commands."""

    def __init__(self, reasons: dict[str, str], changes: dict[str, str]) -> None:
        """Set what is known before the run.

        Args:
            reasons: Why precision and compilation are what they are.
            changes: Options that a resumed run has changed, each as ``old -> new``.
        """
        self.reasons = reasons
        self.changes = changes

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what will be trained on what."""
        self.started_seconds = time.perf_counter()
        if not trainer.is_global_zero:
            return
        data, gpt = data_of(trainer), gpt_of(pl_module)
        text, config = data.corpora["train"].fingerprint(), gpt.config
        rows = {
            "corpus": f"{text['name']}, {text['n_chars']:,} characters, sha256 {str(text['sha256'])[:12]}",
            "tokens": _tokens(data),
            "model": f"{gpt.n_parameters:,} parameters: {config.n_layer} layers, {config.n_head} heads, "
            f"{config.n_embd} wide, block {config.block_size}",
            "device": f"{_device(trainer, pl_module.device)}, {self.choices(trainer)}",
            "run": f"{_length(trainer, data)}, in {trainer.default_root_dir}",
        }
        if self.changes:
            rows["changed"] = ", ".join(f"{name} {change}" for name, change in self.changes.items())
        for name, value in rows.items():
            print_above_bar(f"{name:<7} {value}", sys.stdout)
        whole = rows | {"sha256": str(text["sha256"])}
        markdown = "".join(f"    {name:<7} {value}\n" for name, value in whole.items())
        for writer in tensorboards(trainer):
            writer.add_text("run", markdown, trainer.global_step)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the learning rate of a resumed run's first step if its options have changed it."""
        was = trainer.optimizers[0].param_groups[0]["lr"]  # restored from the checkpoint
        now = cast(Any, pl_module).learning_rate_at(trainer.global_step)
        if trainer.is_global_zero and trainer.global_step and not math.isclose(now, was, rel_tol=1e-6):
            change = f"rate    {now:.3g} in step {trainer.global_step + 1}, in place of {was:.3g}"
            print_above_bar(change, sys.stdout)

    def choices(self, trainer: Trainer) -> str:
        """Precision and compilation, with the reason for each."""
        reasons = {name: f" ({reason})" for name, reason in self.reasons.items()}
        compiled = "compiled" if "compiled" in self.reasons else "not compiled"
        precision = f"precision {trainer.precision}{reasons.get('precision', '')}"
        return f"{precision}, {compiled}{reasons.get(compiled, '')}"

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what came of it and what can be done with it."""
        if not trainer.is_global_zero:
            return
        folder = trainer.default_root_dir
        best = Path(folder) / "best.ckpt"
        if best.is_file():
            evaluation = read_checkpoint(best, mmap=True)["evaluation"]
            seconds = time.perf_counter() - self.started_seconds
            print(
                f"\nbest val loss {evaluation['val/loss']:.4f} at step {evaluation['step']}, "
                f"{seconds:.0f} s in all; {_last_sample(Path(folder))}"
            )
        run = shell_path(folder)
        is_over = trainer.global_step == trainer.max_steps
        longer = f" --trainer.max_steps {2 * trainer.global_step}" if is_over else ""
        logs = f"\nsee it learn   tensorboard --logdir {shell_path(Path(folder).parent)}"
        has_own = any(Path(writer.log_dir) == Path(folder) for writer in tensorboards(trainer))
        print(
            f"\nlet it speak   {PROGRAM} predict --ckpt_path {run}{logs if has_own else ''}"
            f"\ntrain it more  {PROGRAM} fit --ckpt_path {run}{longer}",
            flush=True,
        )


def _tokens(data: TextDataModule) -> str:
    val_set = data.val_set
    part = "" if val_set.is_full_pass else f"{val_set.n_tokens:,} of "
    other = f" ({data.corpora['val'].name})" if data.val_source is not None else ""
    return (
        f"{len(data.train_tokens):,} to train on, {part}{len(val_set.tokens):,} to validate on{other}, "
        f"vocabulary {data.vocab_size:,}"
    )


def _length(trainer: Trainer, data: TextDataModule) -> str:
    each = f"{data.tokens_per_step:,} tokens a step"
    if trainer.max_steps < 1:
        return f"no last step, {each}"
    epochs = trainer.max_steps * data.tokens_per_step / len(data.train_tokens)
    return f"{trainer.max_steps:,} steps, {each}, {epochs:.2f} epochs"


def _device(trainer: Trainer, device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    threads = f" ({torch.get_num_threads()} threads)" if device.type == "cpu" else ""
    return f"{trainer.world_size} x {name}{threads}" if trainer.world_size > 1 else f"{name}{threads}"


def _last_sample(folder: Path) -> str:
    samples = folder / "samples.md"
    if not samples.is_file():
        return "no samples were written"
    last = f"\n{samples.read_text(encoding='utf-8')}".rpartition("\n## Step ")[2]
    return "its last sample:\n\n" + last.partition("\n\n")[2].rstrip()
