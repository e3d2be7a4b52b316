"""Closed streams, other encodings, broken links, missing folders."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.command_line import TINY, Run, environment, run_process
from lit_gpt_scratch.data.cache import cache_dir
from lit_gpt_scratch.training.run_folder import shell_path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="uses a POSIX shell")

SHORT = [*TINY, "--trainer.max_steps", "2"]


def shell(command: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a shell command in which $fit and $lit_gpt stand for the program."""
    program = f"{shell_path(sys.executable)} -m lit_gpt_scratch"
    names = {"lit_gpt": program, "fit": f"{program} fit {shlex.join(SHORT)}"}
    env = environment() | names | variables
    return subprocess.run(
        ["bash", "-c", command], cwd=cwd, env=env, capture_output=True, encoding="utf-8", timeout=300
    )


def test_run_folder_behind_a_broken_link_exits_2(run: Run, tmp_path: Path) -> None:
    Path("checkpoints").symlink_to(tmp_path / "not" / "mounted")
    done = run("fit", *SHORT)
    assert (done.code, done.err) == (
        2,
        "error: cannot make the folder checkpoints/run: checkpoints is a link to nothing\n",
    )


def test_fit_works_without_standard_streams(tmp_path: Path) -> None:
    done = shell("$fit --run_dir r <&- >&- 2>&-", tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "r" / "best.ckpt").is_file()


def test_unwritable_standard_output_is_an_error(tmp_path: Path, finished: Path) -> None:
    closed = shell(f"$lit_gpt predict --ckpt_path {finished} >&-", tmp_path)
    assert closed.returncode == 2
    assert closed.stderr == "error: standard output is closed, and predict prints its result there\n"
    if Path("/dev/full").exists():
        for command in (f"predict --ckpt_path {finished}", "--help"):
            full = shell(f"$lit_gpt {command} > /dev/full", tmp_path)
            assert full.returncode == 1
            assert full.stderr.count("\n") == 1
            assert "No space left on device" in full.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("target", ["&-", "/dev/full"])
def test_exit_code_is_correct_without_standard_error(
    tmp_path: Path, finished: Path, target: str, unbuffered: str
) -> None:
    wrong = "$lit_gpt predict --ckpt_path nothing"
    with_a_warning = f"$lit_gpt predict --ckpt_path {finished} --top_k 1000 --max_new_tokens 1"
    for command, code in ((wrong, 2), (with_a_warning, 0)):
        done = shell(f"{command} 2>{target}", tmp_path, PYTHONUNBUFFERED=unbuffered)
        assert done.returncode == code


def test_names_and_texts_are_utf8_in_the_posix_locale(tmp_path: Path) -> None:
    (tmp_path / "März.txt").write_text("Wer reitet so spät durch Nacht und Wind?\n" * 40, encoding="utf-8")
    locale = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = shell("$fit --data.corpus März.txt --run_dir r", tmp_path, **locale)
    assert done.returncode == 0, done.stderr
    assert "März.txt" in done.stdout
    resumed = shell("$lit_gpt fit --ckpt_path r --trainer.max_steps 3", tmp_path, **locale)
    assert resumed.returncode == 0, resumed.stderr
    assert "März.txt" in resumed.stdout


def test_terminal_without_a_width_shows_the_run(tmp_path: Path) -> None:
    assert shell("$fit --run_dir r", tmp_path, COLUMNS="0").stdout.startswith("corpus  hamlet")


def test_deleted_working_folder_exits_2(tmp_path: Path) -> None:
    done = shell("mkdir deleted; cd deleted; rmdir ../deleted; $fit --run_dir /r", tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: the working folder does not exist: change to another one\n"


def test_missing_folder_for_temporary_files_exits_2(tmp_path: Path) -> None:
    code = """
import tempfile
def no_folder(): raise FileNotFoundError(2, "No usable temporary directory found")
tempfile.gettempdir = no_folder
import sys; sys.argv = ["lit_gpt_scratch", "fit"]
from lit_gpt_scratch.__main__ import main; sys.exit(main())
"""
    done = run_process(code=code)
    assert done.returncode == 2
    assert done.stderr == "error: no folder for temporary files is writable: set TMPDIR to one\n"


def test_cache_folder_exists_without_a_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LIT_GPT_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # no entry in the password file
    assert cache_dir().is_absolute()


@pytest.mark.parametrize("option", ["--run_dir", "--ckpt_path", "--init_from", "--data.corpus"])
def test_tilde_without_a_home_folder_exits_2(run: Run, option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # no entry in the password file
    done = run("fit", *TINY, option, "~/x")
    assert done.code == 2
    assert done.err == "error: cannot expand ~ in a path: there is no home folder; write paths in full\n"


def test_unwritable_heatmap_is_reported_before_the_evaluation(
    run: Run, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    Path("pages").mkdir()
    done = run("evaluate", "--ckpt_path", finished, "--corpus", "hamlet", "--heatmap", "pages/page.html")
    assert done.code == 2
    assert done.out == ""
    assert "the folder" in done.err
    assert "is not writable" in done.err


def test_printed_commands_quote_paths(run: Run) -> None:
    assert "--ckpt_path ./-d1 " in run("fit", *SHORT, "--run_dir=-d1").out
    assert run("fit", "--ckpt_path", "./-d1", "--trainer.max_steps", "3").code == 0
    assert shell_path("my run") == "'my run'"


WITHOUT_LIGHTNING = """
import sys
from lit_gpt_scratch.__main__ import main
assert main() == 0
assert "lightning" not in sys.modules
"""


def test_tools_do_not_import_lightning(finished: Path, tmp_path: Path) -> None:
    """Importing Lightning takes seconds."""
    shutil.copytree(finished, tmp_path / "run")
    for args in (
        ["evaluate", "--ckpt_path", "run", "--corpus", "hamlet"],
        ["export", "--ckpt_path", "run", "--to", "exported"],
        ["scale", "--reference"],
    ):
        done = run_process(*args, code=WITHOUT_LIGHTNING, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
