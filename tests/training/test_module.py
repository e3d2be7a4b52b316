"""Learning-rate schedules, optimizers, metrics, and the equality of a run and a plain training loop."""

import math
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
from lit_gpt_scratch.training import optim
from lit_gpt_scratch.training.callbacks import StepControl
from lit_gpt_scratch.training.lr_schedule import learning_rate
from lit_gpt_scratch.training.metrics import bits_per_byte, perplexity, train_flops_per_token
from lit_gpt_scratch.training.module import LitGPT
from lit_gpt_scratch.training.optim import Muon, MuonAdamW, adamw, make_optimizer, newton_schulz


def rate(schedule: str, step: int, warmup: int = 10, end: int = 110) -> float:
    return learning_rate(schedule, step, peak=1.0, floor=0.1, warmup_steps=warmup, decay_steps=end)


@pytest.mark.parametrize(("schedule", "half"), [("cosine", 0.55), ("linear", 0.55), ("wsd", 1.0)])
def test_schedules_at_warmup_and_decay_ends(schedule: str, half: float) -> None:
    assert rate(schedule, 0) == pytest.approx(1 / 11)  # the first step trains
    assert rate(schedule, 10) == 1.0
    assert rate(schedule, 60) == pytest.approx(half)
    assert rate(schedule, 110) == rate(schedule, 10_000) == 0.1
    rates = [rate(schedule, step) for step in range(111)]
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_schedules_during_decay() -> None:
    assert rate("cosine", 35) == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi / 4)))
    assert rate("linear", 35) == pytest.approx(0.775)
    assert rate("wsd", 88) == 1.0
    assert rate("wsd", 99) == pytest.approx(0.55)  # half of the last fifth
    assert {rate("constant", step) for step in (10, 60, 10_000)} == {1.0}


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd"])
def test_a_schedule_without_warmup_or_decay(schedule: str) -> None:
    assert rate(schedule, 0, warmup=0, end=100) == 1.0
    assert rate(schedule, 50, warmup=50, end=50) == 0.1


@pytest.fixture(params=[True, False], ids=["bf16 units", "no bf16 units"])
def bf16_units(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Simulate a CPU with or without bfloat16 units."""
    monkeypatch.setattr(optim, "has_bf16_units", lambda kind: request.param)
    return bool(request.param)


@pytest.mark.usefixtures("bf16_units")
def test_newton_schulz_orthogonalizes_matrices() -> None:
    torch.manual_seed(0)
    matrices = [torch.randn(shape) for shape in ((16, 16), (16, 40), (40, 16), (16, 16))]
    for matrix, made in zip(matrices, newton_schulz(matrices, (3.4445, -4.775, 2.0315), 5), strict=True):
        assert made.shape == matrix.shape
        scales = torch.linalg.svdvals(made.float())
        assert 0.4 < scales.min() < scales.max() < 1.3
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        assert torch.nn.functional.cosine_similarity(made.flatten(), (left @ right).flatten(), dim=0) > 0.95


def test_newton_schulz_uses_bfloat16_where_the_cpu_has_units(bf16_units: bool) -> None:
    torch.manual_seed(0)
    (made,) = newton_schulz([torch.randn(16, 40)], (3.4445, -4.775, 2.0315), 5)
    assert torch.equal(made, made.bfloat16().float()) == bf16_units


@pytest.mark.usefixtures("bf16_units")
def test_muon_matches_pytorchs() -> None:
    """With stacked matrices, in both precisions."""
    torch.manual_seed(0)
    shapes = [(8, 24), (24, 8), (16, 16), (16, 16)]
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    optimizers = Muon(ours, lr=0.02), torch.optim.Muon(theirs, lr=0.02)
    for _ in range(3):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=2e-3, rtol=0)


def muon_run(gpt: GPT, steps: range, optimizer: MuonAdamW) -> None:
    for step in steps:
        torch.manual_seed(step)
        idx = torch.randint(65, (2, 9))
        cross_entropy(gpt(idx[:, :-1]).flatten(0, 1), idx[:, 1:].flatten()).backward()
        for group in optimizer.param_groups:
            group["lr"] = 0.01
        optimizer.step()
        optimizer.zero_grad()


def muon_of(gpt: GPT) -> MuonAdamW:
    optimizer = make_optimizer(gpt, "muon", (0.9, 0.95), 0.1, fused=True)
    assert isinstance(optimizer, MuonAdamW)
    return optimizer


def test_muon_with_adamw_resumes_bit_identically() -> None:
    config = GPTConfig(vocab_size=65, arch="modern", block_size=8, n_layer=2, n_head=2, n_embd=16)
    torch.manual_seed(0)
    straight = GPT(config)
    begun, resumed = GPT(config), GPT(config)
    begun.load_state_dict(straight.state_dict())
    muon_run(straight, range(6), muon_of(straight))
    optimizer = muon_of(begun)
    muon_run(begun, range(3), optimizer)
    resumed.load_state_dict(begun.state_dict())
    again = muon_of(resumed)
    again.load_state_dict(optimizer.state_dict())
    muon_run(resumed, range(3, 6), again)
    for name, parameter in straight.state_dict().items():
        assert torch.equal(parameter, resumed.state_dict()[name]), name


def test_only_matrices_decay() -> None:
    gpt = GPT(GPTConfig(vocab_size=65))
    decayed, kept = adamw(list(gpt.parameters()), (0.9, 0.95), 0.1, fused=True).param_groups
    assert decayed["weight_decay"] == 0.1
    assert kept["weight_decay"] == 0.0
    assert {p.dim() for p in decayed["params"]} == {2}
    assert {p.dim() for p in kept["params"]} == {1}
    assert sum(p.numel() for group in (decayed, kept) for p in group["params"]) == 807_808


def test_perplexity_and_bits_per_byte() -> None:
    assert perplexity(math.log(65)) == pytest.approx(65)
    assert perplexity(1e6) == math.inf
    assert bits_per_byte(math.log(256), bytes_per_token=1) == pytest.approx(8)  # a byte of noise has 8 bits
    assert bits_per_byte(math.log(256), bytes_per_token=4) == pytest.approx(2)


def test_flops_of_gpt2_small() -> None:
    with torch.device("meta"):
        sizes = {"block_size": 1024, "n_layer": 12, "n_head": 12, "n_embd": 768}
        gpt = GPT(GPTConfig(vocab_size=50257, attn_bias=True, **sizes))
    assert train_flops_per_token(gpt) == 6 * (124_439_808 - 1024 * 768) + 12 * 12 * 768 * 1024


def test_a_run_equals_a_plain_training_loop(run: Run, tmp_path: Path) -> None:
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

    def keep(self: StepControl, trainer: Trainer, pl_module: LitGPT, optimizer: Any) -> None:
        found.append({name: p.grad.clone() for name, p in pl_module.named_parameters() if p.grad is not None})

    monkeypatch.setattr(StepControl, "on_before_optimizer_step", keep)
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
