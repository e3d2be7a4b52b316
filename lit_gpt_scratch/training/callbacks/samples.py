"""What the model writes while it learns."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_gpt_scratch.data.tokenizer import encode_prompt
from lit_gpt_scratch.generation.generate import SamplingOptions, generate
from lit_gpt_scratch.model.gpt import GPT
from lit_gpt_scratch.training.parts import data_of, gpt_of, is_fit, tensorboards
from lit_gpt_scratch.training.run_folder import warn_on_os_error
from lit_gpt_scratch.training.sharding import whole_gpt


class Samples(Callback):
    """Writes a sample after each evaluation: to TensorBoard's text tab, and to `samples.md`."""

    def __init__(self, prompt: str = "", seed: int = 1, **options: Any) -> None:
        """Remember how to sample.

        Args:
            prompt: What the model continues; nothing at all stands for a newline.
            seed: Each sample is drawn with the same luck, so that only the model differs.
            **options: The other fields of `SamplingOptions`.
        """
        self.prompt = prompt
        self.options = SamplingOptions(seed=seed, **options)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what the model that has just been evaluated writes."""
        if not is_fit(trainer):
            return
        gpt = whole_gpt(gpt_of(pl_module), trainer.is_global_zero)
        if gpt is None:
            return
        text = self._write(trainer, gpt)
        step, loss = trainer.global_step, float(trainer.callback_metrics["val/loss"])
        indented = "".join(
            f"    {line}\n" for line in text.splitlines()
        )  # Markdown's way to leave text alone
        path = Path(trainer.default_root_dir) / "samples.md"
        with warn_on_os_error(path.name), path.open("a", encoding="utf-8") as samples:
            samples.write(f"## Step {step}, val loss {loss:.4f}\n\n{indented}\n")
        markdown = f"val loss {loss:.4f}\n\n{indented}"
        for writer in tensorboards(trainer):
            writer.add_text("samples", markdown, step)

    def _write(self, trainer: Trainer, gpt: GPT) -> str:
        tokenizer = data_of(trainer).tokenizer
        ids = encode_prompt(tokenizer, self.prompt).tolist()
        (continuation,) = generate(gpt, [ids], self.options).continuations
        return tokenizer.decode(ids + continuation.tokens)
