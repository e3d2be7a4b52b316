"""`predict`: prompts, formats, notices and errors on the command line."""

import io
import json
import re
import sys
from pathlib import Path

import pytest

from helpers.checkpoints import best_checkpoint
from helpers.command_line import TINY, Result, Run
from lit_gpt_scratch.data import progress_bar
from lit_gpt_scratch.data.bpe import tokenizer_from_dict
from lit_gpt_scratch.data.tokenizers import CharTokenizer
from lit_gpt_scratch.generation.predict import PredictOptions, print_continuations
from lit_gpt_scratch.model.gpt import GPT, GPTConfig


@pytest.fixture
def predict(run: Run, finished: Path) -> Run:
    def call(*args: object) -> Result:
        return run("predict", "--ckpt_path", finished, *args)

    return call


def test_standard_output_has_only_the_text(predict: Run) -> None:
    args = ("--prompt", "To be", "--max_new_tokens", "30", "--seed", "1")
    done = predict(*args)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("To be")
    assert len(done.out) == len("To be") + 30 + 1
    assert done.out == predict(*args).out


def test_samples_follow_the_order_of_the_prompts(predict: Run) -> None:
    args = ("--max_new_tokens", "5", "--num_samples", "2", "--top_k", "1")
    out = predict("--prompt", "To be", "--prompt", "die", *args).out
    assert out.count("To be") == 2
    assert out.count("die") >= 2
    assert out.index("die") > out.rindex("To be")


def test_notices_go_to_standard_error(predict: Run) -> None:
    args = ("--max_new_tokens", "2")
    unknown = predict(*args, "--prompt", "To ☃ be")
    assert unknown.out.startswith("To  be")
    assert "'☃'" in unknown.err
    assert predict(*args, "--prompt", "☃").code == 0
    assert "reads the last 32 of the prompt's 100 tokens" in predict(*args, "--prompt", "to" * 50).err
    assert "top_k is lowered to the vocabulary's 39 tokens" in predict(*args, "--top_k", "1000").err
    greedy = predict(*args, "--temperature", "0", "--num_samples", "2")
    assert "all 2 samples of a prompt are the same" in greedy.err


def test_jsonl_has_tokens_logprobs_and_seeds(predict: Run, finished: Path) -> None:
    args = ("--max_new_tokens", "40", "--format", "jsonl", "--stop", " ")
    done = predict("--prompt", "To be", "--prompt", "die", "--num_samples", "2", "--seed", "3", *args)
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [line["prompt"] for line in lines] == ["To be", "To be", "die", "die"]
    assert [line["seed"] for line in lines] == [3, 4, 3, 4]
    checkpoint = best_checkpoint(finished)
    tokenizer = tokenizer_from_dict(checkpoint["TextDataModule"]["tokenizer"])
    for line in lines:
        assert len(line["tokens"]) == len(line["logprobs"])
        assert all(logprob <= 0 for logprob in line["logprobs"])
        assert " " not in line["text"]
        end = " " if line["finish_reason"] == "stop" else ""
        assert tokenizer.decode(line["tokens"]) == line["text"] + end
        assert line["prefill_seconds"] > 0
    assert {line["finish_reason"] for line in lines} >= {"stop"}
    alone = json.loads(predict("--prompt", "die", "--seed", "4", *args).out)
    assert alone["tokens"] == lines[3]["tokens"]


@pytest.mark.parametrize(
    ("name", "content"),
    [("p.txt", "To be\n\ndie\r\n"), ("p.jsonl", '"To be"\n{"prompt": "die", "id": 7}\n')],
)
def test_prompts_file_equals_prompts(predict: Run, name: str, content: str) -> None:
    Path(name).write_text(content)
    args = ("--max_new_tokens", "5", "--seed", "1")
    expected = predict(*args, "--prompt", "To be", "--prompt", "die")
    done = predict(*args, "--prompts_file", name, "--batch_size", "1")
    assert (done.code, done.out, done.err) == (0, expected.out, "")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.jsonl", b'"a"\n\n{"prompt": 3}\n', "line 3 of p.jsonl is neither a string nor an object with a"),
        ("p.jsonl", b'"a"\n{"prompt"\n', "line 2 of p.jsonl is not JSON"),
        ("p.jsonl", b'"a"\n' + b"[" * 100_000, "line 2 of p.jsonl is not JSON"),
        ("p.txt", b"good\n\xff\n", "line 2 of p.txt is not UTF-8"),
        ("p.jsonl", b'"good"\n"\\ud800"\n', "line 2 of p.jsonl is not UTF-8"),
        ("p.txt", b"\n \n", "p.txt has no prompt in it"),
    ],
)
def test_invalid_prompts_file_exits_2_with_one_line(
    predict: Run, name: str, content: bytes, message: str
) -> None:
    Path(name).write_bytes(content)
    done = predict("--prompts_file", name)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {message}")
    assert done.err.count("\n") == 1


