"""Text files of several formats, read as streams of documents."""

import bz2
import gzip
import json
import lzma
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from lit_gpt_scratch.data import readers
from lit_gpt_scratch.data.corpus import load_corpus
from lit_gpt_scratch.data.readers import file_format, join_documents, read_pieces, slice_chars


def pieces_of(path: Path) -> list[str | None]:
    return list(join_documents(read_pieces(path)))


def test_blocks_of_any_size_join_to_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "né\r\nЖ☃\U0001f600\r" * 50
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    for n_bytes in (1, 2, 3, 7, 2**20):  # blocks that split characters and line ends
        monkeypatch.setattr(readers, "BLOCK_BYTES", n_bytes)
        assert "".join(piece or "" for piece in pieces_of(tmp_path / "a.txt")) == "né\nЖ☃\U0001f600\n" * 50


@pytest.mark.parametrize("n_bytes", [1, 2, 1000])
def test_invalid_byte_is_reported_with_its_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_bytes: int
) -> None:
    monkeypatch.setattr(readers, "BLOCK_BYTES", n_bytes)
    (tmp_path / "latin1.txt").write_bytes("né 5 ".encode() + b"\xe9 noir")
    with pytest.raises(ValueError, match=r"not UTF-8 text \(byte 6\)"):
        pieces_of(tmp_path / "latin1.txt")
    (tmp_path / "cut.txt").write_bytes("né".encode()[:-1])
    with pytest.raises(ValueError, match=r"not UTF-8 text \(byte 1\)"):
        pieces_of(tmp_path / "cut.txt")
    (tmp_path / "zero.txt").write_bytes(b"abc\0")
    with pytest.raises(ValueError, match="binary file.* zero byte at 3"):
        pieces_of(tmp_path / "zero.txt")


def test_jsonl_line_is_a_document(tmp_path: Path) -> None:
    lines = [{"text": "one\r\ntwo"}, {"text": "", "id": 7}, {"text": "trois ☃"}]
    (tmp_path / "a.jsonl").write_text("\n\n".join(map(json.dumps, lines)) + "\n")
    assert pieces_of(tmp_path / "a.jsonl") == ["one\ntwo", None, "trois ☃"]


