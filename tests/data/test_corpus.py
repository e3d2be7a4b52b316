"""Corpora by name, and from files, folders, glob patterns and URLs."""

import hashlib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from lit_gpt_scratch.data import corpus, download
from lit_gpt_scratch.data.corpus import HAMLET, load_corpus
from lit_gpt_scratch.data.download import DownloadError


def text_of(source: object) -> str:
    return "".join("|" if piece is None else piece for piece in load_corpus(str(source)).pieces())


def test_hamlet_contains_the_passage_once() -> None:
    text = text_of("hamlet")
    assert text.count("To be, or not to be") == 1
    assert len(text.splitlines()) == 14


def test_python_docs_are_long_prose() -> None:
    text = text_of("python_docs")
    assert len(text) > 300_000
    assert "expression" in text
    assert "====" not in text
    assert "\n\n\n" not in text


def test_fingerprint_has_size_and_sha256(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("né", encoding="utf-8")
    found = load_corpus(str(tmp_path / "a.txt")).fingerprint()
    assert found["n_chars"] == 2
    assert found["n_bytes"] == 3
    assert found["sha256"] == hashlib.sha256("né".encode()).hexdigest()


def test_folder_is_read_in_order_of_path(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("b.txt", "a.md", "sub/c.txt", "skipped.csv"):
        (tmp_path / name).write_text(name)
    assert text_of(tmp_path) == "a.md|b.txt|sub/c.txt"


def test_glob_pattern_selects_files(tmp_path: Path) -> None:
    for name in ("one.log", "two.log", "three.txt"):
        (tmp_path / name).write_text(name)
    assert text_of(tmp_path / "*.log") == "one.log|two.log"


def test_empty_file_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "x.txt").touch()
    with pytest.raises(ValueError, match="is empty"):
        load_corpus(str(tmp_path / "x.txt"))


def test_unknown_protocol_is_rejected() -> None:
    with pytest.raises(ValueError, match="cannot open gopher://x: Protocol not known"):
        load_corpus("gopher://x")


@pytest.mark.usefixtures("no_network")
def test_offline_corpus_replaces_a_failed_download_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert load_corpus("shakespeare", offline_corpus="hamlet").name == "hamlet"
    assert len(caplog.records) == 1
    assert "CANNOT DOWNLOAD shakespeare (the network is down)" in caplog.text
    with pytest.raises(ValueError, match="cannot download shakespeare: the network is down"):
        load_corpus("shakespeare", offline_corpus=None)
    with pytest.raises(ValueError, match="'nonsense' is none of"):
        load_corpus("shakespeare", offline_corpus="nonsense")


def test_download_is_verified_by_checksum_and_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_GPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "_fetch", lambda url, path: path.write_text("something else"))
    with pytest.raises(ValueError, match="checksum is wrong"):
        load_corpus("shakespeare")
    assert not (tmp_path / "cache" / "shakespeare.txt").exists()

    monkeypatch.setattr(download, "_fetch", lambda url, path: path.write_text("the right text"))
    monkeypatch.setattr(corpus, "SHAKESPEARE_SHA256", hashlib.sha256(b"the right text").hexdigest())
    assert text_of("shakespeare") == "the right text"

    def unexpected(url: str, path: Path) -> None:
        raise DownloadError("a second download")

    monkeypatch.setattr(download, "_fetch", unexpected)
    assert text_of("shakespeare") == "the right text"
    (tmp_path / "cache" / "shakespeare.txt").write_text("damaged")
    with pytest.raises(ValueError, match="a second download"):
        load_corpus("shakespeare")


class _TextServer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/text" else 404)
        self.end_headers()
        self.wfile.write(HAMLET.encode())

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def test_urls_are_downloaded_and_never_replaced() -> None:
    server = HTTPServer(("127.0.0.1", 0), _TextServer)
    Thread(target=server.serve_forever, daemon=True).start()
    site = f"http://127.0.0.1:{server.server_port}"
    assert text_of(f"{site}/text") == HAMLET
    with pytest.raises(ValueError, match="there is nothing at"):  # the host is reachable
        load_corpus(f"{site}/wrong", offline_corpus="hamlet")
    server.shutdown()
    server.server_close()
    with pytest.raises(ValueError, match="cannot download"):
        load_corpus(f"{site}/text", offline_corpus="hamlet")


def test_a_name_that_is_also_a_file_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("hamlet").write_text("My own text.")
    assert text_of("hamlet") == HAMLET
    assert "for the file of this name, give ./hamlet" in caplog.text
    assert text_of("./hamlet") == "My own text."


def test_error_in_a_download_names_its_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_fetch", lambda url, path: path.write_bytes(b"<html>not found</html>"))
    with pytest.raises(ValueError, match="^https://example.org/a.txt is an HTML page"):
        load_corpus("https://example.org/a.txt")


@pytest.mark.parametrize("url", ["https://example.org/a.txt.gz", "https://example.org/a.gz"])
def test_download_that_the_client_has_decompressed_is_read(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr(download, "_fetch", lambda url, path: path.write_text("plain text"))
    assert text_of(url) == "plain text"
