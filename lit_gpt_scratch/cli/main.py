"""A command line run: a tool or a command of Lightning's, what goes wrong as one line, and the exit code."""

import importlib
import io
import logging
import os
import sys
from argparse import ArgumentError
from difflib import get_close_matches
from typing import Any, cast

from jsonargparse import ArgumentParser

from lit_gpt_scratch import COMMANDS as ALL_COMMANDS
from lit_gpt_scratch import PROGRAM, TOOL_COMMANDS
from lit_gpt_scratch.cli.usage import explain_usage, fail
from lit_gpt_scratch.data.progress_bar import status_line

NO_HOME = "Could not determine home"  # pathlib's error for a path with ~
LOADING = "loading PyTorch ..."  # which takes seconds
TOOL_MODULES = {
    "evaluate": "evaluation.command",
    "scale": "scaling.scale",
    "import": "hub.import_folder",
    "export": "hub.export_folder",
    "verify-resume": "tools.verify_resume",
}


def main(args: list[str]) -> int:
    """Run a command line; see `__main__.main` for the exit codes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() != "utf-8":
            # A text may hold any character, whatever the locale.
            stream.reconfigure(encoding="utf-8", errors="replace")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    own = logging.getLogger("lit_gpt_scratch")
    own.handlers = [handler]
    own.setLevel(logging.DEBUG if "--debug" in args else logging.WARNING)
    try:
        run_command(args[0], args[1:])
        sys.stdout.flush()  # a full disk is noticed here, while there is an exit code to decide
        return 0
    except BrokenPipeError:  # whoever read our output has enough
        discard_stdout()
        return 0
    except Exception as error:
        if own.isEnabledFor(logging.DEBUG):
            raise
        discard_unwritable_stdout()
        if str(error).startswith(NO_HOME):
            return fail(2, "there is no home folder for ~ to stand for: write paths in full")
        message = " ".join(str(error).split()) or type(error).__name__
        return fail(2 if isinstance(error, ValueError) else 1, message)


def run_command(name: str, args: list[str]) -> None:
    """Run a subcommand; only those that use Lightning's loops import it, which takes seconds."""
    if name in TOOL_MODULES:
        run_tool(name, args)
    else:
        run_lightning(name, args)


def run_lightning(name: str, args: list[str]) -> None:
    """Run a subcommand that uses Lightning's loops.

    Raises:
        ValueError: The input is wrong; on other ranks SystemExit, since rank 0 says so.
    """
    with status_line(LOADING):
        from lightning.fabric.utilities.rank_zero import rank_zero_only
        from lightning.pytorch.utilities.exceptions import MisconfigurationException

        from lit_gpt_scratch.cli.commands import COMMANDS

    for part in ("pytorch", "fabric"):
        logging.getLogger(f"lightning.{part}").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)  # a profiler's report
    own = logging.getLogger("lit_gpt_scratch")
    is_quiet = cast(Any, rank_zero_only).rank and not own.isEnabledFor(logging.DEBUG)
    if is_quiet:
        own.setLevel(logging.ERROR)  # rank 0 logs the warnings
    try:
        if name == "plan":
            from lit_gpt_scratch.cli.plan import plan

            plan(args)
        else:
            if name not in COMMANDS:
                near = get_close_matches(name, ALL_COMMANDS, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(ALL_COMMANDS)}"
                raise ValueError(f"no such command: {name}; {hint}")
            COMMANDS[name](args)
    except (ValueError, MisconfigurationException) as error:
        if is_quiet:
            sys.exit(2)
        raise ValueError(str(error)) from error


def discard_unwritable_stdout() -> None:
    """Flush standard output, or discard what is left there: Python's own end would fail at it once more."""
    try:
        sys.stdout.flush()
    except OSError:
        discard_stdout()


def discard_stdout() -> None:
    """Send what is still in standard output's buffer nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run_tool(name: str, args: list[str]) -> None:
    """Run a subcommand that works on files and needs no Trainer."""
    with status_line(LOADING):
        tool = importlib.import_module(f"lit_gpt_scratch.{TOOL_MODULES[name]}")
    usage = f"{PROGRAM} {name} [options]"
    parser = ArgumentParser(
        exit_on_error=False, allow_abbrev=False, description=TOOL_COMMANDS[name], usage=usage
    )
    tool.add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="Show the traceback of an error.")
    try:
        options = parser.parse_args(args)
    except ArgumentError as error:
        raise ValueError(
            explain_usage(str(error), [], [action.dest for action in parser._actions])
        ) from error
    tool.run(options)
