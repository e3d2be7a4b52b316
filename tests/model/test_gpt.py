"""GPT: parameter counts, causality, initialization."""

import math

import pytest
import torch

from helpers.marks import needs_compiler
from lit_gpt_scratch.model.gpt import GPT, GPTConfig
from lit_gpt_scratch.model.layers import dropout
from lit_gpt_scratch.training.loss import cross_entropy

TINY = GPTConfig(vocab_size=50, block_size=16, n_layer=2, n_head=2, n_embd=32)
MODERN = GPTConfig(
    vocab_size=50,
    arch="modern",
    block_size=16,
    n_layer=2,
    n_head=4,
    n_kv_head=2,
    n_embd=32,
    tie_weights=False,
)


@pytest.fixture(params=[TINY, MODERN], ids=["gpt2", "modern"])
def gpt(request: pytest.FixtureRequest) -> GPT:
    torch.manual_seed(0)
    gpt = GPT(request.param).eval()
    for name, parameter in gpt.named_parameters():
        if name.endswith("c_proj.weight"):  # zero at the start in modern: blocks would have no effect
            torch.nn.init.normal_(parameter, std=0.02)
    return gpt


def n_parameters(config: GPTConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in GPT(config).parameters())


def test_parameter_counts_of_known_models() -> None:
    assert n_parameters(GPTConfig(vocab_size=65)) == 807_808  # the first tutorial's model
    gpt2 = GPTConfig(vocab_size=50257, block_size=1024, n_layer=12, n_head=12, n_embd=768, attn_bias=True)
    assert n_parameters(gpt2) == 124_439_808  # GPT-2 small


def test_parameter_counts_follow_the_options() -> None:
    base = n_parameters(TINY)
    options = {
        name: getattr(TINY, name) for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd")
    }
    assert n_parameters(GPTConfig(**options, tie_weights=False)) == base + 50 * 32
    assert n_parameters(GPTConfig(**options, attn_bias=True)) == base + 2 * (3 * 32 + 32)
    assert n_parameters(GPTConfig(**options, bias=False)) == base - 2 * (2 * 32 + 4 * 32 + 32) - 32


def test_parameter_count_of_modern() -> None:
    """Embedding; in each block queries and output, keys and values, three MLP matrices and four norms."""
    width, inner = 128, 352  # 8/3 of the width, rounded up to a multiple of 32
    block = 2 * width**2 + 2 * width * width // 2 + 3 * width * inner + 2 * width + 2 * width // 4
    config = GPTConfig(vocab_size=65, arch="modern", n_kv_head=2)
    assert n_parameters(config) == 65 * width + 4 * block + width
    assert n_parameters(GPTConfig(vocab_size=65, arch="modern")) == 812_544


def parameter_names(config: GPTConfig) -> set[str]:
    names = GPT(config).state_dict()
    return {name.replace("h.0.", "h.N.") for name in names if not name.startswith("h.1.")}


def test_gpt2_parameter_names() -> None:
    names = parameter_names(TINY)
    assert names == {
        "wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias", "lm_head.weight",
        "h.N.ln_1.weight", "h.N.ln_1.bias", "h.N.attn.c_attn.weight", "h.N.attn.c_proj.weight",
        "h.N.ln_2.weight", "h.N.ln_2.bias", "h.N.mlp.c_fc.weight", "h.N.mlp.c_fc.bias",
        "h.N.mlp.c_proj.weight", "h.N.mlp.c_proj.bias",
    }  # fmt: skip


@torch.no_grad()
def test_attention_is_causal(gpt: GPT) -> None:
    idx = torch.randint(50, (3, 16))
    changed = idx.clone()
    changed[:, 9] = (changed[:, 9] + 1) % 50
    before, after = gpt(idx), gpt(changed)
    assert torch.equal(before[:, :9], after[:, :9])
    assert (before[:, 9:] - after[:, 9:]).abs().amax(dim=-1).min() > 1e-6


@torch.no_grad()
def test_logits_depend_on_the_order_of_earlier_tokens(gpt: GPT) -> None:
    idx = torch.arange(16)[None]
    swapped = idx.clone()
    swapped[0, [2, 5]] = swapped[0, [5, 2]]
    assert (gpt(idx)[0, -1] - gpt(swapped)[0, -1]).abs().max() > 1e-6


