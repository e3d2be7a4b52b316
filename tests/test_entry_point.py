"""The program as a process: quick answers, exit codes, closed pipes."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, TINY, environment

from lit_gpt_scratch import COMMANDS, __version__


def call(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lit_gpt_scratch", *map(str, args)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("args", [["--help"], ["--version"], []])
def test_bare_questions_are_answered_at_once(args: list[str]) -> None:
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        done = call(*args)
        seconds.append(time.perf_counter() - started)
        assert done.returncode == 0
    assert min(seconds) < 0.5
    assert (__version__ if args == ["--version"] else "commands:") in done.stdout


def test_help_lists_every_command_and_every_command_has_help() -> None:
    text = call("--help").stdout
    assert all(f"  {name} " in text for name in COMMANDS)
    fit = call("fit", "--help").stdout
    for option in ("--run_dir", "--eval_every", "--save_every", "--ckpt_path", "--debug", "--data.corpus"):
        assert option in fit
    assert "Longest context in tokens" in fit  # GPTConfig's own words


def test_the_console_script_is_the_module() -> None:
    script = Path(sys.executable).with_name("lit-gpt-scratch")
    assert (
        subprocess.run([script, "--version"], capture_output=True, text=True).stdout
        == call("--version").stdout
    )


def test_an_error_is_written_in_one_piece() -> None:
    """Devices write to one terminal: what comes in pieces may be mixed with another's line."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # keeps writes apart
    with ours, theirs:
        command = [sys.executable, "-u", "-m", "lit_gpt_scratch", "evaluate", "--ckpt_path", "nowhere"]
        assert subprocess.run(command, env=environment(), stderr=theirs, timeout=120).returncode == 2
        written = ours.recv(10_000).decode()
    assert written.startswith("error: ")
    assert written.endswith("\n")


@pytest.mark.slow
def test_a_clean_run_warns_of_nothing(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "lit_gpt_scratch",
        "fit",
        *TINY,
        "--trainer.max_steps",
        "2",
        "--run_dir",
        str(tmp_path / "r"),
    ]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert done.stderr == ""


def test_a_mistake_exits_with_2_and_one_line() -> None:
    done = call("fit", "--config", ROOT / "configs" / "debug.yaml", "--model.n_head", "7")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "error: model.n_embd (64) must be a multiple of model.n_head (7): try 63\n"


def test_a_closed_pipe_ends_quietly(finished: Path) -> None:
    program = f"{sys.executable} -m lit_gpt_scratch"
    command = f"{program} predict --ckpt_path {finished} --num_samples 200 --max_new_tokens 100 | head -c 10"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], env=environment(), capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.returncode == 0
