"""Entry point: answers `--version` and a bare `--help` at once, everything else through `cli.main`."""

import codecs
import locale
import os
import subprocess
import sys
import tempfile
import warnings

from lit_gpt_scratch import COMMANDS, PRINTING_COMMANDS, PROGRAM, __version__
from lit_gpt_scratch.cli.usage import fail

# A checkpoint is data, never code: this beats an explicit weights_only=False anywhere below.
os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
# Lightning's advice on worker counts and its like: our loaders have no workers.
os.environ.setdefault("POSSIBLE_USER_WARNINGS", "off")
# LightningCLI 2.6 still calls an older spelling of jsonargparse's settings.
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
# Lightning 2.6 builds a torch pytree in a way that torch 2.13 deprecates.
warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
# Our `configure_model` may be called twice, and shards nothing where weights are averaged.
warnings.filterwarnings("ignore", message=".*WeightAveraging callback with a model that overrides")
# Of ModelCheckpoint: a run folder has its config.yaml before its first checkpoint.
warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
# Of commands that evaluate, and need no logger.
warnings.filterwarnings("ignore", message="You called `self.log.* but have no logger configured")
# In a notebook, of a library's progress bar that is never shown.
warnings.filterwarnings("ignore", message="IProgress not found")


def usage() -> str:
    """The text of a bare `--help`."""
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items())
    return f"""\
usage: {PROGRAM} COMMAND [options]

Train a GPT from scratch on any text, watch it learn, let it speak.

commands:
{commands}

  COMMAND --help lists every option of a command; --version prints the version.

start here:
  {PROGRAM} fit --config configs/char.yaml
  {PROGRAM} fit --config configs/char.yaml --data.corpus my.txt
  {PROGRAM} predict --ckpt_path checkpoints/char --prompt "ROMEO:"
"""


def main() -> int:
    """Run the command line.

    Returns:
        The exit code: 0 done, 1 the run failed, 2 a mistake in the input, 128 + a signal's number.
    """
    restart_in_utf8_mode()
    args = sys.argv[1:]
    has_stdout = sys.stdout is not None
    open_closed_streams()
    if not args or args in (["-h"], ["--help"], ["--version"]):
        return answer(f"lit_gpt_scratch {__version__}\n" if args == ["--version"] else usage())
    if not has_stdout and args[0] in PRINTING_COMMANDS:
        return fail(2, f"standard output is closed, and {args[0]} prints its result there")
    try:
        os.getcwd()
    except OSError:
        return fail(2, "the working folder is gone: change to another one")
    try:
        tempfile.gettempdir()
    except OSError:
        return fail(2, "no folder for temporary files can be written: let TMPDIR name one")
    try:
        from lit_gpt_scratch.cli.main import main as cli_main  # takes seconds, in which Ctrl-C may come

        return cli_main(args)
    except KeyboardInterrupt:
        return 130


def restart_in_utf8_mode() -> None:
    """Begin again in Python's UTF-8 mode (PEP 540) where the locale has another encoding.

    Configs, texts and what processes say to each other are UTF-8, also where a library opens the file.
    """
    if sys.flags.utf8_mode or codecs.lookup(locale.getpreferredencoding(False)).name == "utf-8":
        return
    command = [sys.executable, "-X", "utf8", *sys.orig_argv[1:]]
    os.environ["PYTHONUTF8"] = "1"  # for the processes that are started by this one
    if sys.platform == "win32":  # where execv leaves the terminal to the next command at once
        sys.exit(subprocess.call(command))
    os.execv(sys.executable, command)


def open_closed_streams() -> None:
    """Put the null device in place of standard streams that are closed, which Python shows as None."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  # to the end


def answer(text: str) -> int:
    """Print a text and return the exit code."""
    try:
        print(text, end="", flush=True)
    except OSError as error:
        sys.stdout = None  # what is in its buffer is not tried again
        return fail(1, f"cannot write to standard output: {error.strerror}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