@torch.no_grad()
def test_attention_equals_softmax_of_scaled_scores() -> None:
    attention, x = GPT(TINY).h[0].attn, torch.randn(2, 16, 32)
    q, k, v = (part.view(2, 16, 2, 16).transpose(1, 2) for part in attention.c_attn(x).split(32, dim=2))
    scores = (q @ k.transpose(2, 3)) * 16**-0.5
    scores = scores.masked_fill(~torch.ones(16, 16, dtype=torch.bool).tril(), float("-inf"))
    expected = attention.c_proj((scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(2, 16, 32))
    torch.testing.assert_close(attention(x, None), expected, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_initial_block_of_modern_is_the_identity() -> None:
    gpt, x = GPT(MODERN), torch.randn(2, 16, 32)
    assert torch.equal(gpt.h[0](x, gpt.rope), x)
    assert not torch.equal(GPT(TINY).h[0](x, None), x)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("arch", ["gpt2", "modern"])
def test_block_with_dropout_compiles_to_one_graph(arch: str) -> None:
    """PyTorch has crashed on dangling views that it passed across graph breaks."""
    torch._dynamo.reset()
    gpt = GPT(GPTConfig(vocab_size=50, arch=arch, block_size=16, n_layer=1, n_head=2, n_embd=32, dropout=0.5))
    block = torch.compile(gpt.h[0], fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 16, 32)
    rope = gpt.rope if arch == "modern" else None
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(block(x, rope))
        outputs[-1].sum().backward()
    assert torch.equal(outputs[0], outputs[1])
    if arch == "gpt2":  # the initial block of modern is the identity
        assert not torch.equal(outputs[0], outputs[2])
    compiled = torch.compile(dropout, fullgraph=True)
    dropped = compiled(torch.ones(500, 800), 0.1, training=True) == 0
    assert float(dropped.float().mean()) == pytest.approx(0.1, abs=0.005)
    assert float(dropped[:, ::4].float().mean()) == pytest.approx(0.1, abs=0.01)


@torch.no_grad()
@pytest.mark.parametrize(("arch", "n_embd"), [("gpt2", 32), ("modern", 32), ("modern", 512)])
def test_initial_loss_is_ln_v(arch: str, n_embd: int) -> None:
    """Also if the target is the input token, which the tied head of a wide GPT-2 favours."""
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(vocab_size=50, arch=arch, block_size=16, n_layer=2, n_head=2, n_embd=n_embd)).eval()
    idx = torch.randint(50, (8, 16))
    assert float(cross_entropy(gpt(idx), idx)) == pytest.approx(math.log(50), abs=0.6)
    assert float(cross_entropy(gpt(idx), torch.randint(50, (8, 16)))) == pytest.approx(math.log(50), abs=0.1)


@torch.no_grad()
def test_residual_projections_have_a_smaller_initial_scale() -> None:
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(vocab_size=50, n_layer=8, n_head=4, n_embd=128))
    for block in gpt.h:
        assert block.mlp.c_fc.weight.std() == pytest.approx(0.02, rel=0.05)
        assert block.mlp.c_proj.weight.std() == pytest.approx(0.02 / 4, rel=0.05)
        assert block.attn.c_proj.weight.std() == pytest.approx(0.02 / 4, rel=0.05)


def test_tied_weights_share_one_parameter() -> None:
    gpt = GPT(TINY)
    assert gpt.lm_head.weight is gpt.wte.weight


@torch.no_grad()
@pytest.mark.parametrize("arch", ["gpt2", "modern"])
def test_dropout_is_off_in_evaluation_mode(arch: str) -> None:
    gpt = GPT(GPTConfig(vocab_size=50, arch=arch, block_size=16, n_layer=2, n_head=2, n_embd=32, dropout=0.5))
    idx = torch.randint(50, (2, 16))
    assert not torch.equal(gpt(idx), gpt(idx))
    gpt.eval()
    assert torch.equal(gpt(idx), gpt(idx))


def test_more_tokens_than_block_size_are_rejected(gpt: GPT) -> None:
    with pytest.raises(ValueError, match="17 tokens do not fit into a block of 16"):
        gpt(torch.zeros(1, 17, dtype=torch.long))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_embd": 130}, "n_embd .130. must be a multiple of model.n_head .4.: try 128"),
        ({"n_layer": 0}, "n_layer must be at least 1"),
        ({"block_size": -1}, "block_size must be at least 1"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"n_kv_head": 2}, "model.n_kv_head is for model.arch modern"),
        ({"n_kv_head": 3, "arch": "modern"}, "n_kv_head .3. must divide model.n_head .4."),
        ({"n_embd": 12, "arch": "modern"}, "must be even, not 3"),
        ({"attn_bias": True, "arch": "modern"}, "modern has no biases"),
    ],
)
def test_invalid_gpt_config_is_rejected(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GPTConfig(vocab_size=65, **options)
