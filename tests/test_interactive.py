"""A conversation with a model: prompts, commands, and ways out."""

from collections.abc import Callable

import pytest
import torch

from lit_gpt_scratch.data.tokenizer import CharTokenizer
from lit_gpt_scratch.model.gpt import GPT, GPTConfig
from lit_gpt_scratch.tools.interactive import command, converse
from lit_gpt_scratch.tools.text_stream import TextStream
from lit_gpt_scratch.tools.texts import PredictOptions, Row, write_live

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
    """What a person types, and then the end of the input."""
    waiting = iter(lines)

    def read(prompt: str) -> str:
        line = next(waiting, EOFError())
        if isinstance(line, BaseException):
            raise line
        return line

    return read


def continued(gpt: GPT, prompt: str, n_tokens: int, capsys: pytest.CaptureFixture[str]) -> str:
    """What the model writes after a prompt, and nothing before or after."""
    tokens: list[int] = []
    row = Row(prompt, TOKENIZER.encode(prompt).tolist(), 0)
    write_live(gpt, TOKENIZER, row, PredictOptions(max_new_tokens=n_tokens, temperature=0.0), tokens)
    assert capsys.readouterr().out == TOKENIZER.decode(tokens) + "\n"
    return TOKENIZER.decode(tokens)


def test_prompts_and_going_on(gpt: GPT, capsys: pytest.CaptureFixture[str]) -> None:
    first, both = (continued(gpt, "abc", n, capsys) for n in (6, 12))
    other = continued(gpt, "/h", 6, capsys)
    converse(gpt, TOKENIZER, OPTIONS, typed("abc", "", "//h"))
    assert capsys.readouterr().out == f"{first}\n{both[6:]}\n{other}\n\n"


def test_commands_change_what_follows(gpt: GPT, capsys: pytest.CaptureFixture[str]) -> None:
    two = continued(gpt, "abc", 2, capsys)
    converse(gpt, TOKENIZER, OPTIONS, typed("/max_new_tokens 2", "/nonsense", "abc", "/quit", "abc"))
    shown = capsys.readouterr()
    assert shown.out == f"{two}\n"
    assert "error: there is no /nonsense; /help lists the commands" in shown.err


def test_ctrl_c_gives_up_a_line_or_a_text(
    gpt: GPT, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = continued(gpt, "abc", 12, capsys)
    feed, calls = TextStream.feed, 0

    def interrupted(self: TextStream, token: int) -> str:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return feed(self, token)

    monkeypatch.setattr(TextStream, "feed", interrupted)
    converse(gpt, TOKENIZER, OPTIONS, typed(KeyboardInterrupt(), "abc", ""))
    # The fourth token was drawn, and belongs to what it goes on from.
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
        ("/help", "temperature", 0.0),
        ("/options", "temperature", 0.0),
    ],
)
def test_a_command_sets_an_option(line: str, name: str, value: object) -> None:
    assert getattr(command(line, OPTIONS), name) == value


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/temperature", "/temperature wants a number, not ''"),
        ("/top_k 1.5", "/top_k wants a number, not '1.5'"),
        ("/top_k 0", "top_k must be at least 1"),
        ("/", "there is no /; /help lists the commands"),
    ],
)
def test_a_wrong_command_is_explained(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        command(line, OPTIONS)
