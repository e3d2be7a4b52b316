"""The program as a separate process: time of --help, exit codes, closed pipes."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.command_line import ROOT, TINY, environment, run_process
from lit_gpt_scratch import COMMANDS, __version__


@pytest.mark.parametrize("args", [["--help"], ["--version"], []])
def test_help_and_version_take_less_than_half_a_second(args: list[str]) -> None:
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        done = run_process(*args)
        seconds.append(time.perf_counter() - started)
        assert done.returncode == 0
    assert min(seconds) < 0.5
    assert (__version__ if args == ["--version"] else "commands:") in done.stdout


def test_help_lists_commands_and_options() -> None:
    text = run_process("--help").stdout
    assert all(f"  {name} " in text for name in COMMANDS)
    fit = run_process("fit", "--help").stdout
    for option in ("--run_dir", "--eval_every", "--save_every", "--ckpt_path", "--debug", "--data.corpus"):
        assert option in fit
    assert "Longest context in tokens" in fit  # from GPTConfig's docstring


def test_console_script_equals_the_module() -> None:
    script = Path(sys.executable).with_name("lit-gpt-scratch")
    version = subprocess.run([script, "--version"], capture_output=True, text=True).stdout
    assert version == run_process("--version").stdout


def test_error_is_written_in_one_piece() -> None:
    """Separate writes of several processes to one terminal may be interleaved."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # keeps message boundaries
    with ours, theirs:
        assert run_process("evaluate", "--ckpt_path", "nowhere", stderr=theirs).returncode == 2
        written = ours.recv(10_000).decode()
    assert written.startswith("error: ")
    assert written.endswith("\n")


@pytest.mark.slow
def test_successful_run_prints_no_warnings(tmp_path: Path) -> None:
    done = run_process("fit", *TINY, "--trainer.max_steps", "2", "--run_dir", tmp_path / "r")
    assert (done.returncode, done.stderr) == (0, "")


def test_wrong_input_exits_with_2_and_one_line() -> None:
    done = run_process("fit", "--config", ROOT / "configs" / "debug.yaml", "--model.n_head", "7")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: model.n_embd (64) must be a multiple of model.n_head (7): try 63\n"


def test_closed_pipe_exits_0(finished: Path) -> None:
    program = f"{sys.executable} -m lit_gpt_scratch"
    command = f"{program} predict --ckpt_path {finished} --num_samples 200 --max_new_tokens 100 | head -c 10"
    bash = ["bash", "-o", "pipefail", "-c", command]
    done = subprocess.run(bash, env=environment(), capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
