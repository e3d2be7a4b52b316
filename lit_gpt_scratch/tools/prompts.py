"""Prompts out of a file."""

import json
from pathlib import Path


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file, in its order: lines of text, or of JSON where its name ends in .jsonl.

    A line of JSON is a string, or an object with a string `prompt`. Blank lines are left out.

    Raises:
        ValueError: There is no such file, a line of it cannot be read, or there is no prompt in it.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    prompts = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            text = line.decode().removesuffix("\r")
            prompts.append(_prompt_of_json(text) if path.suffix == ".jsonl" else text)
        except UnicodeDecodeError as error:
            raise ValueError(f"line {number} of {path} is not UTF-8") from error
        except ValueError as error:
            raise ValueError(f"line {number} of {path} {error}") from error
    if not prompts:
        raise ValueError(f"{path} has no prompt in it")
    return prompts


def _prompt_of_json(line: str) -> str:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError("is not JSON") from error
    prompt = content.get("prompt") if isinstance(content, dict) else content
    if not isinstance(prompt, str):
        raise ValueError("is neither a string nor an object with a string prompt")
    return prompt
