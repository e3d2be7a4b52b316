"""Fixtures: the command line in this process, a finished run, and corpora that may be missing."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.command_line import TINY, Result, Run
from lit_gpt_scratch.__main__ import configure_process
from lit_gpt_scratch.cli.main import main
from lit_gpt_scratch.data import download
from lit_gpt_scratch.data.cache import cache_dir

configure_process()  # before torch and Lightning are imported


def pytest_configure(config: pytest.Config) -> None:
    """Handle signals as in a foreground shell, and give each parallel worker one core."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a shell's background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if config.getoption("numprocesses", None):
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the workers, which start after this


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Use an empty cache, with Tiny Shakespeare if the user's cache has it."""
    downloaded = cache_dir() / "shakespeare.txt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIT_GPT_CACHE", str(tmp_path_factory.mktemp("cache")))
        if downloaded.is_file():
            shutil.copy(downloaded, cache_dir())
        yield


@pytest.fixture(autouse=True)
def _unchanged_signal_handlers() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    yield
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs a command line in this process, in an empty working folder."""
    monkeypatch.chdir(tmp_path)

    def call(*args: object) -> Result:
        capfd.readouterr()
        if "--ckpt_path" in args and args[0] == "fit":  # TensorBoard sorts event files by the second
            time.sleep(1 - time.time() % 1)  # a real command takes several to start
        try:
            code = main([str(arg) for arg in args])
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return call


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished run: 40 steps on Hamlet, with dropout."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    args = ["--eval_every", "15", "--save_every", "15", "--trainer.log_every_n_steps", "5"]
    args += ["--trainer.max_steps", "40", "--model.dropout", "0.1", "--run_dir", str(folder)]
    assert main(["fit", *TINY, *args]) == 0
    return folder


@pytest.fixture(scope="session")
def shakespeare() -> str:
    """Return Tiny Shakespeare, if the cache has it: tests do not download."""
    path = cache_dir() / "shakespeare.txt"
    if not path.is_file():
        pytest.skip("Tiny Shakespeare is not in the cache; a run of configs/char.yaml puts it there")
    return path.read_text(encoding="utf-8")


@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Use an empty cache folder."""
    monkeypatch.setenv("LIT_GPT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, empty_cache: None) -> None:
    """Simulate an empty cache and a network that is down."""

    def down(url: str, path: Path) -> None:
        raise download.DownloadError("the network is down")

    monkeypatch.setattr(download, "_fetch", down)


@pytest.fixture
def hub_folder(tmp_path: Path) -> Path:
    """Return the folder `theirs`: a small GPT-2 of transformers with its tokenizer."""
    from helpers.hub import write_hub_folder  # transformers takes seconds to import, and may be missing

    folder = tmp_path / "theirs"
    write_hub_folder(folder)
    return folder
