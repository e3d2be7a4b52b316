"""Fixtures: the command line run in this process, a finished run, and texts that may not be at hand."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import lit_gpt_scratch.__main__  # noqa: F401  # sets the environment as the entry point does
from lit_gpt_scratch.cli.main import main
from lit_gpt_scratch.data import corpus
from lit_gpt_scratch.data.cache import cache_dir
from lit_gpt_scratch.training.hardware import why_not_compile

# Bound on the relative difference of two gradients of tiny.yaml in bfloat16 that should be equal but for the
# order of their sums. A product rounds its results by at most 2^-9; some 40 products lie between a token and
# a gradient (2 blocks: 6 forward, 6 for the gradients of their inputs, 6 for those of their weights; and the
# head's). Independent errors add up as the root of their number, and both results have them.
BF16_TOLERANCE = (2 * 40) ** 0.5 * 2**-9  # 1.7 %
# A test that runs compiled code on the CPU.
needs_compiler = pytest.mark.skipif(why_not_compile() is not None, reason=f"{why_not_compile()}")
ROOT = Path(__file__).parent.parent
TINY = ["--config", str(ROOT / "tests" / "tiny.yaml")]


def pytest_configure(config: pytest.Config) -> None:
    """Tests that run side by side take a core each: with all of them for each, they wait for one another."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a shell's background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if config.getoption("numprocesses", None):
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the workers, which start after this


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache for the tests alone, with Tiny Shakespeare in it where the user's has it."""
    downloaded = cache_dir() / "shakespeare.txt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIT_GPT_CACHE", str(tmp_path_factory.mktemp("cache")))
        if downloaded.is_file():
            shutil.copy(downloaded, cache_dir())
        yield


@dataclass
class Result:
    """What a command line did."""

    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line in a folder of its own."""
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
    """The folder of a finished run: 40 steps on Hamlet, with dropout."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    steps = [
        "--trainer.max_steps",
        "40",
        "--eval_every",
        "15",
        "--save_every",
        "15",
        "--trainer.log_every_n_steps",
        "5",
    ]
    assert main(["fit", *TINY, *steps, "--model.dropout", "0.1", "--run_dir", str(folder)]) == 0
    return folder


@pytest.fixture(autouse=True)
def _same_signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    yield
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.fixture(scope="session")
def shakespeare() -> str:
    """Tiny Shakespeare, where the cache has it: no test downloads."""
    path = cache_dir() / "shakespeare.txt"
    if not path.is_file():
        pytest.skip("Tiny Shakespeare is not in the cache; a run of configs/char.yaml puts it there")
    return path.read_text(encoding="utf-8")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache and a network that is down."""

    def down(url: str, path: Path) -> None:
        raise corpus.DownloadError("the network is down")

    monkeypatch.setenv("LIT_GPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(corpus, "_download", down)


# What a run leaves for the processes of its further devices.
OF_A_RUN = {"MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE"}


def environment() -> dict[str, str]:
    """The environment of a command run as a process of its own."""
    return {name: value for name, value in os.environ.items() if name not in OF_A_RUN}


@pytest.fixture
def hub_folder(tmp_path: Path) -> Path:
    """A model of Hugging Face's with its tokenizer."""
    from hub import write_hub_folder  # transformers takes seconds, and may be missing

    folder = tmp_path / "theirs"
    write_hub_folder(folder)
    return folder


def two_devices(strategy: str) -> list[str]:
    """The options of a run of two processes on the CPU."""
    return ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", strategy]


ONE_DEVICE = ["--trainer.devices", "1", "--trainer.strategy", "auto"]


def with_small_files(n_bytes: int, folder: Path, *args: object) -> subprocess.CompletedProcess[str]:
    """Run a command line where no file may grow longer, as on a disk without room."""
    import resource  # Windows has none

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))

    return subprocess.run(
        [sys.executable, "-m", "lit_gpt_scratch", *map(str, args)],
        env=environment(),
        cwd=folder,
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
    )
