"""A command line run: a tool or a command of Lightning's, what goes wrong as one line, and the exit code."""

import importlib
import io
import logging
import os
import sys
from argparse import ArgumentError
from typing import Any, cast

from jsonargparse import ArgumentParser
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lit_gpt_scratch import PROGRAM, TOOL_COMMANDS
from lit_gpt_scratch.lightning_cli import LitGPTCLI
from lit_gpt_scratch.options import explain_usage

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
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    own = logging.getLogger("lit_gpt_scratch")
    own.handlers = [handler]
    own.setLevel(logging.ERROR if cast(Any, rank_zero_only).rank else logging.WARNING)  # said once
    LitGPTCLI.debug = "--debug" in args
    try:
        if args[0] == "plan":
            importlib.import_module("lit_gpt_scratch.plan_cli").plan(args[1:])
        elif args[0] in TOOL_COMMANDS:
            run_tool(args[0], args[1:])
        else:
            LitGPTCLI(args)
        return 0
    except (ValueError, MisconfigurationException) as error:
        code, failure = 2, cast(Exception, error)
    except BrokenPipeError:  # whoever read our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        code, failure = 1, error
    if LitGPTCLI.debug:
        raise failure
    if code == 2 and cast(Any, rank_zero_only).rank:
        return code  # rank 0 makes the same mistake, and says so
    # In one piece: print may write its newline apart, and another device's line comes between.
    sys.stderr.write(f"error: {' '.join(str(failure).split()) or type(failure).__name__}\n")
    return code


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
