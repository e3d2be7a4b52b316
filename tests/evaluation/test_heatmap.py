"""Heat maps of the loss."""

import html
import re
from pathlib import Path

import numpy as np

import lit_gpt_scratch
from helpers.command_line import Run
from lit_gpt_scratch.data.corpus import HAMLET, load_corpus
from lit_gpt_scratch.data.tokenizers import ByteTokenizer
from lit_gpt_scratch.evaluation import heatmap
from lit_gpt_scratch.evaluation.evaluate import evaluate_corpus
from lit_gpt_scratch.evaluation.scoring import TokenScores
from lit_gpt_scratch.generation.detokenizer import Detokenizer


def test_heatmap_shows_each_token_and_the_highest_loss_first(run: Run, finished: Path) -> None:
    model = lit_gpt_scratch.load(finished)
    text = HAMLET[:300] + "fqmdbxp-" * 10 + HAMLET[300:] + "<b>"
    text = "".join(char for char in text if not model.tokenizer.unknown_chars(char))
    Path("text.txt").write_text(text)
    args = ("evaluate", "--ckpt_path", finished, "--corpus", "text.txt", "--heatmap", "page.html")
    done = run(*args)
    assert done.code == 0
    assert done.out.endswith("heat map  page.html\n")
    page = Path("page.html").read_text()
    assert not re.search(r"https?://", page)  # it loads no other files
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


def test_character_of_several_tokens_is_shown_with_the_last() -> None:
    text = "né 日 😀."
    ids = np.frombuffer(text.encode(), dtype=np.uint8)
    scores = TokenScores(
        targets=ids,
        losses=np.ones(len(ids), dtype=np.float32),
        guesses=np.zeros((len(ids), 1), dtype=np.int64),
        probabilities=np.ones((len(ids), 1), dtype=np.float32),
    )
    detokenizer = Detokenizer(ByteTokenizer(), [])
    shown = [heatmap._token(ByteTokenizer(), detokenizer, scores, i)["text"] for i in range(len(ids))]
    assert shown == ["n", "▫", "é", " ", "▫", "▫", "日", " ", "▫", "▫", "▫", "😀", "."]
