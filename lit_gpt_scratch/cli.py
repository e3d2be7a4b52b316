"""A command line run: a tool or a command of Lightning's, what goes wrong as one line, and the exit code."""

import importlib
import io
import logging
import os
import sys
from argparse import ArgumentError

from jsonargparse import ArgumentParser

from lit_gpt_scratch import PROGRAM, TOOL_COMMANDS
from lit_gpt_scratch.usage import explain_usage

TOOL_MODULES = {
    "evaluate": "evaluate",
    "scale": "scale",
    "import": "hub_import",
    "export": "hub_export",
    "verify-resume": "verify_resume",
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
    own.setLevel(logging.WARNING)
    try:
        run_command(args[0], args[1:])
        sys.stdout.flush()  # a full disk is noticed here, while there is an exit code to decide
        return 0
    except BrokenPipeError:  # whoever read our output has enough
        discard_stdout()
        return 0
    except Exception as error:
        if "--debug" in args:
            raise
        # In one piece: print may write its newline apart, and another device's line comes between.
        sys.stderr.write(f"error: {' '.join(str(error).split()) or type(error).__name__}\n")
        discard_unwritable_stdout()
        return 2 if isinstance(error, ValueError) else 1


def run_command(name: str, args: list[str]) -> None:
    """Run a subcommand; only those that train or use Lightning's loops import it."""
    if name == "plan":
        importlib.import_module("lit_gpt_scratch.plan_cli").plan(args)
    elif name in TOOL_COMMANDS:
        run_tool(name, args)
    else:
        importlib.import_module("lit_gpt_scratch.lightning_cli").run([name, *args])


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
    tool = importlib.import_module(f"lit_gpt_scratch.tools.{TOOL_MODULES[name]}")
    usage = f"{PROGRAM} {name} [options]"
    parser = ArgumentParser(exit_on_error=False, description=TOOL_COMMANDS[name], usage=usage)
    tool.add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="Show the traceback of an error.")
    try:
        options = parser.parse_args(args)
    except ArgumentError as error:
        raise ValueError(
            explain_usage(str(error), [], [action.dest for action in parser._actions])
        ) from error
    tool.run(options)
