"""Checkpoint files: found, written atomically, and read as data only."""

import os
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.checkpoints import best_checkpoint, last_checkpoint
from helpers.command_line import Run
from lit_gpt_scratch.training.atomic_checkpoint_io import AtomicCheckpointIO
from lit_gpt_scratch.training.checkpoint import find_checkpoint, read_checkpoint, write_checkpoint


class Malicious:
    """An object that runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def test_run_folder_stands_for_its_best_checkpoint(finished: Path, tmp_path: Path) -> None:
    assert find_checkpoint(finished / "last.ckpt") == finished / "last.ckpt"
    assert find_checkpoint(finished) == finished / "best.ckpt"
    (tmp_path / "last.ckpt").touch()
    assert find_checkpoint(tmp_path) == tmp_path / "last.ckpt"
    with pytest.raises(ValueError, match="no such checkpoint"):
        find_checkpoint(tmp_path / "nothing")


def test_truncated_and_foreign_files_are_rejected(finished: Path, tmp_path: Path, run: Run) -> None:
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
def test_code_in_a_checkpoint_is_not_executed(finished: Path, tmp_path: Path, run: Run, place: str) -> None:
    marker, path = tmp_path / "executed", tmp_path / "crafted.ckpt"
    checkpoint: Any = best_checkpoint(finished)
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


@pytest.mark.parametrize("seed", range(20))
def test_flipped_bit_is_detected(finished: Path, tmp_path: Path, seed: int) -> None:
    rng, whole = random.Random(seed), bytearray((finished / "best.ckpt").read_bytes())
    with zipfile.ZipFile(finished / "best.ckpt") as archive:
        entry = rng.choice(archive.infolist())
        begin = entry.header_offset + whole[entry.header_offset :].index(archive.read(entry))
    whole[begin + rng.randrange(entry.file_size)] ^= 1 << rng.randrange(8)
    path = tmp_path / "flipped.ckpt"
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"flipped.ckpt is damaged, or not a checkpoint"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c["hyper_parameters"].update(n_embd=2**40),
        lambda c: c["hyper_parameters"].update(n_layer=10**9),
        lambda c: (
            c["hyper_parameters"].update(arch="modern", block_size=10**12)
            or c["state_dict"].pop("gpt.wpe.weight")
        ),
        lambda c: c["state_dict"].update({"gpt.ln_f.weight": torch.ones(1).expand(10**12)}),
        lambda c: c["optimizer_states"][0]["state"][0].update(exp_avg=torch.ones(1).expand(10**6, 10**6)),
    ],
    ids=["n_embd", "n_layer", "block_size", "weights", "optimizer"],
)
def test_inconsistent_sizes_are_rejected(
    finished: Path, tmp_path: Path, run: Run, damage: Callable[[dict[str, Any]], object]
) -> None:
    checkpoint = last_checkpoint(finished)
    damage(checkpoint)
    torch.save(checkpoint, tmp_path / "inconsistent.ckpt")
    for command in ("fit", "predict", "validate"):
        done = run(command, "--ckpt_path", "inconsistent.ckpt")
        assert done.code == 2
        assert done.err == "error: inconsistent.ckpt is damaged: its sizes do not fit each other\n"


def test_compressed_checkpoint_is_rejected(finished: Path, tmp_path: Path) -> None:
    """A few kilobytes of zip can hold gigabytes of zeros."""
    path = tmp_path / "small.ckpt"
    with zipfile.ZipFile(finished / "best.ckpt") as stored, zipfile.ZipFile(path, "w") as small:
        for entry in stored.infolist():
            small.writestr(entry.filename, stored.read(entry), zipfile.ZIP_DEFLATED)
    for mmap in (False, True):
        with pytest.raises(ValueError, match="damaged, or not a checkpoint"):
            read_checkpoint(path, mmap=mmap)


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    path.write_text("old")
    with pytest.raises((AttributeError, pickle.PicklingError)):
        write_checkpoint({"weights": torch.ones(3), "not picklable": lambda: None}, path)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("x.ckpt", "old")]
    with pytest.raises(OSError, match="cannot write .*x.ckpt/y.ckpt: "):
        write_checkpoint({}, path / "y.ckpt")
