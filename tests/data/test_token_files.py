"""Token files: tokens of a text, computed once and written atomically."""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from helpers.command_line import environment, run_process, run_with_file_size_limit, start_process
from helpers.marks import needs_gpt2_encoding
from lit_gpt_scratch.data import token_files
from lit_gpt_scratch.data.bpe import SubwordTokenizer, train_bpe
from lit_gpt_scratch.data.cache import cache_dir
from lit_gpt_scratch.data.corpus import Corpus, load_corpus
from lit_gpt_scratch.data.token_files import (
    MAX_UNCUT_CHARS,
    Tokens,
    batch_pieces,
    last_word_boundary,
    load_tokens,
    tokenize,
)
from lit_gpt_scratch.data.tokenizers import ByteTokenizer, CharTokenizer, Tokenizer

pytestmark = pytest.mark.usefixtures("empty_cache")
RNG = random.Random(3)
LETTERS = "aé☃Ж中 \n\t.,'0_-"


def random_text(n_chars: int) -> str:
    return "".join(RNG.choices(LETTERS, k=n_chars))


def all_tokens(corpus: Corpus, tokenizer: Tokenizer) -> Tokens:
    return load_tokens(corpus, 0, corpus.n_chars, tokenizer)


def bpe() -> SubwordTokenizer:
    return train_bpe(load_corpus("python_docs"), 100_000, 400)


def cached_token_files() -> list[str]:
    """Return the names of the token files in the cache, complete and unfinished."""
    files = [path for path in cache_dir().iterdir() if path.suffix != ".lock"]
    return sorted(path.name for path in files if path.name.lstrip(".").startswith("tokens-"))


@pytest.mark.parametrize("n_chars", [10, 100, 20_000])
def test_batched_text_has_the_tokens_of_the_original_text(n_chars: int) -> None:
    docs = "".join(piece or "" for piece in load_corpus("python_docs").pieces())
    text = random_text(20_000) + docs[:50_000]
    blocks = [text[i : i + n_chars] for i in range(0, len(text), n_chars)]
    cut = list(batch_pieces(iter(blocks), n_chars))
    assert len(cut) > len(text) / n_chars / 8  # several batches
    tokenizer = bpe()
    joined = np.concatenate([tokenizer.encode(piece or "") for batch in cut for piece in batch])
    assert joined.tolist() == tokenizer.encode(text).tolist()


@needs_gpt2_encoding
def test_batched_text_has_gpt2s_tokens_of_the_original_text() -> None:
    tokenizer = SubwordTokenizer.from_name("gpt2")
    text = random_text(50_000)
    blocks = [text[i : i + 100] for i in range(0, len(text), 100)]
    cut = [piece or "" for batch in batch_pieces(iter(blocks), 200) for piece in batch]
    assert len(cut) > 50
    assert np.concatenate([*map(tokenizer.encode, cut)]).tolist() == tokenizer.encode(text).tolist()


def test_border_is_between_a_letter_and_white_space() -> None:
    assert last_word_boundary("one two! three") == 3
    assert last_word_boundary("end.\n1 2 _ x'") == 0
    assert last_word_boundary("far" + " ." * 3000) == 3


def test_text_without_a_border_is_cut_at_a_maximal_length() -> None:
    text = "a " + "." * 2**19 + " " * 2**20 + "x"  # tiktoken fails on a million spaces in one piece
    for n_chars in (2**16, len(text)):
        blocks = (text[i : i + n_chars] for i in range(0, len(text), n_chars))
        pieces = [piece or "" for batch in batch_pieces(blocks) for piece in batch]
        assert "".join(pieces) == text
        assert max(map(len, pieces)) <= MAX_UNCUT_CHARS
    tokenizer = bpe()
    assert tokenizer.decode(np.concatenate([tokenizer.encode(piece) for piece in pieces])) == text


def test_documents_are_separated() -> None:
    corpus = Corpus.read("two", ("one", "two", "", "<|endoftext|>"))
    subwords = bpe()
    ids = all_tokens(corpus, subwords).ids.tolist()
    end = subwords.vocab_size - 1
    assert ids.count(end) == 2  # the last document is text
    assert ids[: ids.index(end)] == subwords.encode("one").tolist()
    for tokenizer in (ByteTokenizer(), CharTokenizer(corpus.alphabet)):
        tokens = all_tokens(corpus, tokenizer)
        assert tokenizer.decode(tokens.ids) == "one\n\ntwo\n\n<|endoftext|>"
        assert tokens.n_bytes == len("onetwo<|endoftext|>")  # without the separators


def test_token_file_uses_the_smallest_integer_type() -> None:
    corpus = Corpus.read("text", ("né" * 100,))
    tokens = all_tokens(corpus, CharTokenizer("né"))
    assert tokens.ids.dtype == np.uint16
    assert isinstance(tokens.ids.base, np.memmap)
    assert tokens.n_bytes == 300
    [ids_file, _] = cached_token_files()
    assert (cache_dir() / ids_file).stat().st_size == 400
    many = "".join(map(chr, range(0xE000, 0x1E001)))
    assert all_tokens(Corpus.read("many", (many,)), CharTokenizer(many)).ids.dtype == np.uint32


def test_tokens_are_cached_by_content_and_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.txt"
    file.write_text("some text")
    calls = 0

    def counted(*args: object) -> Iterator[object]:
        nonlocal calls
        calls += 1
        return tokenize(*args)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(token_files, "tokenize", counted)

    def load(tokenizer: Tokenizer, stop: int = 9) -> str:
        return tokenizer.decode(load_tokens(load_corpus(str(file)), 0, stop, tokenizer).ids)

    assert load(ByteTokenizer()) == load(ByteTokenizer()) == "some text"
    assert calls == 1
    assert load(CharTokenizer("some text")) == "some text"
    assert load(ByteTokenizer(), 4) == "some"
    assert calls == 3
    stamp = file.stat()
    file.write_text("same size")
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # only the content matters
    assert load(ByteTokenizer()) == "same size"
    file.rename(tmp_path / "b.md")
    assert calls == 4
    file = tmp_path / "b.md"
    assert load(ByteTokenizer()) == "same size"
    assert calls == 4


