"""LitGPT: equality with a plain training loop, and gradients of micro-batches."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

from helpers.checkpoints import last_checkpoint
from helpers.command_line import TINY, Run
from helpers.precision import BF16_TOLERANCE
from lit_gpt_scratch.data.batches import gather, random_starts
from lit_gpt_scratch.data.corpus import HAMLET
from lit_gpt_scratch.data.tokenizers import CharTokenizer
from lit_gpt_scratch.model.gpt import GPT, GPTConfig
from lit_gpt_scratch.training.callbacks import StepControl
from lit_gpt_scratch.training.lr_schedule import learning_rate
from lit_gpt_scratch.training.module import LitGPT


def test_run_equals_a_plain_training_loop(run: Run, tmp_path: Path) -> None:
    """Trainer, micro-batches and callbacks do not change the result."""
    steps = 12
    args = ["--data.micro_batch_size", "3", "--trainer.max_steps", str(steps)]
    assert run("fit", *TINY, *args, "--seed_everything", "5", "--run_dir", tmp_path / "run").code == 0
    trained = last_checkpoint(tmp_path / "run")

    torch.manual_seed(5)
    tokens = CharTokenizer(HAMLET).encode(HAMLET)
    tokens = tokens[: int(0.9 * len(tokens))]
    vocab_size = trained["hyper_parameters"]["vocab_size"]
    gpt = GPT(GPTConfig(vocab_size=vocab_size, block_size=32, n_layer=2, n_head=2, n_embd=32))
    matrices = [p for p in gpt.parameters() if p.dim() == 2]
    vectors = {"params": [p for p in gpt.parameters() if p.dim() < 2], "weight_decay": 0.0}
    optimizer = torch.optim.AdamW([{"params": matrices}, vectors], betas=(0.9, 0.95), weight_decay=0.1)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate("cosine", step, 3e-3, 3e-4, 10, steps)
        inputs, targets = gather(tokens, random_starts(len(tokens), 32, 8, seed=5, step=step), 32)
        cross_entropy(gpt(inputs).flatten(0, 1), targets.flatten()).backward()
        clip_grad_norm_(gpt.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    for name, parameter in gpt.state_dict().items():
        torch.testing.assert_close(trained["state_dict"][f"gpt.{name}"], parameter, atol=2e-5, rtol=1e-4)


def gradients_of_first_step(
    run: Run, monkeypatch: pytest.MonkeyPatch, *options: str
) -> dict[str, torch.Tensor]:
    found: list[dict[str, torch.Tensor]] = []

    def store_gradients(self: StepControl, trainer: Trainer, pl_module: LitGPT, optimizer: Any) -> None:
        found.append({name: p.grad.clone() for name, p in pl_module.named_parameters() if p.grad is not None})

    monkeypatch.setattr(StepControl, "on_before_optimizer_step", store_gradients)
    assert run("fit", *TINY, "--trainer.max_steps", "1", *options).code == 0
    (gradients,) = found
    return gradients


@pytest.mark.parametrize("size", [4, 3, 1])
@pytest.mark.parametrize(("precision", "tolerance"), [("32-true", 1e-5), ("bf16-mixed", BF16_TOLERANCE)])
def test_gradients_do_not_depend_on_the_micro_batch_size(
    run: Run, monkeypatch: pytest.MonkeyPatch, precision: str, tolerance: float, size: int
) -> None:
    options = ["--precision", precision, "--data.micro_batch_size"]
    whole, cut = (gradients_of_first_step(run, monkeypatch, *options, str(n)) for n in (8, size))
    assert cut.keys() == whole.keys()
    for name, gradient in cut.items():
        assert (gradient - whole[name]).norm() <= tolerance * whole[name].norm(), name
