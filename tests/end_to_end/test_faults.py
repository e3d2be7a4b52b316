"""Kills, signals, full disks and lost devices."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.checkpoints import assert_bit_identical_runs
from helpers.command_line import (
    LOG_EVERY_STEP,
    ONE_DEVICE,
    ROOT,
    TINY,
    Run,
    environment,
    run_process,
    start_process,
    two_devices,
)
from helpers.events import scalars
from lit_gpt_scratch.cli.main import main

pytestmark = pytest.mark.faults
FREQUENT_SAVES = ["--eval_every", "5", "--save_every", "3", "--trainer.max_steps", "40", *LOG_EVERY_STEP]


def run_on_small_disk(folder: Path, n_kib: int, script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script with `fit` and with a folder `disk`, which is a file system of limited size."""
    (folder / "disk").mkdir()
    in_namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size={n_kib}k tmpfs disk"
    if (
        shutil.which("unshare") is None
        or subprocess.run([*in_namespace, mount], cwd=folder, check=False).returncode
    ):
        pytest.skip("needs the right to mount a file system of its own")
    fit = f'fit() {{ "{sys.executable}" -m lit_gpt_scratch fit {" ".join(TINY)} "$@"; }}'
    return subprocess.run(
        [*in_namespace, f"{mount}; {fit}; {script}", "sh", *FREQUENT_SAVES],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("often") / "run"
    args = [*TINY, "--model.dropout", "0.2", *FREQUENT_SAVES, "--run_dir", str(folder)]
    assert main(["fit", *args]) == 0
    return folder


def step_of(path: Path) -> int:
    return int(torch.load(path, weights_only=True)["global_step"])


def start_fit_on_one_core(*args: object) -> subprocess.Popen[str]:
    """Start a run on one core; there are two at a time."""
    return start_process("fit", *args, env=environment() | {"OMP_NUM_THREADS": "1"}, stderr=None)


def kill_and_resume(args: list[str], run_dir: Path, n_kills: int, rng: random.Random) -> None:
    """Start a run, kill and resume it `n_kills` times, and resume it to its end."""
    last = run_dir / "last.ckpt"
    longest_seconds = 0.7
    for _ in range(n_kills):
        beginning = ["--ckpt_path", run_dir] if last.exists() else [*args, "--run_dir", run_dir]
        with start_fit_on_one_core(*beginning) as process:
            assert process.stdout is not None
            while not (line := process.stdout.readline()).startswith("run "):  # the last line before training
                assert line, "the run ended before the last kill"
            time.sleep(rng.uniform(0.1, longest_seconds))
            process.kill()
        assert process.returncode == -signal.SIGKILL
        if not last.exists():  # killed before the first save: start again
            shutil.rmtree(run_dir)
            longest_seconds *= 2  # on a slow machine
    assert 0 < step_of(last) < 3000
    with start_fit_on_one_core("--ckpt_path", run_dir) as process:
        process.communicate()
    assert process.returncode == 0


def test_resume_is_bit_identical_after_twenty_kills_at_random_times(run: Run, tmp_path: Path) -> None:
    """A large part of this run's time is spent on saves and evaluations."""
    length = ["--eval_every", "30", "--save_every", "10", "--trainer.max_steps", "3000", *LOG_EVERY_STEP]
    args = [*TINY, "--model.dropout", "0.2", *length, "--callbacks.ema", "true"]
    args += ["--callbacks.early_stopping", "true", "--early_stopping.patience", "1000"]
    folders = [tmp_path / "one", tmp_path / "other"]
    with ThreadPoolExecutor() as executor:
        killed = [
            executor.submit(kill_and_resume, args, folder, 10, random.Random(seed))
            for seed, folder in enumerate(folders)
        ]
        for each in killed:
            each.result()
    with start_fit_on_one_core(*args, "--run_dir", "straight") as process:
        process.communicate()
    for folder in folders:
        assert_bit_identical_runs(Path("straight"), folder)
        for tag in ("train/loss", "val/loss"):
            assert scalars(Path("straight"), tag) == scalars(folder, tag)
        assert not list(folder.glob(".*"))


KILL_AT_MOMENT = """
import io, os, signal, sys
import torch
from lit_gpt_scratch.cli.main import main
from lightning.pytorch.loggers import TensorBoardLogger
from lit_gpt_scratch.training import module
from lit_gpt_scratch.training.callbacks import samples

def kill_at(owner, name, number, first=lambda *args: None):
    real, n_calls = getattr(owner, name), 0
    def call(*args, **kwargs):
        nonlocal n_calls
        n_calls += 1
        if n_calls == number:
            first(*args)
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    setattr(owner, name, call)

def write_half(checkpoint, stream):
    whole = io.BytesIO()
    save(checkpoint, whole)
    stream.write(whole.getvalue()[: whole.tell() // 2])
    stream.flush()

save = torch.save
moments = {
    "half of a checkpoint": (torch, "save", 3, write_half),
    "a checkpoint before its renaming": (os, "fsync", 5),
    "a checkpoint after its renaming": (os, "replace", 5, os.replace),
    "an evaluation": (module.LitGPT, "validation_step", 9),
    "a sample": (samples, "generate_tokens", 3),
    "a log": (TensorBoardLogger, "log_metrics", 20),
    "a gradient": (module.LitGPT, "backward", 14),
}
kill_at(*moments[sys.argv[1]])
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    "moment",
    [
        "half of a checkpoint",
        "a checkpoint before its renaming",
        "a checkpoint after its renaming",
        "an evaluation",
        "a sample",
        "a log",
        "a gradient",
    ],
)
def test_resume_is_bit_identical_after_sigkill(run: Run, uninterrupted: Path, moment: str) -> None:
    args = [*TINY, "--model.dropout", "0.2", *FREQUENT_SAVES, "--run_dir", "killed"]
    done = run_process(moment, "fit", *args, code=KILL_AT_MOMENT)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert 0 < step_of(Path("killed/last.ckpt")) < 40
    assert run("fit", "--ckpt_path", "killed").code == 0
    assert_bit_identical_runs(uninterrupted, Path("killed"))
    for tag in ("train/loss", "val/loss"):
        assert scalars(uninterrupted, tag) == scalars(Path("killed"), tag)
    assert not list(Path("killed").rglob(".*"))


SIGNAL_AT_FIRST_EVALUATION = """
import os, sys
from lit_gpt_scratch.__main__ import configure_process
configure_process()
from lit_gpt_scratch.cli.main import main
from lit_gpt_scratch.training.module import LitGPT
def signalled(self, *args):
    assert os.path.exists("r/config.yaml")
    os.kill(os.getpid(), int(sys.argv[1]))
LitGPT.validation_step = signalled
sys.exit(main(sys.argv[2:]))
"""


def start_two_devices(strategy: str, awaited_file: str = "two/last.ckpt") -> subprocess.Popen[str]:
    """Start a run of two processes, and wait until it has written a file."""
    length = ["--trainer.max_steps", "3000", "--eval_every", "1000", "--save_every", "20", "--run_dir", "two"]
    process = start_process("fit", *TINY, *two_devices(strategy), *length, start_new_session=True)
    while not Path(awaited_file).exists():
        assert process.poll() is None
        time.sleep(0.05)
    return process


def second_device(process: subprocess.Popen[str]) -> int:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    (second,) = map(int, children.read_text().split())
    return second


@pytest.mark.parametrize(
    ("strategy", "sent_to", "sent", "code"),
    [
        ("ddp", "first", signal.SIGTERM, 143),
        ("ddp", "second", signal.SIGTERM, 143),
        ("ddp", "first", signal.SIGINT, 130),
        ("ddp", "second", signal.SIGINT, 143),  # the first device does not know which signal it was
        ("fsdp", "first", signal.SIGINT, 130),
        ("fsdp", "second", signal.SIGTERM, 143),
    ],
)
def test_two_devices_stop_together(
    run: Run, strategy: str, sent_to: str, sent: signal.Signals, code: int
) -> None:
    process = start_two_devices(strategy)
    os.kill(process.pid if sent_to == "first" else second_device(process), sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    step = step_of(Path("two/last.ckpt"))
    lines = [line for line in err.splitlines() if not line.startswith("WARNING: stopping after this step")]
    assert lines == [
        f"WARNING: stopped; step {step} is saved, resume with: python -m lit_gpt_scratch fit --ckpt_path two"
    ]
    assert run("fit", "--ckpt_path", "two", *ONE_DEVICE, "--trainer.max_steps", step + 3).code == 0


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_signal_before_the_first_step_leaves_no_files(
    run: Run, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    """The signal arrives during the evaluation of step 0."""
    done = run_process(int(sent), "fit", *TINY, "--run_dir", "r", code=SIGNAL_AT_FIRST_EVALUATION)
    assert (done.returncode, done.stderr) == (code, "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_death_of_one_device_ends_the_run(run: Run, strategy: str) -> None:
    process = start_two_devices(strategy)
    os.kill(second_device(process), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.endswith("error: the process of another device ended before this one\n")
    assert "resume with: python -m lit_gpt_scratch fit --ckpt_path two" in err
    step = step_of(Path("two/last.ckpt"))
    assert run("fit", "--ckpt_path", "two", *ONE_DEVICE, "--trainer.max_steps", step + 3).code == 0


def test_torchrun_starts_one_run_on_two_devices(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "taken").touch()
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launch, "-m", "lit_gpt_scratch", "fit", *TINY, *two_devices("ddp"), "--run_dir", "r"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("step 20/20") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r", "r-2"]
    assert step_of(tmp_path / "r-2" / "last.ckpt") == 20


SLURM_FUNCTIONS = """
srun() { "$@" --trainer.accelerator cpu --trainer.max_steps 1500 & echo $! > pid; wait $!; }
scontrol() { echo "$@" > requeued; }
SLURM_NTASKS_PER_NODE=1 SLURM_NNODES=1 SLURM_JOB_ID=7
set -- config.yaml run
"""


def test_preempted_slurm_job_is_requeued_and_resumed(tmp_path: Path) -> None:
    """docs/slurm.sbatch, with functions in place of Slurm's commands."""
    script = SLURM_FUNCTIONS + (ROOT / "docs" / "slurm.sbatch").read_text()
    shutil.copy(TINY[1], tmp_path / "config.yaml")
    bin_folder = Path(sys.executable).parent
    job: dict[str, Any] = {
        "cwd": tmp_path,
        "env": environment() | {"PATH": f"{bin_folder}:{os.environ['PATH']}"},
        "stdout": subprocess.DEVNULL,
    }
    first = subprocess.Popen(["bash", "-c", script], **job)
    while not (tmp_path / "run" / "last.ckpt").exists():
        assert first.poll() is None
        time.sleep(0.05)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
    assert first.wait(60) == 143
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"
    assert 0 < step_of(tmp_path / "run" / "last.ckpt") < 1500
    assert subprocess.run(["bash", "-c", script], **job).returncode == 0
    assert step_of(tmp_path / "run" / "last.ckpt") == 1500
    assert not (tmp_path / "run-2").exists()


def test_full_disk_ends_the_run_and_keeps_its_checkpoints(run: Run, tmp_path: Path) -> None:
    script = 'fit "$@" --run_dir disk/r; code=$?; cp -a disk/r kept; exit $code'
    done = run_on_small_disk(tmp_path, 1000, script)
    assert done.returncode == 1  # the disk holds two checkpoints, but not a third one
    lines = done.stderr.splitlines()
    assert lines[0].startswith("WARNING: stopped; step 3 is saved, resume with: ")
    assert lines[1].startswith("error: cannot write ")
    assert lines[1].endswith("/disk/r/last.ckpt: No space left on device")
    assert len(lines) == 2
    assert not list(Path("kept").glob(".*"))
    assert step_of(Path("kept/last.ckpt")) == 3
    assert step_of(Path("kept/best.ckpt")) == 5
    assert run("fit", "--ckpt_path", "kept").code == 0
    assert run("fit", *TINY, *FREQUENT_SAVES, "--run_dir", "straight").code == 0
    assert_bit_identical_runs(Path("straight"), Path("kept"))


def test_read_only_disk_ends_the_run_with_one_error(tmp_path: Path) -> None:
    script = """
        fit "$@" --trainer.max_steps 4000 --run_dir disk/r &
        while ! [ -f disk/r/last.ckpt ]; do sleep 0.1; done
        mount -o remount,ro disk || exit 77
        wait $!; code=$?; cp -a disk/r kept; exit $code"""
    done = run_on_small_disk(tmp_path, 4000, script)
    if done.returncode == 77:  # remount fails while a file is open
        pytest.skip(done.stderr)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1  # TensorBoard's thread may print other lines
    assert "Read-only file system" in errors[0]
    assert step_of(tmp_path / "kept" / "last.ckpt") > 0