@pytest.mark.parametrize("suffix", [".bin", ".json"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "gone"])
def test_damaged_token_file_is_computed_again(
    suffix: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = Corpus.read("text", ("some text " * 100,))
    all_tokens(corpus, ByteTokenizer())
    [path] = [path for path in cache_dir().glob("tokens-*") if path.suffix == suffix]
    original = path.read_bytes()
    contents = {"flipped": original[:50] + b"7" + original[51:], "cut": original[:-2], "empty": b""}
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(contents[damage])
    assert ByteTokenizer().decode(all_tokens(corpus, ByteTokenizer()).ids) == "some text " * 100
    assert path.read_bytes() == original
    if (damage, suffix) != ("gone", ".json"):
        assert f"{path.name} is damaged and is computed again" in caplog.text


def test_tokens_load_without_a_writable_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LIT_GPT_CACHE", str(tmp_path / "file" / "cache"))
    tokens = all_tokens(Corpus.read("text", ("some text",)), ByteTokenizer())
    assert ByteTokenizer().decode(tokens.ids) == "some text"
    assert "the tokens are not kept" in caplog.text


PREPARE = """
import sys
from lit_gpt_scratch.data.datamodule import TextDataModule
data = TextDataModule(sys.argv[1], tokenizer=sys.argv[2], block_size=8, seed=0)
data.load("fit")
print(len(data.train_tokens), len(data.val_set.tokens), hash(data.train_tokens.ids.tobytes()))
"""

# Before PREPARE: kill the process after the given number of arrays of tokens.
KILLED_AFTER = """
import os, signal, sys
from lit_gpt_scratch.data import token_files as tokens
tokenize = tokens.tokenize
def killed(*args):
    for i, ids in enumerate(tokenize(*args)):
        if i == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
        yield ids
tokens.tokenize = killed
"""


def large_text(path: Path, n_bytes: int) -> Path:
    docs = "".join(piece or "" for piece in load_corpus("python_docs").pieces())
    with path.open("w") as stream:
        for i in range(n_bytes // len(docs) + 1):
            stream.write(f"{i}{docs}")
    return path


@pytest.mark.faults
def test_full_disk_ends_preparation_with_one_line(tmp_path: Path) -> None:
    text = large_text(tmp_path / "large.txt", 4 * 10**6)
    done = run_with_file_size_limit(10**6, tmp_path, "fit", "--data.corpus", text, "--run_dir", "r")
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"error: cannot write the tokens of {text} to {cache_dir()} (File too large)"
    )
    assert len(done.stderr.splitlines()) == 1
    assert cached_token_files() == []
    assert not (tmp_path / "r").exists()


def test_read_only_cache_is_used(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    corpus = Corpus.read("text", ("some text",))
    all_tokens(corpus, ByteTokenizer())

    def not_permitted(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("lit_gpt_scratch.data.cache.FileLock", not_permitted)
    assert len(all_tokens(corpus, ByteTokenizer())) == 9
    assert caplog.text == ""
    assert len(all_tokens(corpus, CharTokenizer("some text"))) == 9
    assert "the tokens are not kept" in caplog.text


@pytest.mark.faults
def test_killed_preparation_does_not_change_later_results(tmp_path: Path) -> None:
    text = large_text(tmp_path / "large.txt", 10 * 10**6)
    env = {**environment(), "PYTHONHASHSEED": "0"}
    for n_arrays in (0, 1, 4):
        killed = run_process(text, "char", n_arrays, code=KILLED_AFTER + PREPARE, env=env)
        assert killed.returncode == -signal.SIGKILL
        assert [Path(name).suffix for name in cached_token_files()] == [".part"]  # of the last killed process
    after = run_process(text, "char", code=PREPARE, env=env)
    assert after.returncode == 0
    assert "damaged" not in after.stderr
    env["LIT_GPT_CACHE"] = str(tmp_path / "another")
    undisturbed = run_process(text, "char", code=PREPARE, env=env)
    assert after.stdout == undisturbed.stdout
    assert {Path(name).suffix for name in cached_token_files()} == {".bin", ".json"}


@pytest.mark.faults
def test_simultaneous_preparations_agree(tmp_path: Path) -> None:
    text = large_text(tmp_path / "large.txt", 10 * 10**6)
    env = {**environment(), "PYTHONHASHSEED": "0"}
    processes = [start_process(text, "char", code=PREPARE, env=env) for _ in range(3)]
    results = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], results
    assert len({out for out, _ in results}) == 1
    assert len(cached_token_files()) == 4  # two files for each of the two parts


def test_waiting_thread_uses_the_result_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = Corpus.read("text", ("some text",))
    calls = 0

    def slow(*args: object) -> Iterator[object]:
        nonlocal calls
        calls += 1
        time.sleep(0.3)
        return tokenize(*args)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(token_files, "tokenize", slow)
    threads = [Thread(target=all_tokens, args=(corpus, ByteTokenizer())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == 1


def test_text_that_changes_while_it_is_read_is_rejected(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("some text")
    corpus = load_corpus(str(file))
    file.write_text("another text")
    with pytest.raises(ValueError, match="was changed while it was read: start again"):
        all_tokens(corpus, ByteTokenizer())
    assert cached_token_files() == []
