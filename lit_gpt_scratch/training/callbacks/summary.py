"""Print a summary of a run at its start, and the result and the next commands at its end."""

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
from lit_gpt_scratch.training.checkpoint import read_checkpoint
from lit_gpt_scratch.training.lr_schedule import warmup_warning
from lit_gpt_scratch.training.run_folder import shell_path
from lit_gpt_scratch.training.trainer_state import get_data, get_gpt, tensorboard_writers


class Summary(Callback):
    """Print a summary at the start of a run, and the best validation loss and the last sample at its end.

    The summary shows the corpus, the number of tokens, the model, the device and the length of the run.
    """

    def __init__(self, reasons: dict[str, str], changes: dict[str, str]) -> None:
        """Set the information that the command line provides.

        Args:
            reasons: Reasons for choices. The key ``precision`` has the reason for the precision; the key
                ``compiled`` or ``not compiled`` has the reason for compiling the model or not.
            changes: Changes of options in a resumed run, each as ``old -> new``, by option name.
        """
        self.reasons = reasons
        self.changes = changes

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the summary, and write it to TensorBoard."""
        self.start_seconds = time.perf_counter()
        if not trainer.is_global_zero:
            return
        data, gpt = get_data(trainer), get_gpt(pl_module)
        text, config = data.corpora["train"].fingerprint(), gpt.config
        rows = {
            "corpus": f"{text['name']}, {text['n_chars']:,} characters, sha256 {str(text['sha256'])[:12]}",
            "tokens": format_tokens(data),
            "model": f"{gpt.n_parameters:,} parameters: {config.n_layer} layers, {config.n_head} heads, "
            f"{config.n_embd} wide, block {config.block_size}",
            "device": f"{format_device(trainer, pl_module.device)}, {self._format_choices(trainer)}",
            "run": f"{format_length(trainer, data)}, in {trainer.default_root_dir}",
        }
        if warning := warmup_warning(cast(Any, pl_module).warmup_steps, trainer.max_steps):
            rows["warning"] = warning
        if self.changes:
            rows["changed"] = ", ".join(f"{name} {change}" for name, change in self.changes.items())
        for name, value in rows.items():
            print_above_bar(f"{name:<7} {value}", sys.stdout)
        rows["sha256"] = str(text["sha256"])
        markdown = "".join(f"    {name:<7} {value}\n" for name, value in rows.items())
        for writer in tensorboard_writers(trainer):
            writer.add_text("run", markdown, trainer.global_step)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the learning rate of a resumed run's first step if it differs from the checkpoint's rate."""
        before = trainer.optimizers[0].param_groups[0]["lr"]  # restored from the checkpoint
        now = cast(Any, pl_module).learning_rate_at(trainer.global_step)
        if trainer.is_global_zero and trainer.global_step and not math.isclose(now, before, rel_tol=1e-6):
            change = f"rate    {now:.3g} in step {trainer.global_step + 1}, in place of {before:.3g}"
            print_above_bar(change, sys.stdout)

    def _format_choices(self, trainer: Trainer) -> str:
        reasons = {name: f" ({reason})" for name, reason in self.reasons.items()}
        compiled = "compiled" if "compiled" in self.reasons else "not compiled"
        precision = f"precision {trainer.precision}{reasons.get('precision', '')}"
        return f"{precision}, {compiled}{reasons.get(compiled, '')}"

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the result, and the commands that generate text, start TensorBoard and continue the run."""
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir)
        if (folder / "best.ckpt").is_file():
            evaluation = read_checkpoint(folder / "best.ckpt", mmap=True)["evaluation"]
            seconds = time.perf_counter() - self.start_seconds
            print(
                f"\nbest val loss {evaluation['val/loss']:.4f} at step {evaluation['step']}, "
                f"{seconds:.0f} s in all; {last_sample(folder)}"
            )
        run = shell_path(trainer.default_root_dir)
        is_over = trainer.global_step == trainer.max_steps
        longer = f" --trainer.max_steps {2 * trainer.global_step}" if is_over else ""
        print(f"\ngenerate     {PROGRAM} predict --ckpt_path {run}")
        if any(Path(writer.log_dir) == folder for writer in tensorboard_writers(trainer)):
            print(f"tensorboard  tensorboard --logdir {shell_path(folder.parent)}")
        print(f"continue     {PROGRAM} fit --ckpt_path {run}{longer}", flush=True)


def format_tokens(data: TextDataModule) -> str:
    """Return a text with the numbers of training and validation tokens and the vocabulary size."""
    val_set = data.val_set
    part = "" if val_set.is_full_pass else f"{val_set.n_tokens:,} of "
    other = f" ({data.corpora['val'].name})" if data.val_source is not None else ""
    return (
        f"{len(data.train_tokens):,} to train on, {part}{len(val_set.tokens):,} to validate on{other}, "
        f"vocabulary {data.vocab_size:,}"
    )


def format_length(trainer: Trainer, data: TextDataModule) -> str:
    """Return a text with the length of a run in steps and epochs, and the tokens per step."""
    per_step = f"{data.tokens_per_step:,} tokens a step"
    if trainer.max_steps < 1:
        return f"no last step, {per_step}"
    epochs = trainer.max_steps * data.tokens_per_step / len(data.train_tokens)
    return f"{trainer.max_steps:,} steps, {per_step}, {epochs:.2f} epochs"


def format_device(trainer: Trainer, device: torch.device) -> str:
    """Return a text with the number and the name of the devices, and the number of threads on a CPU."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    threads = f" ({torch.get_num_threads()} threads)" if device.type == "cpu" else ""
    return f"{trainer.world_size} x {name}{threads}" if trainer.world_size > 1 else f"{name}{threads}"


def last_sample(folder: Path) -> str:
    """Return a heading and the last sample in a run folder, or a message that no samples were written."""
    samples = folder / "samples.md"
    if not samples.is_file():
        return "no samples were written"
    last = f"\n{samples.read_text(encoding='utf-8')}".rpartition("\n## Step ")[2]
    return "its last sample:\n\n" + last.partition("\n\n")[2].rstrip()
