"""What a checkpoint can do: write, and be measured."""

import io
import json
import math
import os
import random
import re
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TINY, Run

from lit_gpt_scratch.data import progress_bar
from lit_gpt_scratch.data.corpus import HAMLET
from lit_gpt_scratch.data.subwords import tokenizer_from_dict
from lit_gpt_scratch.tools import texts


def numbers(out: str) -> dict[str, float]:
    return {line.split()[0]: float(line.split()[1]) for line in out.splitlines() if "/" in line.split()[0]}


@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt", ""])
def test_validate_gives_what_training_logged(run: Run, finished: Path, name: str) -> None:
    done = run("validate", "--ckpt_path", finished / name)
    assert done.code == 0
    assert done.err == ""
    logged = torch.load(finished / (name or "best.ckpt"), weights_only=True)["evaluation"]
    assert numbers(done.out)["val/loss"] == pytest.approx(logged["val/loss"], abs=1e-5)
    assert numbers(done.out)["train/eval_loss"] == pytest.approx(logged["train/eval_loss"], abs=1e-5)
    assert {"val/perplexity", "val/bits_per_byte"} <= numbers(done.out).keys()
    assert f"step {logged['step']}" in done.out


def test_validation_writes_nothing(run: Run, finished: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.iterdir()}
    for command in ("validate", "test", "predict"):
        assert run(command, "--ckpt_path", finished).code == 0
    assert {path: path.stat().st_mtime_ns for path in finished.iterdir()} == before
    assert not list(tmp_path.iterdir())


def test_test_says_on_what(run: Run, finished: Path, tmp_path: Path) -> None:
    on_val = run("test", "--ckpt_path", finished)
    assert "the validation part of hamlet: there is no data.test_corpus" in on_val.out
    validated = numbers(run("validate", "--ckpt_path", finished).out)
    assert numbers(on_val.out)["test/loss"] == pytest.approx(validated["val/loss"], abs=1e-6)
    assert numbers(on_val.out)["test/perplexity"] == pytest.approx(validated["val/perplexity"], abs=1e-4)

    (tmp_path / "own.txt").write_text("To sleep, to dream.\n")
    on_own = run("test", "--ckpt_path", finished, "--data.test_corpus", "own.txt")
    assert on_own.code == 0
    assert "own.txt" in on_own.out
    assert numbers(on_own.out)["test/loss"] != numbers(on_val.out)["test/loss"]


def test_a_text_that_the_tokenizer_does_not_fit(run: Run, finished: Path) -> None:
    Path("other.txt").write_text("ЖЖЖ and more of it, again and again. " * 10, encoding="utf-8")
    for command, option in (
        ("validate", "--data.corpus"),
        ("test", "--data.test_corpus"),
        ("fit", "--data.corpus"),
    ):
        done = run(command, "--ckpt_path", finished, option, "other.txt", "--run_dir", "r")
        assert done.code == 2
        assert "the checkpoint's tokenizer does not fit" in done.err
        assert "'Ж'" in done.err
    rebuilt = run("fit", "--ckpt_path", finished, "--data.corpus", "other.txt", "--data.tokenizer", "char")
    assert rebuilt.code == 2
    assert "the checkpoint's tokenizer is not the one made from" in rebuilt.err


def test_precedence_command_line_config_checkpoint_default(run: Run, finished: Path) -> None:
    Path("mine.yaml").write_text("data: {val_fraction: 0.3}\n")

    def val_loss(*args: str) -> float:
        return numbers(run("validate", "--ckpt_path", finished, *args).out)["val/loss"]

    from_checkpoint = val_loss()
    assert val_loss("--config", "mine.yaml") != from_checkpoint
    assert val_loss("--config", "mine.yaml", "--data.val_fraction", "0.1") == from_checkpoint

    # The same for fit: n_embd stands in the checkpoint alone, and is not the default.
    steps = ["--trainer.max_steps", "42", "--run_dir", "r"]
    asked = ["--config", "mine.yaml", "--data.batch_size", "4"]
    assert run("fit", "--ckpt_path", finished, *asked, *steps).code == 0
    trained = torch.load("r/last.ckpt", weights_only=True)
    assert trained["hyper_parameters"]["n_embd"] == 32
    assert trained["hyper_parameters"]["dropout"] == 0.1
    assert trained["datamodule_hyper_parameters"]["val_fraction"] == 0.3
    assert trained["datamodule_hyper_parameters"]["batch_size"] == 4


