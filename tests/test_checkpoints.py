"""What is read as a checkpoint and what is not; how one is written."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Run

from lit_gpt_scratch.training.checkpoint_io import AtomicCheckpointIO, find_checkpoint, read_checkpoint


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def test_a_file_a_folder_and_what_a_folder_means(finished: Path, tmp_path: Path) -> None:
    assert find_checkpoint(finished / "last.ckpt") == finished / "last.ckpt"
    assert find_checkpoint(finished) == finished / "best.ckpt"
    (tmp_path / "last.ckpt").touch()
    assert find_checkpoint(tmp_path) == tmp_path / "last.ckpt"
    with pytest.raises(ValueError, match="no such checkpoint"):
        find_checkpoint(tmp_path / "nothing")


def test_truncated_and_foreign_files(finished: Path, tmp_path: Path, run: Run) -> None:
    whole = (finished / "best.ckpt").read_bytes()
    (tmp_path / "truncated.ckpt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.ckpt").write_text("not a checkpoint at all")
    (tmp_path / "empty.ckpt").touch()
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    for path in tmp_path.glob("*.ckpt"):
        for command in ("validate", "predict"):
            done = run(command, "--ckpt_path", path)
            assert done.code == 2, path
            assert done.out == ""
            assert done.err.count("\n") == 1
            assert f"{path}" in done.err
            assert "checkpoint of this program" in done.err


@pytest.mark.parametrize("place", ["alone", "hyper_parameters", "callbacks", "old format"])
def test_nothing_in_a_checkpoint_is_executed(finished: Path, tmp_path: Path, run: Run, place: str) -> None:
    marker, path = tmp_path / "executed", tmp_path / "crafted.ckpt"
    checkpoint: Any = torch.load(finished / "best.ckpt", weights_only=True)
    if place in checkpoint:
        checkpoint[place]["extra"] = Malicious(marker)
    else:
        checkpoint = Malicious(marker)
    if place == "old format":
        path.write_bytes(pickle.dumps(checkpoint))
    else:
        torch.save(checkpoint, path)
    for command in ("fit", "validate", "test", "predict"):
        done = run(command, "--ckpt_path", path)
        assert done.code == 2
        assert done.err.count("\n") == 1
    with pytest.raises(ValueError, match="damaged"):
        AtomicCheckpointIO().load_checkpoint(path, weights_only=False)
    assert not marker.exists()


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    io, path = AtomicCheckpointIO(), tmp_path / "x.ckpt"
    data = {"TextDataModule": {"tokenizer": {}, "corpus": {}}, "datamodule_hyper_parameters": {}}
    parts = {"hyper_parameters": {}, "global_step": 1, **data}
    io.save_checkpoint({**parts, "state_dict": {"w": torch.ones(3)}}, path)

    def disk_full(checkpoint: Any, stream: Any) -> None:
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", disk_full)
    with pytest.raises(OSError, match="No space left"):
        io.save_checkpoint({}, path)
    assert torch.equal(read_checkpoint(path)["state_dict"]["w"], torch.ones(3))
    assert [file.name for file in tmp_path.iterdir()] == ["x.ckpt"]
