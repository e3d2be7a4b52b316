"""`predict --interactive`: a prompt that stays open."""

import contextlib
import dataclasses
import sys
from collections.abc import Callable
from typing import Any

from lit_gpt_scratch.data.tokenizer import Tokenizer, encode_prompt
from lit_gpt_scratch.generation.generate import row_seeds
from lit_gpt_scratch.model.gpt import GPT
from lit_gpt_scratch.tools.texts import PredictOptions, Row, write_live

NUMBERS: dict[str, Callable[[str], float]] = {
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "min_p": float,
    "repetition_penalty": float,
    "max_new_tokens": int,
    "seed": int,
}
NONE = ("none", "null", "off")
HELP = f"""\
Type a text, and the model continues it; an empty line lets it go on from where it ended.
Ctrl-C ends its writing, Ctrl-D or /quit the conversation.
  /temperature 0.7     so {", ".join(f"/{name}" for name in NUMBERS if name != "temperature")};
                       off takes an option back where that is possible
  /stop STRING         where a text ends (\\n is a new line); /stop off
  /options             what is set
  /help                this
A prompt that begins with a slash is written with two."""


def converse(
    gpt: GPT, tokenizer: Tokenizer, options: PredictOptions, read: Callable[[str], str] = input
) -> None:
    """Read prompts and commands until the input ends."""
    with contextlib.suppress(ImportError):  # Windows has none
        import readline  # noqa: F401  # makes `input` an editor with a history
    print("Type a text to be continued; /help tells the rest.", file=sys.stderr)
    ids: list[int] = []  # all that was said since the last prompt
    while True:
        try:
            line = read("> ")
        except EOFError:
            return print()
        except KeyboardInterrupt:
            print()
            continue
        if line.startswith("/") and not line.startswith("//"):
            if line.split()[0] == "/quit":
                return None
            try:
                options = command(line, options)
            except ValueError as error:
                print(f"error: {error}", file=sys.stderr)
            continue
        if line or not ids:
            ids = encode_prompt(tokenizer, line.removeprefix("/"), options.allow_special).tolist()
        written: list[int] = []
        try:
            (seed,) = row_seeds(options.seed, 1)
            write_live(gpt, tokenizer, Row(line, ids, seed), options, written)
        except KeyboardInterrupt:
            print()
        ids = ids + written


def command(line: str, options: PredictOptions) -> PredictOptions:
    """Do what a line that begins with a slash says.

    Returns:
        The options from now on.

    Raises:
        ValueError: There is no such command, or its value is wrong.
    """
    name, _, value = line[1:].partition(" ")
    value = value.strip()
    if name == "help":
        print(HELP, file=sys.stderr)
    elif name == "options":
        set_now = {key: getattr(options, key) for key in (*NUMBERS, "stop")}
        print("  ".join(f"{key} {shown!r}" for key, shown in set_now.items()), file=sys.stderr)
    elif name == "stop":
        strings = [] if value in ("", *NONE) else [value.replace("\\n", "\n")]
        return dataclasses.replace(options, stop=strings)
    elif name not in NUMBERS:
        raise ValueError(f"there is no /{name}; /help lists the commands")
    elif value in NONE:
        return replaced(options, name, PredictOptions.__dataclass_fields__[name].default)
    else:
        try:
            number = NUMBERS[name](value)
        except ValueError as error:
            raise ValueError(f"/{name} wants a number, not {value!r}") from error
        return replaced(options, name, number)
    return options


def replaced(options: PredictOptions, name: str, value: Any) -> PredictOptions:
    """The options with another value of one; ValueError if it is out of range."""
    return dataclasses.replace(options, **{name: value})