def test_another_architecture_is_refused_in_words(run: Run, finished: Path) -> None:
    done = run("validate", "--ckpt_path", finished, "--model.n_layer", "3")
    assert done.code == 2
    assert "the checkpoint's model.n_layer is 2, not 3" in done.err


def test_predict_writes_the_text_and_only_the_text(run: Run, finished: Path) -> None:
    done = run(
        "predict", "--ckpt_path", finished, "--prompt", "To be", "--max_new_tokens", "30", "--seed", "1"
    )
    assert done.code == 0
    assert done.err == ""
    assert done.out.startswith("To be")
    assert len(done.out) == len("To be") + 30 + 1
    assert (
        done.out
        == run(
            "predict", "--ckpt_path", finished, "--prompt", "To be", "--max_new_tokens", "30", "--seed", "1"
        ).out
    )


def test_several_prompts_and_samples(run: Run, finished: Path) -> None:
    args = ["--max_new_tokens", "5", "--num_samples", "2", "--top_k", "1"]
    out = run("predict", "--ckpt_path", finished, "--prompt", "To be", "--prompt", "die", *args).out
    assert out.count("To be") == 2
    assert out.count("die") >= 2
    assert out.index("die") > out.rindex("To be")


def test_greedy_prediction_is_the_models_own(run: Run, finished: Path) -> None:
    out = run(
        "predict", "--ckpt_path", finished, "--prompt", "To ", "--max_new_tokens", "40", "--temperature", "0"
    ).out
    assert (
        out
        == run(
            "predict", "--ckpt_path", finished, "--prompt", "To ", "--max_new_tokens", "40", "--top_k", "1"
        ).out
    )


def test_notices_go_to_standard_error(run: Run, finished: Path) -> None:
    args = ["predict", "--ckpt_path", finished, "--max_new_tokens", "2"]
    unseen = run(*args, "--prompt", "To ☃ be")
    assert unseen.out.startswith("To  be")
    assert "not in the vocabulary: '☃'" in unseen.err
    assert run(*args, "--prompt", "☃").code == 0
    assert "reads the last 32 of the prompt's 100 tokens" in run(*args, "--prompt", "to" * 50).err
    assert "top_k is lowered to the vocabulary's 39 tokens" in run(*args, "--top_k", "1000").err


def test_lines_of_json(run: Run, finished: Path) -> None:
    args = [
        "--prompt",
        "To be",
        "--prompt",
        "die",
        "--num_samples",
        "2",
        "--seed",
        "3",
        "--max_new_tokens",
        "40",
    ]
    done = run("predict", "--ckpt_path", finished, *args, "--format", "jsonl", "--stop", " ")
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [line["prompt"] for line in lines] == ["To be", "To be", "die", "die"]
    assert [line["seed"] for line in lines] == [3, 4, 3, 4]
    tokenizer = tokenizer_from_dict(
        torch.load(finished / "best.ckpt", weights_only=True)["TextDataModule"]["tokenizer"]
    )
    for line in lines:
        assert len(line["tokens"]) == len(line["logprobs"])
        assert all(logprob <= 0 for logprob in line["logprobs"])
        written = tokenizer.decode(line["tokens"])
        assert " " not in line["text"]
        assert written == line["text"] + (" " if line["finish_reason"] == "stop" else "")
        assert line["prefill_seconds"] > 0
    assert {line["finish_reason"] for line in lines} >= {"stop"}
    (alone,) = run(
        "predict", "--ckpt_path", finished, "--prompt", "die", "--seed", "4", "--max_new_tokens", "40",
        "--format", "jsonl", "--stop", " ",
    ).out.splitlines()  # fmt: skip
    assert json.loads(alone)["tokens"] == lines[3]["tokens"]


