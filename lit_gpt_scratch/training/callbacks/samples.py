"""Write text samples during training."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_gpt_scratch.data.tokenizers import encode_prompt
from lit_gpt_scratch.generation.generate import SamplingOptions, generate_tokens
from lit_gpt_scratch.training.fsdp import gather_gpt
from lit_gpt_scratch.training.run_folder import warn_on_os_error
from lit_gpt_scratch.training.trainer_state import get_data, get_gpt, is_fitting, tensorboard_writers


class Samples(Callback):
    """Write a sample after each evaluation to `samples.md` and to TensorBoard."""

    def __init__(self, prompt: str = "", seed: int = 1, **options: Any) -> None:
        """Set the sampling options.

        Args:
            prompt: Text to continue; an empty prompt stands for a newline.
            seed: Random seed, the same for every sample, so that samples differ only because the weights do.
            **options: The other fields of `SamplingOptions`.
        """
        self.prompt = prompt
        self.options = SamplingOptions(seed=seed, **options)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write a sample of the evaluated model."""
        if not is_fitting(trainer):
            return
        gpt = gather_gpt(get_gpt(pl_module), trainer.is_global_zero)
        if gpt is None:
            return
        tokenizer = get_data(trainer).tokenizer
        ids = encode_prompt(tokenizer, self.prompt).tolist()
        (continuation,) = generate_tokens(gpt, [ids], self.options).continuations
        text = tokenizer.decode(ids + continuation.tokens)
        code = "".join(f"    {line}\n" for line in text.splitlines())  # a Markdown code block
        step, loss = trainer.global_step, float(trainer.callback_metrics["val/loss"])
        path = Path(trainer.default_root_dir) / "samples.md"
        with warn_on_os_error(path.name), path.open("a", encoding="utf-8") as file:
            file.write(f"## Step {step}, val loss {loss:.4f}\n\n{code}\n")
        for writer in tensorboard_writers(trainer):
            writer.add_text("samples", f"val loss {loss:.4f}\n\n{code}", step)
