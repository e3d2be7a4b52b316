"""`evaluate`: known losses, transformers' losses, coverage of the intervals, and the heat map."""

import html
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import lit_gpt_scratch
from helpers.command_line import Run
from lit_gpt_scratch.api import Model
from lit_gpt_scratch.data.corpus import HAMLET, load_corpus
from lit_gpt_scratch.data.tokenizers import CharTokenizer
from lit_gpt_scratch.evaluation.evaluate import evaluate_corpus, mean_per_unit
from lit_gpt_scratch.evaluation.scoring import score_tokens, strided_windows
from lit_gpt_scratch.model.gpt import GPT, GPTConfig

CHARS = "abcd"
PROBABILITIES = np.array([0.5, 0.25, 0.125, 0.125])
ENTROPY = 1.75 * math.log(2)  # nats


@pytest.fixture
def context_free_model() -> Model:
    """A model that predicts CHARS with PROBABILITIES in any context."""
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
    assert n_covered >= 34  # 38 are to be expected; of fewer than 34 the probability is 1 %


def test_intervals_cover_the_mean_of_correlated_losses() -> None:
    """Losses that are correlated over twenty tokens: an interval from single tokens would be too narrow."""
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


@pytest.mark.parametrize("n_tokens", [2, 4, 5, 6, 29, 103])
@pytest.mark.parametrize(("block_size", "stride"), [(4, 2), (4, 3), (4, 1), (16, 7)])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_each_token_but_the_first_is_scored_once(
    n_tokens: int, block_size: int, stride: int, batch_size: int
) -> None:
    scored: list[int] = []
    for positions, is_scored in strided_windows(n_tokens, block_size, stride, batch_size):
        assert len(positions) <= batch_size
        for window, mask in zip(positions, is_scored, strict=True):
            assert len(window) <= block_size
            new = window[mask].tolist()
            assert not scored or new[0] - window[0] >= block_size - stride  # context
            scored += new
    assert scored == list(range(1, n_tokens))


def test_batches_do_not_change_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(50, "modern", block_size=8, n_layer=2, n_head=2, n_embd=16)).eval()
    torch.nn.init.normal_(gpt.h[0].mlp.c_proj.weight)
    ids = np.random.default_rng(0).integers(50, size=101).astype(np.uint16)
    together = score_tokens(gpt, ids, stride=3, n_guesses=2)
    monkeypatch.setattr("lit_gpt_scratch.evaluation.scoring.MAX_BATCH_TOKENS", 8)
    alone = score_tokens(gpt, ids, stride=3, n_guesses=2)
    np.testing.assert_allclose(together.losses, alone.losses, rtol=1e-5)
    np.testing.assert_array_equal(together.guesses, alone.guesses)
    # The fifth token is scored with the four before it.
    logits = gpt(torch.from_numpy(ids[:4].astype(np.int64))[None])[0, -1].detach()
    assert together.losses[3] == pytest.approx(-float(logits.log_softmax(0)[int(ids[4])]), rel=1e-5)
    top = logits.softmax(0).topk(2)
    assert together.guesses[3].tolist() == top.indices.tolist()
    np.testing.assert_allclose(together.probabilities[3], top.values, rtol=1e-5)


def test_perplexity_is_transformers_strided_perplexity(run: Run, hub_folder: Path) -> None:
    from helpers.hub import transformers

    assert run("import", "--from", hub_folder, "--run_dir", "ours").code == 0
    Path("text.txt").write_text(HAMLET)
    model = lit_gpt_scratch.load("ours")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(hub_folder).eval()
    ids = torch.from_numpy(model.tokenizer.encode(HAMLET).astype(np.int64))[None]
    for stride in (8, 31):
        nats, n_scored, end_before = 0.0, 0, 0
        for begin in range(0, ids.shape[1], stride):
            end = min(begin + 32, ids.shape[1])
            window, labels = ids[:, begin:end], ids[:, begin:end].clone()
            labels[:, : -(end - end_before)] = -100
            with torch.no_grad():
                mean = theirs(window, labels=labels).loss
            n = int((labels[:, 1:] != -100).sum())
            nats, n_scored, end_before = nats + float(mean) * n, n_scored + n, end
            if end == ids.shape[1]:
                break
        done = run("evaluate", "--ckpt_path", "ours", "--corpus", "text.txt", "--stride", stride, "--json")
        (found,) = json.loads(done.out)
        assert found["n_tokens"] == n_scored == ids.shape[1] - 1
        assert found["perplexity"]["value"] == pytest.approx(math.exp(nats / n_scored), rel=1e-4)


def test_models_of_different_tokenizers_are_compared_in_bits_per_byte(
    run: Run, finished: Path, hub_folder: Path
) -> None:
    assert run("import", "--from", hub_folder, "--run_dir", "other").code == 0
    args = ("evaluate", "--ckpt_path", finished, "other", "--corpus", "hamlet")
    done = run(*args)
    assert done.code == 0
    assert f"WARNING: {finished}/best.ckpt was trained on a part of this text: validate measures" in done.err
    rows = [re.split(r" {2,}", line) for line in done.out.splitlines()]
    assert rows[0] == ["text", "hamlet"]
    assert rows[2] == ["checkpoint", "tokens", "loss", "perplexity", "bits/byte", "bits/character"]
    assert [row[0] for row in rows[3:5]] == [f"{finished}/best.ckpt", "other/best.ckpt"]
    one, other = json.loads(run(*args, "--json").out)
    assert one["n_bytes"] == len(HAMLET) - 1
    assert other["n_tokens"] < one["n_tokens"]
    for each in (one, other):
        nats = each["loss"]["value"] * each["n_tokens"]
        assert each["bits_per_byte"]["value"] == pytest.approx(nats / math.log(2) / each["n_bytes"])


