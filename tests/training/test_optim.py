"""AdamW and Muon."""

import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy

from lit_gpt_scratch.model.gpt import GPT, GPTConfig
from lit_gpt_scratch.training import optim
from lit_gpt_scratch.training.optim import Muon, MuonAdamW, make_adamw, make_optimizer, newton_schulz


@pytest.fixture(params=[True, False], ids=["bf16 units", "no bf16 units"])
def bf16_units(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Simulate a CPU with or without bfloat16 units."""
    monkeypatch.setattr(optim, "has_bf16_units", lambda kind: request.param)
    return bool(request.param)


@pytest.mark.usefixtures("bf16_units")
def test_newton_schulz_orthogonalizes_matrices() -> None:
    torch.manual_seed(0)
    matrices = [torch.randn(shape) for shape in ((16, 16), (16, 40), (40, 16), (16, 16))]
    results = newton_schulz(matrices, (3.4445, -4.775, 2.0315), 5)
    for matrix, orthogonal in zip(matrices, results, strict=True):
        assert orthogonal.shape == matrix.shape
        scales = torch.linalg.svdvals(orthogonal.float())
        assert 0.4 < scales.min() < scales.max() < 1.3
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        assert cosine_similarity(orthogonal.flatten(), (left @ right).flatten(), dim=0) > 0.95


def test_newton_schulz_uses_bfloat16_where_the_cpu_has_units(bf16_units: bool) -> None:
    torch.manual_seed(0)
    (orthogonal,) = newton_schulz([torch.randn(16, 40)], (3.4445, -4.775, 2.0315), 5)
    assert torch.equal(orthogonal, orthogonal.bfloat16().float()) == bf16_units


@pytest.mark.usefixtures("bf16_units")
def test_muon_matches_pytorch() -> None:
    """With matrices of equal shapes, which are stacked, and with both precisions."""
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
    first, resumed = GPT(config), GPT(config)
    first.load_state_dict(straight.state_dict())
    muon_run(straight, range(6), muon_of(straight))
    optimizer = muon_of(first)
    muon_run(first, range(3), optimizer)
    resumed.load_state_dict(first.state_dict())
    again = muon_of(resumed)
    again.load_state_dict(optimizer.state_dict())
    muon_run(resumed, range(3, 6), again)
    for name, parameter in straight.state_dict().items():
        assert torch.equal(parameter, resumed.state_dict()[name]), name


def test_weight_decay_applies_to_matrices_only() -> None:
    gpt = GPT(GPTConfig(vocab_size=65))
    decayed, kept = make_adamw(list(gpt.parameters()), (0.9, 0.95), 0.1, fused=True).param_groups
    assert decayed["weight_decay"] == 0.1
    assert kept["weight_decay"] == 0.0
    assert {p.dim() for p in decayed["params"]} == {2}
    assert {p.dim() for p in kept["params"]} == {1}
    assert sum(p.numel() for group in (decayed, kept) for p in group["params"]) == 807_808