def test_a_file_of_prompts(run: Run, finished: Path) -> None:
    Path("prompts.txt").write_text("To be\n\ndie\n")
    Path("prompts.jsonl").write_text('"To be"\n{"prompt": "die", "id": 7}\n')
    args = ["--max_new_tokens", "5", "--seed", "1"]
    asked = run("predict", "--ckpt_path", finished, *args, "--prompt", "To be", "--prompt", "die")
    for name in ("prompts.txt", "prompts.jsonl"):
        done = run("predict", "--ckpt_path", finished, *args, "--prompts_file", name, "--batch_size", "1")
        assert (done.code, done.out, done.err) == (0, asked.out, "")


def test_a_bar_takes_nothing_from_the_output(
    run: Run, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts that go to a file while a terminal shows how far they are."""
    Path("prompts.txt").write_text("To be\n" * 3)
    args = ["predict", "--ckpt_path", finished, "--seed", "1", "--prompts_file", "prompts.txt"]
    unwatched = run(*args, "--batch_size", "1")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(progress_bar, "DELAY_SECONDS", 0)
    watched = run(*args, "--batch_size", "1")
    assert watched.out == unwatched.out
    assert "writing" in watched.err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "p.jsonl",
            b'"a"\n\n{"prompt": 3}\n',
            "line 3 of p.jsonl is neither a string nor an object with a string",
        ),
        ("p.jsonl", b'"a"\n{"prompt"\n', "line 2 of p.jsonl is not JSON"),
        ("p.jsonl", b'"a"\n' + b"[" * 100_000, "line 2 of p.jsonl is not JSON"),
        ("p.txt", b"good\n\xff\n", "line 2 of p.txt is not UTF-8"),
        ("p.txt", b"\n \n", "p.txt has no prompt in it"),
        ("p.txt", None, "cannot read p.txt: No such file or directory"),
    ],
)
def test_a_bad_file_of_prompts_is_one_line(
    run: Run, finished: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    done = run("predict", "--ckpt_path", finished, "--prompts_file", name)
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith(f"error: {message}")
    assert done.err.count("\n") == 1


def test_int8_weights_say_what_they_cost(run: Run, finished: Path) -> None:
    args = ["predict", "--ckpt_path", finished, "--prompt", "To be", "--max_new_tokens", "5"]
    done = run(*args, "--weights", "int8")
    assert done.code == 0
    assert done.out.startswith("To be")
    numbers_in = r"perplexity ([\d.]+) in place of ([\d.]+) \(([-+][\d.]+) %\)"
    found = re.fullmatch(rf"WARNING: int8 weights: {numbers_in} on a part of Hamlet\n", done.err)
    assert found
    assert abs(float(found[3])) < 1
    assert float(found[1]) == pytest.approx(float(found[2]), rel=0.02)


def test_a_conversation_on_the_command_line(
    run: Run, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("/temperature 0\nTo be\n"))
    args = ["predict", "--ckpt_path", finished, "--max_new_tokens", "9"]
    done = run(*args, "--interactive")
    greedy = run(*args, "--prompt", "To be", "--temperature", "0")
    assert done.code == 0
    assert done.out.replace("> ", "").strip("\n") == greedy.out.removeprefix("To be").strip("\n")
    assert "/help" in done.err
    both = run("predict", "--ckpt_path", finished, "--interactive", "--prompt", "To be")
    assert (both.code, both.out) == (2, "")
    assert "leave prompt" in both.err


def test_greedy_samples_get_a_notice(run: Run, finished: Path) -> None:
    args = ["--temperature", "0", "--num_samples", "2", "--max_new_tokens", "3"]
    done = run("predict", "--ckpt_path", finished, *args)
    assert done.code == 0
    assert "all 2 samples of a prompt are the same" in done.err


def test_a_terminal_sees_the_same_text(run: Run, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = ["predict", "--ckpt_path", finished, "--prompt", "To be", "--num_samples", "2", "--seed", "1"]
    piped = run(*args)
    monkeypatch.setattr(texts, "on_terminal", lambda: True)
    assert run(*args).out == piped.out


def test_a_prompt_of_a_megabyte(run: Run, finished: Path) -> None:
    prompt = "To be, or not. " * 70_000
    Path("long.txt").write_text(prompt + "\n")
    done = run("predict", "--ckpt_path", finished, "--prompts_file", "long.txt", "--max_new_tokens", "40")
    assert done.code == 0
    assert done.out.startswith(prompt)
    assert done.err == "WARNING: the model reads the last 32 of the prompt's 1050000 tokens\n"


def test_no_prompt_starts_from_a_newline(run: Run, finished: Path) -> None:
    out = run("predict", "--ckpt_path", finished, "--max_new_tokens", "4").out
    assert out[0] == "\n"
    assert len(out) == 6


def test_an_untrained_model_babbles(run: Run, tmp_path: Path) -> None:
    done = run("predict", *TINY, "--prompt", "To be", "--max_new_tokens", "50")
    assert done.code == 0
    assert "this model is untrained" in done.err
    assert len(set(done.out)) > 15
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("shakespeare")
def test_char_config_predicts_untrained(run: Run) -> None:
    done = run("predict", "--config", ROOT / "configs" / "char.yaml", "--max_new_tokens", "20")
    assert done.code == 0
    assert "untrained" in done.err
    assert len(done.out) == 1 + 20 + 1  # the newline to start from, the text, and the end of the line


def test_subwords_from_end_to_end(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIT_GPT_CACHE", str(tmp_path / "cache"))
    tokenizer = ["--data.tokenizer", "bpe", "--data.vocab_size", "280", "--data.val_fraction", "0.3"]
    assert run("fit", *TINY, *tokenizer, "--run_dir", "r").code == 0
    checkpoint = torch.load("r/best.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["vocab_size"] == 280
    monkeypatch.setenv("LIT_GPT_CACHE", str(tmp_path / "another"))  # the checkpoint is enough
    done = run("validate", "--ckpt_path", "r")
    assert done.code == 0
    logged, found = checkpoint["evaluation"], numbers(done.out)
    assert found["val/loss"] == pytest.approx(logged["val/loss"], abs=1e-5)
    val = tokenizer_from_dict(checkpoint["TextDataModule"]["tokenizer"]).encode(
        HAMLET[int(0.7 * len(HAMLET)) :]
    )
    n_bytes = len(HAMLET) - int(0.7 * len(HAMLET))
    bits = logged["val/loss"] / math.log(2) * (len(val) - 1) / n_bytes
    assert found["val/bits_per_byte"] == pytest.approx(bits, rel=0.02)  # the first token is no target
    written = run("predict", "--ckpt_path", "r", "--prompt", "To be ☃", "--max_new_tokens", "5")
    assert written.out.startswith("To be ☃")
    assert written.err == ""


@pytest.mark.slow
def test_the_untrained_gpt2_of_the_second_tutorial(run: Run) -> None:
    """Four tokens of prompt, six greedy ones of gibberish, and an initial loss near ln V."""
    if not os.environ.get("TIKTOKEN_CACHE_DIR"):
        pytest.skip("TIKTOKEN_CACHE_DIR names no folder that has GPT-2's encoding")
    config, prompt = ["--config", ROOT / "configs" / "gpt2.yaml"], "Hello, I am"
    greedy = ["--prompt", prompt, "--max_new_tokens", "6", "--temperature", "0"]
    done = run("predict", *config, *greedy)
    assert done.code == 0
    assert done.out.startswith(prompt)
    assert len(done.out) > len(prompt) + 6
    assert done.out == run("predict", *config, *greedy).out
    # Tied weights like a token that repeats the last one: in words at random there are few.
    Path("words.txt").write_text(" ".join(random.Random(1).choices(HAMLET.split(), k=40_000)))
    few = ["--data.corpus", "words.txt", "--data.batch_size", "2", "--trainer.limit_val_batches", "2"]
    loss = numbers(run("validate", *config, *few).out)["val/loss"]
    assert abs(loss - math.log(50257)) < 0.2
