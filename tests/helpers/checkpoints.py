"""Read and compare the checkpoints of runs."""

from pathlib import Path
from typing import Any

import torch

from lit_gpt_scratch.tools.verify_resume import COMPARED, first_difference


def last_checkpoint(folder: Path | str) -> dict[str, Any]:
    """Return the content of `last.ckpt` in a run folder."""
    return torch.load(Path(folder) / "last.ckpt", weights_only=True)


def best_checkpoint(folder: Path | str) -> dict[str, Any]:
    """Return the content of `best.ckpt` in a run folder."""
    return torch.load(Path(folder) / "best.ckpt", weights_only=True)


def bit_identical(one: Any, other: Any) -> bool:
    """Return whether two parts of checkpoints are equal, bit for bit."""
    return first_difference(one, other, "") is None


def assert_bit_identical_runs(one: Path | str, other: Path | str) -> None:
    """Compare the last and the best checkpoints of two runs, bit for bit."""
    for read in (last_checkpoint, best_checkpoint):
        first, second = read(one), read(other)
        for part in COMPARED:
            assert first_difference(first.get(part), second.get(part), f"{read.__name__} {part}") is None
