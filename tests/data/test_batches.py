"""Windows of tokens for training and evaluation."""

import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from helpers.checkpoints import last_checkpoint
from helpers.command_line import TINY, Run
from lit_gpt_scratch.data.batches import (
    TrainBatches,
    gather,
    random_starts,
    spread_starts,
)
from lit_gpt_scratch.data.datamodule import TextDataModule

TOKENS = np.arange(1000, dtype=np.uint16)


def batches(**changed: int) -> TrainBatches:
    settings = {
        "block_size": 8,
        "batch_size": 12,
        "micro_batch_size": 12,
        "seed": 1,
        "first_step": 0,
        "n_steps": 5,
    }
    return TrainBatches(TOKENS, **(settings | changed))


def rows(items: list[tuple[torch.Tensor, torch.Tensor]]) -> list[list[int]]:
    return [row for inputs, _ in items for row in inputs.tolist()]


def test_targets_are_the_inputs_shifted_by_one_token() -> None:
    inputs, targets = gather(TOKENS, np.array([0, 500, 991]), 8)
    assert inputs[1].tolist() == list(range(500, 508))
    assert torch.equal(targets, inputs + 1)
    assert int(targets.max()) == 999  # the last token is a target


def test_starts_are_uniform_over_all_windows() -> None:
    starts = random_starts(n_tokens=20, block_size=8, batch_size=12_000, seed=0, step=0)
    values, counts = np.unique(starts, return_counts=True)
    assert values.tolist() == list(range(12))
    assert counts.min() > 850  # expected 1000, standard deviation 30
    assert counts.max() < 1150


def test_late_step_of_a_large_text_takes_constant_time(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    with path.open("wb") as file:
        file.truncate(10 * 10**9)  # a sparse file of ten gigabytes
    tokens = np.memmap(path, dtype=np.uint16, mode="r")
    late = TrainBatches(tokens, 8, 12, 12, seed=1, first_step=10**6, n_steps=10**6 + 1)
    started = time.perf_counter()
    (item,) = list(late)
    assert time.perf_counter() - started < 0.5  # a millisecond; iterating over the steps would take minutes
    assert rows(item) == [[0] * 8] * 12


def test_batch_is_a_function_of_seed_and_step() -> None:
    steps = [rows(item) for item in batches()]
    assert len(steps) == 5
    assert steps == [rows(item) for item in batches()]
    assert steps != [rows(item) for item in batches(seed=2)]
    assert len({str(step) for step in steps}) == 5


def test_batches_continue_at_the_resumed_step() -> None:
    resumed = batches(first_step=3)
    assert [rows(item) for item in resumed] == [rows(item) for item in batches()][3:]
    assert len(resumed) == 5  # a resumed Trainer counts from the run's first step


def test_spread_windows_cover_the_text_evenly() -> None:
    starts = spread_starts(1000, 8, 5)
    assert starts[0] == 0
    assert starts[-1] == 991
    assert set(np.diff(starts)) <= {247, 248}


def test_long_validation_text_is_evaluated_on_fixed_windows(run: Run) -> None:
    """The windows are a quarter of the text, and bits per byte are computed from their bytes."""
    Path("long.txt").write_text("abcd" * 4000 + "é☃" * 2000)
    val = ["--data.corpus", "long.txt", "--data.val_fraction", "0.5", "--data.max_val_tokens", "2500"]
    done = run("fit", *TINY, *val, "--run_dir", "r")
    assert done.code == 0
    assert "2,496 of 10,000 to validate on" in done.out
    data = TextDataModule(
        str(Path("long.txt")), val_fraction=0.5, max_val_tokens=2500, batch_size=8, block_size=32, seed=0
    )
    data.trainer = Trainer(logger=False, enable_checkpointing=False)
    data.setup("fit")
    batches_evaluated = data.val_dataloader()[0]
    targets = torch.cat([targets for _, targets in batches_evaluated]).flatten()
    assert len(targets) == 2496
    n_bytes = len("".join(data.tokenizer.decode(targets.tolist())).encode())
    assert data.val_set.bytes_per_token == pytest.approx(n_bytes / 2496)
    firsts = [inputs[:, 0] for inputs, _ in batches_evaluated]
    assert {data.tokenizer.decode([int(i)]) for i in torch.cat(firsts)} >= {"é", "a"}  # both halves
    validated = run("validate", "--ckpt_path", "r/last.ckpt").out
    evaluation = last_checkpoint("r")["evaluation"]
    measured = float(re.findall(r"val/loss +([0-9.]+)", validated)[0])
    assert measured == pytest.approx(evaluation["val/loss"], abs=1e-5)
    too_few = run("fit", *TINY, "--data.max_val_tokens", "10")
    assert too_few.err == "error: data.max_val_tokens (10) must be at least model.block_size (32)\n"
