"""Entry point: answers `--version` and a bare `--help` at once, everything else through `cli.main`."""

import os
import sys
import warnings

from lit_gpt_scratch import COMMANDS, PROGRAM, __version__

# A checkpoint is data, never code: this beats an explicit weights_only=False anywhere below.
os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
# Lightning's advice on worker counts and its like: our loaders have no workers.
os.environ.setdefault("POSSIBLE_USER_WARNINGS", "off")
# LightningCLI 2.6 still calls an older spelling of jsonargparse's settings.
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
# Lightning 2.6 builds a torch pytree in a way that torch 2.13 deprecates.
warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
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
        The exit code: 0 done, 1 the run failed, 2 a mistake in the input, 130 Ctrl-C, 143 SIGTERM.
    """
    args = sys.argv[1:]
    if not args or args in (["-h"], ["--help"]):
        print(usage(), end="")
        return 0
    if args == ["--version"]:
        print(f"lit_gpt_scratch {__version__}")
        return 0
    try:
        from lit_gpt_scratch.cli import main as cli_main  # takes seconds, in which Ctrl-C may come

        return cli_main(args)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
