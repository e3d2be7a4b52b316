"""Run a command, report an error in one line, and return the exit code."""

import importlib
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from difflib import get_close_matches
from typing import Any, cast

from jsonargparse import ArgumentParser

from lit_gpt_scratch import COMMANDS, PROGRAM
from lit_gpt_scratch.cli.errors import clear_parser_errors, print_error
from lit_gpt_scratch.data.progress_bar import status_line

LOADING = "loading PyTorch ..."  # takes seconds
NO_HOME = "Could not determine home"  # pathlib's error if ~ cannot be expanded


def main(args: list[str]) -> int:
    """Run the command that `args` begins with; return the exit code, as described in `__main__.main`."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logger = logging.getLogger("lit_gpt_scratch")
    logger.handlers = [handler]
    logger.setLevel(logging.DEBUG if "--debug" in args else logging.WARNING)
    try:
        run_command(args[0], args[1:])
        sys.stdout.flush()  # reports a full disk while the exit code can still change
        return 0
    except BrokenPipeError:  # the process that reads our output has closed the pipe
        return 0
    except Exception as error:
        if logger.isEnabledFor(logging.DEBUG):
            raise
        with suppress(OSError):
            sys.stdout.flush()  # before the error
        if str(error).startswith(NO_HOME):
            return print_error(2, "cannot expand ~ in a path: there is no home folder; write paths in full")
        message = " ".join(str(error).split()) or type(error).__name__
        return print_error(2 if isinstance(error, ValueError) else 1, message)


def run_command(name: str, args: list[str]) -> None:
    """Import a subcommand's module, and run the subcommand; the import takes seconds.

    Raises:
        ValueError: The command does not exist, or its input is invalid.
    """
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"no such command: {name}; {hint}there are {', '.join(COMMANDS)}")
    with status_line(LOADING):
        module = importlib.import_module(f"lit_gpt_scratch.{COMMANDS[name].module}")
    if hasattr(module, "add_arguments"):
        run_tool(name, module, args)
    else:
        run_lightning(getattr(module, name), args)


def run_tool(name: str, tool: Any, args: list[str]) -> None:
    """Run a subcommand that needs no Trainer; its module `tool` defines `add_arguments` and `run`.

    Raises:
        ValueError: An option is invalid.
    """
    parser = ArgumentParser(
        exit_on_error=False,
        allow_abbrev=False,
        description=COMMANDS[name].summary,
        usage=f"{PROGRAM} {name} [options]",
    )
    tool.add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="Show the traceback of an error.")
    with clear_parser_errors(parser, []):
        options = parser.parse_args(args)
    tool.run(options)


def run_lightning(command: Callable[[list[str]], None], args: list[str]) -> None:
    """Run a subcommand that needs a Trainer.

    Raises:
        ValueError: The input is invalid.
        SystemExit: The input is invalid, and this process is not rank 0: rank 0 alone prints the error.
    """
    from lightning.fabric.utilities.rank_zero import rank_zero_only
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    for part in ("pytorch", "fabric"):
        logging.getLogger(f"lightning.{part}").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)  # a profiler's report
    logger = logging.getLogger("lit_gpt_scratch")
    is_quiet = cast(Any, rank_zero_only).rank and not logger.isEnabledFor(logging.DEBUG)
    if is_quiet:
        logger.setLevel(logging.ERROR)  # rank 0 logs the warnings
    try:
        command(args)
    except (ValueError, MisconfigurationException) as error:
        if is_quiet:
            sys.exit(2)
        raise ValueError(str(error)) from error
