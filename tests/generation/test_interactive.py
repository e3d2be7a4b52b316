"""`predict --interactive`: prompts, commands, and interrupts."""

from collections.abc import Callable

import pytest
import torch

from lit_gpt_scratch.data.tokenizers import CharTokenizer
from lit_gpt_scratch.generation.detokenizer import Detokenizer
from lit_gpt_scratch.generation.interactive import apply_command, interact
from lit_gpt_scratch.generation.predict import PredictOptions, stream_text
from lit_gpt_scratch.model.gpt import GPT, GPTConfig

TOKENIZER = CharTokenizer("abcdefgh/\n")
OPTIONS = PredictOptions(max_new_tokens=6, temperature=0.0)


@pytest.fixture
def gpt() -> GPT:
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(vocab_size=10, block_size=16, n_layer=2, n_head=2, n_embd=16))
    for parameter in gpt.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return gpt


def typed(*lines: str | BaseException) -> Callable[[str], str]:
    """Return a replacement of `input` that returns these lines or raises these exceptions, then EOFError."""
    remaining = iter(lines)

    def read(prompt: str) -> str:
        line = next(remaining, EOFError())
        if isinstance(line, BaseException):
            raise line
        return line

    return read


def continuation(gpt: GPT, prompt: str, n_tokens: int, capsys: pytest.CaptureFixture[str]) -> str:
    ids = TOKENIZER.encode(prompt).tolist()
    stream_text(gpt, TOKENIZER, ids, PredictOptions(max_new_tokens=n_tokens, temperature=0.0))
    text = TOKENIZER.decode(ids).removeprefix(prompt)
    assert capsys.readouterr().out == f"{text}\n"
    return text


def test_empty_line_continues_the_previous_text(gpt: GPT, capsys: pytest.CaptureFixture[str]) -> None:
    first, both = (continuation(gpt, "abc", n, capsys) for n in (6, 12))
    other = continuation(gpt, "/h", 6, capsys)
    interact(gpt, TOKENIZER, OPTIONS, typed("abc", "", "//h"))
    assert capsys.readouterr().out == f"{first}\n{both[6:]}\n{other}\n\n"


def test_commands_apply_to_later_prompts(gpt: GPT, capsys: pytest.CaptureFixture[str]) -> None:
    two = continuation(gpt, "abc", 2, capsys)
    lines = ("/max_new_tokens 2", "/nonsense", "/options", "/help", "abc", "/quit", "abc")
    interact(gpt, TOKENIZER, OPTIONS, typed(*lines))
    shown = capsys.readouterr()
    assert shown.out == f"{two}\n"
    assert "error: there is no /nonsense; /help lists the commands" in shown.err
    assert "temperature 0.0  top_k None  " in shown.err
    assert "max_new_tokens 2  seed None  stop []" in shown.err
    assert "/stop STRING" in shown.err


def test_ctrl_c_interrupts_a_line_or_a_text_but_not_the_session(
    gpt: GPT, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = continuation(gpt, "abc", 12, capsys)
    feed, calls = Detokenizer.feed, 0

    def interrupted(self: Detokenizer, token: int) -> str:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return feed(self, token)

    monkeypatch.setattr(Detokenizer, "feed", interrupted)
    interact(gpt, TOKENIZER, OPTIONS, typed(KeyboardInterrupt(), "abc", ""))
    # The fourth token was sampled, so the text continues after it.
    assert capsys.readouterr().out == f"\n{whole[:3]}\n{whole[4:10]}\n\n"


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("/temperature 0.5", "temperature", 0.5),
        ("/top_k 3", "top_k", 3),
        ("/top_k off", "top_k", None),
        ("/temperature off", "temperature", 0.8),
        ("/seed   7 ", "seed", 7),
        ("/stop \\n\\nA", "stop", ["\n\nA"]),
        ("/stop", "stop", []),
    ],
)
def test_command_sets_an_option(line: str, name: str, value: object) -> None:
    assert getattr(apply_command(line, OPTIONS), name) == value


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/temperature", "/temperature takes a number, not ''"),
        ("/top_k 1.5", "/top_k takes a number, not '1.5'"),
        ("/top_k 0", "top_k must be at least 1"),
        ("/", "there is no /; /help lists the commands"),
    ],
)
def test_invalid_command_is_an_error(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        apply_command(line, OPTIONS)
