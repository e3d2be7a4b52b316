"""Losses of known sources, equality with transformers, and coverage of the confidence intervals."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import lit_gpt_scratch
from helpers.command_line import TINY, Run
from lit_gpt_scratch.api import Model
from lit_gpt_scratch.data.corpus import HAMLET
from lit_gpt_scratch.data.tokenizers import CharTokenizer
from lit_gpt_scratch.evaluation.evaluate import mean_per_unit
from lit_gpt_scratch.model.gpt import GPT, GPTConfig

CHARS = "abcd"
PROBABILITIES = np.array([0.5, 0.25, 0.125, 0.125])
ENTROPY = 1.75 * math.log(2)  # nats


@pytest.fixture
def context_free_model() -> Model:
    """Return a model that predicts CHARS with PROBABILITIES in any context."""
    gpt = GPT(GPTConfig(len(CHARS), block_size=16, n_layer=1, n_head=1, n_embd=8, tie_weights=False))
    with torch.no_grad():
        for parameter in gpt.parameters():
            parameter.zero_()
        gpt.ln_f.bias[0] = 1.0
        gpt.lm_head.weight[:, 0] = torch.tensor(PROBABILITIES).log()
    return Model(gpt.eval(), CharTokenizer(CHARS), Path("context-free"), 0, None)


def test_loss_of_a_known_source_is_its_entropy(context_free_model: Model, tmp_path: Path) -> None:
    n_covered = 0
    for seed in range(40):
        text = "".join(np.random.default_rng(seed).choice(list(CHARS), size=4000, p=PROBABILITIES))
        path = tmp_path / "text.txt"
        path.write_text(text)
        found = lit_gpt_scratch.evaluate(context_free_model, str(path))
        exact = -float(np.log(PROBABILITIES) @ [text[1:].count(char) for char in CHARS]) / 3999
        assert found.loss.value == pytest.approx(exact, rel=1e-6)
        assert found.perplexity.value == pytest.approx(math.exp(exact), rel=1e-6)
        assert found.bits_per_byte.value == pytest.approx(exact / math.log(2), rel=1e-6)
        assert found.n_tokens == found.n_bytes == found.n_characters == 3999
        assert found.loss.low is not None
        assert found.loss.high is not None
        n_covered += found.loss.low < ENTROPY < found.loss.high
    assert n_covered >= 34  # 38 are expected; fewer than 34 have a probability of 1 %


def test_intervals_cover_the_mean_of_correlated_losses() -> None:
    """Losses correlated over twenty tokens, for which an interval from independent tokens is too narrow."""
    rng = np.random.default_rng(0)
    n_covered = 0
    for _ in range(200):
        noise = rng.normal(size=8000)
        drift = np.zeros(8000)
        for i in range(1, 8000):
            drift[i] = 0.9 * drift[i - 1] + noise[i]
        units = rng.integers(1, 4, size=8000)
        estimate = mean_per_unit((2.0 * units + drift).astype(np.float32), units)
        assert estimate.low is not None
        assert estimate.high is not None
        n_covered += estimate.low < 2.0 < estimate.high
    assert 178 <= n_covered <= 199


def test_perplexity_matches_transformers_strided_perplexity(run: Run, hub_folder: Path) -> None:
    from helpers.hub import transformers

    assert run("import", "--from", hub_folder, "--run_dir", "ours").code == 0
    Path("text.txt").write_text(HAMLET)
    model = lit_gpt_scratch.load("ours")
    reference = transformers.GPT2LMHeadModel.from_pretrained(hub_folder).eval()
    ids = torch.from_numpy(model.tokenizer.encode(HAMLET).astype(np.int64))[None]
    for stride in (8, 31):
        nats, n_scored, end_before = 0.0, 0, 0
        for begin in range(0, ids.shape[1], stride):
            end = min(begin + 32, ids.shape[1])
            window, labels = ids[:, begin:end], ids[:, begin:end].clone()
            labels[:, : -(end - end_before)] = -100
            with torch.no_grad():
                mean = reference(window, labels=labels).loss
            n = int((labels[:, 1:] != -100).sum())
            nats, n_scored, end_before = nats + float(mean) * n, n_scored + n, end
            if end == ids.shape[1]:
                break
        done = run("evaluate", "--ckpt_path", "ours", "--corpus", "text.txt", "--stride", stride, "--json")
        (found,) = json.loads(done.out)
        assert found["n_tokens"] == n_scored == ids.shape[1] - 1
        assert found["perplexity"]["value"] == pytest.approx(math.exp(nats / n_scored), rel=1e-4)


@pytest.mark.parametrize("tokenizer", ["char", "byte", "bpe"])
def test_separators_of_documents_count_no_bytes(run: Run, tokenizer: str) -> None:
    """All tokenizers have the same denominators, and bits per byte equal bits per character for ASCII."""
    documents = [f"document {i}: the rest is silence" for i in range(60)]
    Path("docs.jsonl").write_text("".join(json.dumps({"text": each}) + "\n" for each in documents))
    data = ["--data.corpus", "docs.jsonl", "--data.tokenizer", tokenizer, "--data.vocab_size", "300"]
    assert run("fit", *TINY, *data, "--run_dir", "r").code == 0
    (result,) = json.loads(run("evaluate", "--ckpt_path", "r", "--corpus", "docs.jsonl", "--json").out)
    model = lit_gpt_scratch.load("r")
    first = len(model.tokenizer.decode(model.tokenizer.encode(documents[0])[:1]))
    assert result["n_bytes"] == result["n_characters"] == sum(map(len, documents)) - first
    assert result["bits_per_byte"]["value"] == pytest.approx(result["bits_per_character"]["value"])
    total_nats = result["loss"]["value"] * result["n_tokens"]
    assert result["bits_per_byte"]["value"] == pytest.approx(total_nats / math.log(2) / result["n_bytes"])


def test_validation_counts_the_bytes_of_documents(run: Run) -> None:
    documents = ["the rest is silence"] * 60
    Path("docs.jsonl").write_text("".join(json.dumps({"text": each}) + "\n" for each in documents))
    ratios = []
    for tokenizer in ("char", "byte"):
        options = ["--data.corpus", "docs.jsonl", "--data.tokenizer", tokenizer, "--run_dir", tokenizer]
        assert run("fit", *TINY, *options).code == 0
        val = torch.load(f"{tokenizer}/last.ckpt", weights_only=True)["TextDataModule"]["val"]
        ratios.append(val["bytes_per_token"])
    assert ratios[0] == ratios[1] == pytest.approx(113 / 123)  # six documents, two newlines between each


def test_nan_weights_are_reported_in_one_line(run: Run, finished: Path) -> None:
    checkpoint = torch.load(finished / "best.ckpt", weights_only=True)
    for weights in checkpoint["state_dict"].values():
        weights.fill_(math.nan)
    torch.save(checkpoint, "nan.ckpt")
    for command in (
        ["evaluate", "--ckpt_path", "nan.ckpt", "--corpus", "hamlet"],
        ["predict", "--ckpt_path", "nan.ckpt", "--temperature", "0"],
        ["predict", "--ckpt_path", "nan.ckpt", "--num_samples", "2", "--format", "jsonl"],
    ):
        done = run(*command)
        assert done.code == 2
        assert "NaN or infinite" in done.err.splitlines()[-1]
        assert done.err.count("error") == 1


def test_infinite_perplexity_is_null_in_json(run: Run, finished: Path) -> None:
    checkpoint = torch.load(finished / "best.ckpt", weights_only=True)
    checkpoint["state_dict"]["gpt.ln_f.weight"] *= 1e6
    torch.save(checkpoint, "huge.ckpt")
    command = ["evaluate", "--ckpt_path", "huge.ckpt", "--corpus", "hamlet"]
    assert "inf" in run(*command).out
    (result,) = json.loads(run(*command, "--json").out, parse_constant=pytest.fail)
    assert result["loss"]["value"] > 700
    assert result["perplexity"]["value"] is None
