"""The command `evaluate`."""

import json
import math
import re
from pathlib import Path

import pytest

from helpers.command_line import Run
from lit_gpt_scratch.data.corpus import HAMLET


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


def test_unknown_characters_are_left_out_up_to_one_percent(run: Run, finished: Path) -> None:
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


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--stride", "0"], "stride must be at least 1 and below the block_size of 32, not 0"),
        (["--stride", "32"], "stride must be at least 1 and below the block_size of 32, not 32"),
        (["--stride", "abc"], "stride takes int or null, not 'abc'"),
        (["--corpus", "letter.txt"], "the text has 1 token: there is nothing to predict"),
        (
            ["--corpus", "nowhere.txt"],
            "no such text: 'nowhere.txt' is not a file, folder or one of shakespeare, python_docs, hamlet",
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
