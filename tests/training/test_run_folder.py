"""Run folders."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lit_gpt_scratch.training.run_folder import create_run_folder


def test_folders_in_use_are_numbered(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run"
    assert [create_run_folder(path).name for _ in range(3)] == ["run", "run-2", "run-3"]


def test_existing_files_are_not_changed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "empty").mkdir()
    assert create_run_folder(tmp_path / "file").name == "file-2"
    assert create_run_folder(tmp_path / "full").name == "full-2"
    assert create_run_folder(tmp_path / "empty").name == "empty"
    assert (tmp_path / "file").read_text() == "mine"


def test_simultaneous_runs_get_different_folders(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        folders = list(pool.map(create_run_folder, [tmp_path / "run"] * 64))
    assert len(set(folders)) == 64
