"""What a checkpoint makes of a text: known losses, transformers' own, and intervals that keep their word."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Run

import lit_gpt_scratch
from lit_gpt_scratch.data.corpus import HAMLET
from lit_gpt_scratch.data.tokenizer import CharTokenizer
from lit_gpt_scratch.model.gpt import GPT, GPTConfig
from lit_gpt_scratch.tools.evaluation import read
from lit_gpt_scratch.tools.loaded import Model
from lit_gpt_scratch.tools.surprise import mean_per_unit, measure, strided_windows

CHARS = "abcd"
PROBABILITIES = np.array([0.5, 0.25, 0.125, 0.125])
ENTROPY = 1.75 * math.log(2)  # nats


def model_that_knows(probabilities: np.ndarray) -> Model:
    """One that expects each token with the same probabilities, whatever came before."""
    gpt = GPT(GPTConfig(len(probabilities), block_size=16, n_layer=1, n_head=1, n_embd=8, tie_weights=False))
    with torch.no_grad():
        for parameter in gpt.parameters():
            parameter.zero_()
        gpt.ln_f.bias[0] = 1.0
        gpt.lm_head.weight[:, 0] = torch.tensor(probabilities).log()
    return Model(gpt.eval(), CharTokenizer(CHARS), Path("knows"), 0, None)


def text_of(seed: int, n_chars: int) -> str:
    return "".join(np.random.default_rng(seed).choice(list(CHARS), size=n_chars, p=PROBABILITIES))


def test_a_source_of_known_entropy(tmp_path: Path) -> None:
    """Of a model that knows the source, the loss is the source's entropy, within the interval."""
    model = model_that_knows(PROBABILITIES)
    inside = 0
    for seed in range(40):
        path = tmp_path / "text.txt"
        path.write_text(text_of(seed, 4000))
        found = lit_gpt_scratch.evaluate(model, str(path))
        counts = [path.read_text()[1:].count(char) for char in CHARS]
        exact = -float(np.log(PROBABILITIES) @ counts) / 3999
        assert found.loss.value == pytest.approx(exact, rel=1e-6)
        assert found.perplexity.value == pytest.approx(math.exp(exact), rel=1e-6)
        assert found.bits_per_byte.value == pytest.approx(exact / math.log(2), rel=1e-6)
        assert found.n_tokens == found.n_bytes == found.n_characters == 3999
        assert found.loss.low is not None
        assert found.loss.high is not None
        inside += found.loss.low < ENTROPY < found.loss.high
    assert inside >= 34  # 38 are to be expected; of fewer than 34 the probability is 1 %