def test_few_unknown_characters_are_left_out_and_many_are_an_error(run: Run, finished: Path) -> None:
    Path("plain.txt").write_text(HAMLET * 2)
    Path("few.txt").write_text(HAMLET + "ä€" + HAMLET)
    Path("many.txt").write_text(HAMLET + "ä" * 30)
    args = ("evaluate", "--ckpt_path", finished, "--json", "--corpus")
    (plain,), few = json.loads(run(*args, "plain.txt").out), run(*args, "few.txt")
    (found,) = json.loads(few.out)
    unknown = f"are unknown to the tokenizer of {finished}/best.ckpt, such as 'ä'"
    assert f"2 of 1,214 characters of {Path('few.txt').resolve()} {unknown} '€': they are left out" in few.err
    assert found["n_unknown_characters"] == 2
    assert {**found, "corpus": "", "n_unknown_characters": 0} == {**plain, "corpus": ""}
    many = run(*args, "many.txt")
    assert many.code == 2
    assert f"30 of 636 characters of {Path('many.txt').resolve()} {unknown}: more than 1 %" in many.err


def test_heatmap_shows_each_token_and_the_highest_loss_first(run: Run, finished: Path) -> None:
    model = lit_gpt_scratch.load(finished)
    text = HAMLET[:300] + "fqmdbxp-" * 10 + HAMLET[300:] + "<b>"
    text = "".join(char for char in text if not model.tokenizer.unknown(char))
    Path("text.txt").write_text(text)
    args = ("evaluate", "--ckpt_path", finished, "--corpus", "text.txt", "--heatmap", "page.html")
    done = run(*args)
    assert done.code == 0
    assert done.out.endswith("heat map  page.html\n")
    page = Path("page.html").read_text()
    assert not re.search(r"https?://", page)  # it needs no other file
    losses = [float(loss) for loss in re.findall(r'data-loss="([\d.]+)"', page)]
    assert losses == sorted(losses, reverse=True)
    passages = {
        int(start): [
            (html.unescape(title), html.unescape(token))
            for title, token in re.findall(r'title="([^"]*)">(.*?)</span>', body, flags=re.DOTALL)
        ]
        for start, body in re.findall(r'<section data-start="(\d+)"(.*?)</section>', page, flags=re.DOTALL)
    }
    assert sorted(passages) == list(range(0, len(text) - 1, 100))
    assert 200 <= next(iter(passages)) <= 300  # the passage of random letters
    assert "".join(token for start in sorted(passages) for _, token in passages[start]) == text[1:]
    _, scores = evaluate_corpus(model, load_corpus("text.txt"), n_guesses=5)
    likeliest = model.tokenizer.decode([int(scores.guesses[0, 0])])
    title = passages[0][0][0].replace("␣", " ").replace("⏎", "\n")
    assert f"{scores.probabilities[0, 0]:6.1%}  {likeliest}" in title


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--stride", "0"], "stride must be at least 1 and below the block_size of 32, not 0"),
        (["--stride", "32"], "stride must be at least 1 and below the block_size of 32, not 32"),
        (["--stride", "abc"], "stride takes int or null, not 'abc'"),
        (["--corpus", "letter.txt"], "the text has 1 token: there is nothing to predict"),
        (
            ["--corpus", "nowhere.txt"],
            "no such text: 'nowhere.txt' is no file, no folder and none of shakespeare, python_docs, hamlet",
        ),
        (["--ckpt_path", ".", "nowhere"], "no such checkpoint: nowhere"),
        (["--heatmap", "no/page.html"], "cannot write no/page.html: there is no folder no"),
        (["--heatmap", "folder"], "cannot write folder: it is a folder"),
        (["--ckpt_path", ".", ".", "--heatmap", "p"], "--heatmap is of one checkpoint: give one --ckpt_path"),
    ],
)
def test_invalid_option_exits_2_with_one_line(
    run: Run, finished: Path, args: list[str], message: str
) -> None:
    Path("letter.txt").write_text("a")
    Path("folder").mkdir()
    Path("best.ckpt").symlink_to(finished / "best.ckpt")
    done = run("evaluate", "--ckpt_path", ".", "--corpus", "hamlet", *args)
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[-1] == f"error: {message}"


def test_python_api_loads_generates_and_evaluates(finished: Path, tmp_path: Path) -> None:
    model = lit_gpt_scratch.load(finished)
    assert (model.n_parameters, model.step) == (27_488, 40)
    text = lit_gpt_scratch.generate(model, "To be", max_new_tokens=12, seed=3)
    assert len(text) == 12
    assert text == lit_gpt_scratch.generate(model, "To be", max_new_tokens=12, seed=3)
    path = tmp_path / "own.txt"
    path.write_text(HAMLET)
    found = lit_gpt_scratch.evaluate(model, path, stride=16)
    assert found.n_characters == len(HAMLET) - 1
    assert found.loss == lit_gpt_scratch.evaluate(model, "hamlet", stride=16).loss
    assert 1 < found.perplexity.value < 39
    with pytest.raises(ValueError, match="no such option: stop; there are max_new_tokens, "):
        lit_gpt_scratch.generate(model, "To be", stop=["e"])
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        _ = lit_gpt_scratch.train  # type: ignore[attr-defined]
