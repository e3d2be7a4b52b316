"""Entry point: print `--version` and `--help` without torch, and run commands with `cli.main`."""

import codecs
import locale
import os
import subprocess
import sys
import tempfile
import warnings

from lit_gpt_scratch import COMMANDS, PROGRAM, __version__
from lit_gpt_scratch.cli.config_files import shipped_configs
from lit_gpt_scratch.cli.errors import print_error


def usage() -> str:
    """Return the help text that lists the commands."""
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items())
    configs = ", ".join(shipped_configs())
    return f"""\
usage: {PROGRAM} COMMAND [options]

Train a GPT from scratch on any text, and generate text with it.

commands:
{commands}

  COMMAND --help lists every option of a command; --version prints the version.

configs, for --config NAME: {configs}

examples:
  {PROGRAM} fit --config configs/char.yaml
  {PROGRAM} fit --config configs/char.yaml --data.corpus my.txt
  {PROGRAM} predict --ckpt_path checkpoints/char --prompt "ROMEO:"
"""


def main() -> int:
    """Run the program with the arguments in `sys.argv`.

    Returns:
        The exit code: 0 for success, 2 for invalid input, 128 + n if signal n stopped the program, 1 for any
        other error.
    """
    restart_in_utf8_mode()
    configure_process()
    try:
        return run(sys.argv[1:])
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:  # at exit, Python would flush it again and exit with 120
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def run(args: list[str]) -> int:
    """Run the command that `args` begins with, or print the version or the usage; return the exit code."""
    has_stdout = sys.stdout is not None
    open_closed_streams()
    if not args or args in (["-h"], ["--help"], ["--version"]):
        return print_text(f"lit_gpt_scratch {__version__}\n" if args == ["--version"] else usage())
    if not has_stdout and args[0] in COMMANDS and COMMANDS[args[0]].prints_result:
        return print_error(2, f"standard output is closed, and {args[0]} prints its result there")
    try:
        os.getcwd()
    except OSError:
        return print_error(2, "the working folder does not exist: change to another one")
    try:
        tempfile.gettempdir()
    except OSError:
        return print_error(2, "no folder for temporary files is writable: set TMPDIR to one")
    try:
        # The import takes seconds, in which Ctrl-C may be pressed.
        from lit_gpt_scratch.cli.main import main as cli_main

        return cli_main(args)
    except KeyboardInterrupt:
        return 130


def configure_process() -> None:
    """Set environment variables and warning filters for all commands; called before torch is imported."""
    # Checkpoints are loaded as data, even where a library calls torch.load with weights_only=False.
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    # Turn off Lightning's advice about worker counts and the like: our data loaders have no workers.
    os.environ.setdefault("POSSIBLE_USER_WARNINGS", "off")
    # Lightning 2.6 uses deprecated settings of jsonargparse.
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    for message, category in {
        # Lightning 2.6 creates torch pytrees in a way that torch 2.13 deprecates.
        ".*LeafSpec.*": FutureWarning,
        # Our `configure_model` may be called twice, and shards nothing if weights are averaged.
        ".*WeightAveraging callback with a model that overrides": Warning,
        # ModelCheckpoint warns of a non-empty folder: config.yaml is written before the first checkpoint.
        "Checkpoint directory .* exists and is not empty": Warning,
        # Commands that evaluate need no logger.
        "You called `self.log.* but have no logger configured": Warning,
        # A notebook without ipywidgets: the progress bars that need them are not used.
        "IProgress not found": Warning,
    }.items():
        warnings.filterwarnings("ignore", message=message, category=category)


def restart_in_utf8_mode() -> None:
    """Restart the program in Python's UTF-8 mode (PEP 540) if the locale's encoding is not UTF-8.

    Configs, texts and pipes between processes are then read and written as UTF-8, also by libraries.
    """
    if sys.flags.utf8_mode or codecs.lookup(locale.getpreferredencoding(False)).name == "utf-8":
        return
    command = [sys.executable, "-X", "utf8", *sys.orig_argv[1:]]
    os.environ["PYTHONUTF8"] = "1"  # for processes that this one starts
    if sys.platform == "win32":  # after execv, the shell would not wait for the new process
        sys.exit(subprocess.call(command))
    os.execv(sys.executable, command)


def open_closed_streams() -> None:
    """Replace closed standard streams, which are None in `sys`, with the null device."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  # open until exit


def print_text(text: str) -> int:
    """Print a text to standard output; return exit code 0, or 1 if the text cannot be written."""
    try:
        print(text, end="", flush=True)
    except OSError as error:
        return print_error(1, f"cannot write to standard output: {error.strerror}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