@pytest.mark.parametrize(
    "line", ["{}", "[1]", '{"text": 3}', '"text"', '{"text": "cut', '{"text": "\\ud800"}']
)
def test_invalid_jsonl_line_is_reported_with_its_number(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n\n' + line + "\n")
    with pytest.raises(ValueError, match=r'a\.jsonl: line 3 is not a JSON object with a text under "text"'):
        pieces_of(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("suffix", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)]
)
def test_compressed_files_are_read_and_damaged_ones_rejected(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    (tmp_path / f"a.txt.{suffix}").write_bytes(compress(b"one\r\n"))
    (tmp_path / f"enwik.{suffix}").write_bytes(compress(b"two"))
    (tmp_path / f"b.jsonl.{suffix}").write_bytes(compress(b'{"text": "three"}\n{"text": "four"}'))
    assert list(load_corpus(str(tmp_path)).pieces()) == ["one\n", None, "three", None, "four", None, "two"]
    whole = compress(b"text " * 1000)
    middle = len(whole) // 2
    damaged = {
        "cut": whole[:-9],
        "other": b"not compressed",
        "flipped": whole[:middle]
        + bytes(255 - byte for byte in whole[middle : middle + 2])
        + whole[middle + 2 :],
    }
    for name, content in damaged.items():
        (tmp_path / f"{name}.{suffix}").write_bytes(content)
        with pytest.raises(ValueError, match=f"cannot read .*{name}.{suffix}"):
            pieces_of(tmp_path / f"{name}.{suffix}")


def test_parquet_row_is_a_document(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    def write(name: str, **columns: Iterable[object]) -> Path:
        parquet.write_table(pyarrow.table(columns), tmp_path / name)
        return tmp_path / name

    texts = ["one", None, "", "two\r\n"] + ["more"] * 1000
    pieces = pieces_of(write("a.parquet", text=texts, n=range(1004)))
    assert pieces[:5] == ["one", None, "two\n", None, "more"]
    with pytest.raises(ValueError, match="needs one string column named text; its columns: title"):
        pieces_of(write("b.parquet", title=["x"]))
    with pytest.raises(ValueError, match="needs one string column named text; its columns: text"):
        pieces_of(write("c.parquet", text=[1, 2]))
    for kind in (pyarrow.dictionary(pyarrow.int32(), pyarrow.string()), pyarrow.large_string()):
        assert pieces_of(write("e.parquet", text=pyarrow.array(["one", "two"], kind))) == ["one", None, "two"]
    twice = pyarrow.table([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["text", "text"])
    parquet.write_table(twice, tmp_path / "f.parquet")
    with pytest.raises(ValueError, match="needs one string column named text; its columns: text, text"):
        pieces_of(tmp_path / "f.parquet")
    (tmp_path / "d.parquet").write_bytes(b"not a table")
    with pytest.raises(ValueError, match=r"d\.parquet is not a parquet file"):
        pieces_of(tmp_path / "d.parquet")


def test_parquet_without_pyarrow_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ValueError, match="needs pyarrow: pip install pyarrow"):
        pieces_of(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.TXT", ".txt"),
        ("a.md.gz", ".md"),
        ("enwik9.gz", ".txt"),
        ("a.b.jsonl", ".jsonl"),
        ("a.tar.gz", None),
        ("a.parquet.gz", None),
        ("a.csv", None),
        ("README", None),
    ],
)
def test_file_format_follows_the_suffixes(name: str, expected: str | None) -> None:
    assert file_format(Path(name)) == expected


def test_folder_is_read_with_all_its_text_formats(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}')
    (tmp_path / "b.md").write_text("")
    (tmp_path / "c.txt").write_text("three")
    (tmp_path / "d.tar.gz").write_bytes(b"an archive")
    corpus = load_corpus(str(tmp_path))
    assert list(corpus.pieces()) == ["one", None, "two", None, "three"]
    assert corpus.n_chars == corpus.n_bytes == 11
    assert corpus.alphabet == "\nehnortw"  # a newline separates documents


def test_slice_chars_equals_string_slicing() -> None:
    stream = ["ab", "cd", None, "efg", None, "h"]
    texts = "abcdefgh"
    for start in range(9):
        for stop in range(start, 9):
            pieces = list(slice_chars(iter(stream), start, stop))
            assert "".join(piece or "" for piece in pieces) == texts[start:stop]
            separators = sum(start < separator < stop for separator in (4, 7))
            assert pieces.count(None) == separators


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".jsonlines", ".json", ".JSONL"])
def test_json_lines_are_read_under_all_their_names(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"docs{suffix}").write_text('{"text": "one"}\n{"text": "two"}\n')
    assert pieces_of(tmp_path / f"docs{suffix}") == ["one", None, "two"]


def test_compressed_json_is_json_lines(tmp_path: Path) -> None:
    (tmp_path / "docs.json.gz").write_bytes(gzip.compress(b'{"text": "one"}\n'))
    assert pieces_of(tmp_path / "docs.json.gz") == ["one"]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "is an HTML page"),
        (b"<html lang=en>", "is an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
        ("To be".encode("utf-16"), "is UTF-16, not UTF-8; convert it: iconv -f utf-16 -t utf-8"),
        ("It\u2019s \u20ac5".encode("cp1252"), "iconv -f cp1252 -t utf-8"),
        ("na\u00efve".encode("latin1"), "iconv -f ENCODING -t utf-8"),
        ("\u6d4b\u8bd5".encode("gbk") + b"\x81\x40", "iconv -f ENCODING -t utf-8"),
    ],
)
def test_files_that_are_not_the_meant_text_are_named(tmp_path: Path, content: bytes, kind: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(kind)):
        pieces_of(tmp_path / "a.txt")
