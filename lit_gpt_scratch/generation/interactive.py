"""An interactive session of `predict`: continue the prompts that a person types."""

import contextlib
import dataclasses
import sys
from collections.abc import Callable
from typing import Any

from lit_gpt_scratch.data.tokenizers import Tokenizer, encode_prompt
from lit_gpt_scratch.generation.predict import PredictOptions, stream_text
from lit_gpt_scratch.model.gpt import GPT

NUMERIC_OPTIONS: dict[str, Callable[[str], float]] = {
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "min_p": float,
    "repetition_penalty": float,
    "max_new_tokens": int,
    "seed": int,
}
OFF_VALUES = ("off", "none", "null")
HELP = """\
Type a text to continue; an empty line continues the last continuation.
Ctrl-C ends a continuation; Ctrl-D or /quit ends the session.
  /temperature 0.7     set an option; also /top_k, /top_p, /min_p, /repetition_penalty, /max_new_tokens,
                       /seed; the value off restores the default
  /stop STRING         set the string that ends a text (\\n is a newline); /stop off removes it
  /options             show the current options
  /help                show this help
To continue a text that begins with a slash, type two slashes."""


def interact(
    gpt: GPT, tokenizer: Tokenizer, options: PredictOptions, read: Callable[[str], str] = input
) -> None:
    """Continue the prompts and run the commands that `read` returns, until /quit or the end of the input."""
    with contextlib.suppress(ImportError):  # not available on Windows
        import readline  # noqa: F401  # gives `input` line editing and a history
    print("Type a text to continue; /help lists the commands.", file=sys.stderr)
    ids: list[int] = []  # the last prompt and its continuations
    while True:
        try:
            line = read("> ")
            if line.startswith("/") and not line.startswith("//"):
                if line.split()[0] == "/quit":
                    return
                try:
                    options = apply_command(line, options)
                except ValueError as error:
                    print(f"error: {error}", file=sys.stderr)
                continue
            if line or not ids:
                ids = encode_prompt(tokenizer, line.removeprefix("/"), options.allow_special).tolist()
            stream_text(gpt, tokenizer, ids, options)
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()


def apply_command(line: str, options: PredictOptions) -> PredictOptions:
    """Run a command of the session, such as `/top_k 10`, and return the resulting options.

    Raises:
        ValueError: There is no such command, or its value is invalid.
    """
    name, _, value = line[1:].partition(" ")
    value = value.strip()
    new: Any
    if name == "help":
        print(HELP, file=sys.stderr)
        return options
    if name == "options":
        print(
            "  ".join(f"{key} {getattr(options, key)!r}" for key in (*NUMERIC_OPTIONS, "stop")),
            file=sys.stderr,
        )
        return options
    if name == "stop":
        new = [] if value in ("", *OFF_VALUES) else [value.replace("\\n", "\n")]
    elif name not in NUMERIC_OPTIONS:
        raise ValueError(f"there is no /{name}; /help lists the commands")
    elif value in OFF_VALUES:
        new = getattr(PredictOptions, name)
    else:
        try:
            new = NUMERIC_OPTIONS[name](value)
        except ValueError as error:
            raise ValueError(f"/{name} takes a number, not {value!r}") from error
    return dataclasses.replace(options, **{name: new})