def test_intervals_hold_where_neighbours_are_alike() -> None:
    """Losses that drift for twenty tokens: taken one by one, they would seem much too sure."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        noise = rng.normal(size=8000)
        drift = np.zeros(8000)
        for i in range(1, 8000):
            drift[i] = 0.9 * drift[i - 1] + noise[i]
        units = rng.integers(1, 4, size=8000)
        estimate = mean_per_unit((2.0 * units + drift).astype(np.float32), units)
        assert estimate.low is not None
        assert estimate.high is not None
        inside += estimate.low < 2.0 < estimate.high
    assert 178 <= inside <= 199


@pytest.mark.parametrize(
    ("n_tokens", "block_size", "stride"), [(2, 4, 2), (4, 4, 3), (5, 4, 1), (103, 16, 7)]
)
def test_each_token_but_the_first_is_scored_once(n_tokens: int, block_size: int, stride: int) -> None:
    windows = list(strided_windows(n_tokens, block_size, stride))
    scored = [place for window in windows for place in range(window.first, window.end)]
    assert scored == list(range(1, n_tokens))
    assert all(window.end - window.begin <= block_size for window in windows)
    assert all(window.first - window.begin >= block_size - stride for window in windows[1:-1])


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(50, "modern", block_size=8, n_layer=2, n_head=2, n_embd=16)).eval()
    torch.nn.init.normal_(gpt.h[0].mlp.c_proj.weight)
    ids = np.random.default_rng(0).integers(50, size=101).astype(np.uint16)
    together = measure(gpt, ids, stride=3, n_guesses=2)
    monkeypatch.setattr("lit_gpt_scratch.tools.surprise.TOKENS_AT_ONCE", 8)
    alone = measure(gpt, ids, stride=3, n_guesses=2)
    np.testing.assert_allclose(together.losses, alone.losses, rtol=1e-5)
    np.testing.assert_array_equal(together.guesses, alone.guesses)
    # The fifth token has been read with the four before it.
    logits = gpt(torch.from_numpy(ids[:4].astype(np.int64))[None])[0, -1].detach()
    assert together.losses[3] == pytest.approx(-float(logits.log_softmax(0)[int(ids[4])]), rel=1e-5)
    assert together.guesses[3].tolist() == logits.topk(2).indices.tolist()


def test_it_is_transformers_strided_perplexity(run: Run, hub_folder: Path, tmp_path: Path) -> None:
    from hub import transformers

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


def test_models_of_different_tokenizers_on_one_axis(run: Run, finished: Path, hub_folder: Path) -> None:
    assert run("import", "--from", hub_folder, "--run_dir", "other").code == 0
    done = run("evaluate", "--ckpt_path", finished, "other", "--corpus", "hamlet")
    assert done.code == 0
    assert f"WARNING: {finished}/best.ckpt was trained on a part of this text: validate measures" in done.err
    rows = [re.split(r" {2,}", line) for line in done.out.splitlines()]
    assert rows[0] == ["text", "hamlet"]
    assert rows[2] == ["checkpoint", "tokens", "loss", "perplexity", "bits/byte", "bits/character"]
    assert [row[0] for row in rows[3:5]] == [f"{finished}/best.ckpt", "other/best.ckpt"]
    one, other = json.loads(
        run("evaluate", "--ckpt_path", finished, "other", "--corpus", "hamlet", "--json").out
    )
    assert one["n_bytes"] == len(HAMLET) - 1
    assert other["n_tokens"] < one["n_tokens"]
    for each in (one, other):
        nats = each["loss"]["value"] * each["n_tokens"]
        assert each["bits_per_byte"]["value"] == pytest.approx(nats / math.log(2) / each["n_bytes"])


def test_characters_that_a_model_never_saw(run: Run, finished: Path) -> None:
    """A few are left out and counted; many are an error."""
    Path("plain.txt").write_text(HAMLET * 2)
    Path("few.txt").write_text(HAMLET + "ä€" + HAMLET)
    Path("many.txt").write_text(HAMLET + "ä" * 30)
    evaluated = ("evaluate", "--ckpt_path", finished, "--json", "--corpus")
    (plain,), few = json.loads(run(*evaluated, "plain.txt").out), run(*evaluated, "few.txt")
    (found,) = json.loads(few.out)
    text = Path("few.txt").resolve()
    assert f"{finished}/best.ckpt never saw 2 of 1,214 characters of {text}, such as 'ä' '€'" in few.err
    assert found["n_unknown_characters"] == 2
    assert {**found, "corpus": "", "n_unknown_characters": 0} == {**plain, "corpus": ""}
    many = run(*evaluated, "many.txt")
    assert many.code == 2
    assert "never saw 30 of 636 characters of " in many.err
    assert "more than 1 %" in many.err


def test_the_heatmap_shows_each_token_the_worst_passage_first(run: Run, finished: Path) -> None:
    Path("text.txt").write_text(HAMLET[:300] + "fqmdbxp-" * 10 + HAMLET[300:] + "<b>&amp;".replace("&", ""))
    model = lit_gpt_scratch.load(finished)
    known = "".join(char for char in Path("text.txt").read_text() if not model.tokenizer.unknown(char))
    Path("text.txt").write_text(known)
    args = ("evaluate", "--ckpt_path", finished, "--corpus", "text.txt", "--heatmap", "page.html")
    done = run(*args)
    assert done.code == 0
    assert done.out.endswith("look at it  page.html\n")
    page = Path("page.html").read_text()
    assert not re.search(r"https?://", page)  # it needs nothing else
    losses = [float(loss) for loss in re.findall(r'data-loss="([\d.]+)"', page)]
    assert losses == sorted(losses, reverse=True)
    passages = re.findall(r'<section data-start="(\d+)".*?</section>', page, flags=re.DOTALL)
    assert sorted(map(int, passages)) == list(range(0, len(known) - 1, 100))
    assert 200 <= int(passages[0]) <= 300  # where the nonsense is
    import html

    texts = {
        int(start): "".join(
            map(html.unescape, re.findall(r'title="[^"]*">(.*?)</span>', body, flags=re.DOTALL))
        )
        for start, body in re.findall(r'<section data-start="(\d+)"(.*?)</section>', page, flags=re.DOTALL)
    }
    assert "".join(texts[start] for start in sorted(texts)) == known[1:]
    from lit_gpt_scratch.data.corpus import load_corpus

    reading = read(model, load_corpus("text.txt"), n_guesses=5)
    likeliest = model.tokenizer.decode([int(reading.surprise.guesses[0, 0])])
    share = f"{reading.surprise.probabilities[0, 0]:6.1%}"
    first = re.search(r'<section data-start="0".*?title="([^"]*)"', page, flags=re.DOTALL)
    assert first is not None
    assert f"{share}  {likeliest}" in html.unescape(first[1]).replace("␣", " ").replace("⏎", "\n")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--stride", "0"], "stride must be at least 1 and below the block_size of 32, not 0"),
        (["--stride", "32"], "stride must be at least 1 and below the block_size of 32, not 32"),
        (["--corpus", "nowhere.txt"], "nowhere.txt"),
        (["--corpus", "letter.txt"], "the text has 1 token: there is nothing to predict"),
        (["--ckpt_path", "nowhere"], "no such checkpoint: nowhere"),
        (["--heatmap", "no/page.html"], "cannot write no/page.html: there is no folder no"),
    ],
)
def test_mistakes(run: Run, finished: Path, args: list[str], message: str) -> None:
    Path("letter.txt").write_text("a")
    done = run("evaluate", "--ckpt_path", finished, "--corpus", "hamlet", *args)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("error:") == 1


def test_one_heatmap_is_of_one_checkpoint(run: Run, finished: Path) -> None:
    done = run("evaluate", "--ckpt_path", finished, finished, "--corpus", "hamlet", "--heatmap", "p.html")
    assert (done.code, done.err) == (2, "error: --heatmap is of one checkpoint: give one --ckpt_path\n")


def test_from_python(finished: Path) -> None:
    model = lit_gpt_scratch.load(finished)
    assert model.n_parameters == 27_488
    assert model.step == 40
    text = lit_gpt_scratch.generate(model, "To be", max_new_tokens=12, seed=3)
    assert len(text) == 12
    assert text == lit_gpt_scratch.generate(model, "To be", max_new_tokens=12, seed=3)
    found = lit_gpt_scratch.evaluate(model, "hamlet", stride=16)
    assert 1 < found.perplexity.value < 39
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        _ = lit_gpt_scratch.train  # type: ignore[attr-defined]  # which is the point


def test_what_cannot_be_done_is_said_before_the_work(run: Run, finished: Path) -> None:
    Path("page").mkdir()
    for args, wrong in (
        (["--ckpt_path", finished, "none"], "no such checkpoint: none"),
        (["--ckpt_path", finished, "--heatmap", "page"], "cannot write page: it is a folder"),
        (["--ckpt_path", finished, "--stride", "abc"], "stride takes int or null, not 'abc'"),
    ):
        done = run("evaluate", "--corpus", "hamlet", *args)
        assert (done.code, done.out, done.err) == (2, "", f"error: {wrong}\n")


def test_from_python_a_path_is_a_text_and_an_option_must_exist(finished: Path, tmp_path: Path) -> None:
    text = tmp_path / "own.txt"
    text.write_text(HAMLET)
    model = lit_gpt_scratch.load(finished)
    assert lit_gpt_scratch.evaluate(model, text).n_characters == len(HAMLET) - 1
    with pytest.raises(ValueError, match="no such option: stop; there are max_new_tokens, "):
        lit_gpt_scratch.generate(model, "To be", stop=["e"])
