"""Text files of folders and glob patterns."""

import os
from pathlib import Path

import pytest

from lit_gpt_scratch.data.text_files import find_text_files


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty working folder with square brackets in its name."""
    path = tmp_path / "a[b]"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


def write(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)


def found(source: str) -> list[str]:
    return [os.path.relpath(file) for file in find_text_files(source)[1]]


def test_visible_text_files_are_found_in_order_of_path(caplog: pytest.LogCaptureFixture) -> None:
    write("t/b.txt", "t/a/z.md", "t/.hidden.txt", "t/.git/c.txt", "t/c.json", "t/d.txt.gz")
    assert found("t") == ["t/a/z.md", "t/b.txt", "t/c.json", "t/d.txt.gz"]
    assert caplog.text == ""


def test_left_out_files_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    write("t/book.txt", "t/book.txt.gz", "t/image.png")
    assert found("t") == ["t/book.txt"]
    assert "t: 1 files are read, 2 are left out" in caplog.text


def test_linked_files_and_folders_are_read_once() -> None:
    write("t/a.txt", "elsewhere/b.txt", "elsewhere/deep/c.txt")
    Path("t/link").symlink_to("../elsewhere")
    Path("t/again").symlink_to("../elsewhere")
    Path("t/same.txt").symlink_to("a.txt")
    Path("elsewhere/back").symlink_to("../t")
    assert found("t") == ["t/a.txt", "t/again/b.txt", "t/again/deep/c.txt"]


def test_pattern_over_a_cycle_of_folders_reads_each_file_once() -> None:
    write("t/a.txt")
    Path("t/cycle").symlink_to(".")
    assert found("t/**/*.txt") == ["t/a.txt"]


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="root reads every folder")
def test_folder_that_cannot_be_opened_is_named(caplog: pytest.LogCaptureFixture) -> None:
    write("t/a.txt", "t/locked/b.txt")
    Path("t/locked").chmod(0)
    assert found("t") == ["t/a.txt"]
    Path("t/locked").chmod(0o700)
    assert "cannot open the folder t/locked: Permission denied" in caplog.text


def test_absolute_name_of_a_pattern_finds_the_same_files_from_elsewhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("x1.txt", "x2.txt", "../ab/x1.txt")
    name, files = find_text_files("x*.txt")
    assert [file.name for file in files] == ["x1.txt", "x2.txt"]
    monkeypatch.chdir("/")
    assert find_text_files(name)[1] == [folder / "x1.txt", folder / "x2.txt"]


def test_folder_without_text_is_rejected() -> None:
    write("t/image.png")
    with pytest.raises(
        ValueError, match="no .txt, .md, .jsonl, .parquet file, compressed or not, in the folder t"
    ):
        find_text_files("t")