def test_progress_bar_does_not_change_standard_output(predict: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output goes to a file while the terminal shows the progress."""
    Path("prompts.txt").write_text("To be\n" * 3)
    args = ("--seed", "1", "--prompts_file", "prompts.txt", "--batch_size", "1")
    expected = predict(*args)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(progress_bar, "DELAY_SECONDS", 0)
    done = predict(*args)
    assert done.out == expected.out
    assert "writing" in done.err


def test_terminal_gets_the_same_text(predict: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    args = ("--prompt", "To be", "--num_samples", "2", "--seed", "1")
    piped = predict(*args)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert predict(*args).out == piped.out


def test_int8_weights_report_the_change_of_perplexity(predict: Run) -> None:
    done = predict("--prompt", "To be", "--max_new_tokens", "5", "--weights", "int8")
    assert done.code == 0
    assert done.out.startswith("To be")
    numbers = r"perplexity ([\d.]+) instead of ([\d.]+) \(([-+][\d.]+) %\)"
    found = re.fullmatch(rf"WARNING: int8 weights: {numbers} on a part of Hamlet\n", done.err)
    assert found
    assert abs(float(found[3])) < 1
    assert float(found[1]) == pytest.approx(float(found[2]), rel=0.02)


@pytest.mark.parametrize("vocabulary", ["0123456789", "0123456789D"], ids=["no character", "one character"])
def test_int8_weights_work_with_a_vocabulary_without_hamlets_characters(
    vocabulary: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    gpt = GPT(GPTConfig(vocab_size=len(vocabulary), block_size=8, n_layer=1, n_head=1, n_embd=8)).eval()
    options = PredictOptions(max_new_tokens=3, weights="int8")
    print_continuations(gpt, CharTokenizer(vocabulary), ["12"], options)
    assert len(capsys.readouterr().out) == len("12") + 3 + len("\n")
    assert "the change of perplexity cannot be measured" in caplog.text


def test_interactive_session_on_the_command_line(predict: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("/temperature 0\nTo be\n"))
    done = predict("--max_new_tokens", "9", "--interactive")
    greedy = predict("--max_new_tokens", "9", "--prompt", "To be", "--temperature", "0")
    assert done.code == 0
    assert done.out.replace("> ", "").strip("\n") == greedy.out.removeprefix("To be").strip("\n")
    assert "/help" in done.err
    both = predict("--interactive", "--prompt", "To be")
    assert (both.code, both.out) == (2, "")
    assert "leave prompt" in both.err


def test_long_prompt_is_read_at_its_end(predict: Run) -> None:
    prompt = "To be, or not. " * 70_000
    Path("long.txt").write_text(prompt + "\n")
    done = predict("--prompts_file", "long.txt", "--max_new_tokens", "40")
    assert done.code == 0
    assert done.out.startswith(prompt)
    assert done.err == "WARNING: the model reads the last 32 of the prompt's 1050000 tokens\n"


def test_empty_prompt_is_a_newline(predict: Run) -> None:
    out = predict("--max_new_tokens", "4").out
    assert out[0] == "\n"
    assert len(out) == 6


def test_untrained_model_generates_text(run: Run, tmp_path: Path) -> None:
    done = run("predict", *TINY, "--prompt", "To be", "--max_new_tokens", "50")
    assert done.code == 0
    assert "this model is untrained" in done.err
    assert len(set(done.out)) > 15
    assert not list(tmp_path.iterdir())
