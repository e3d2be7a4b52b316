"""Search for the largest micro-batch."""

import pytest
import torch

from helpers.checkpoints import last_checkpoint
from helpers.command_line import TINY, Run
from lit_gpt_scratch.training.micro_batch import largest_micro_batch


def test_micro_batch_is_halved_until_it_fits() -> None:
    tried: list[int] = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= 12

    assert largest_micro_batch(40, fits) == 10
    assert tried == [40, 20, 10]
    assert largest_micro_batch(12, fits) == 12
    with pytest.raises(ValueError, match="one sequence alone does not fit"):
        largest_micro_batch(5, lambda size: False)


def test_auto_micro_batch_on_a_cpu_is_the_whole_batch(run: Run) -> None:
    for name, size in (("auto", "auto"), ("whole", "null")):
        assert run("fit", *TINY, "--data.micro_batch_size", size, "--run_dir", name).code == 0
    one, other = (last_checkpoint(name) for name in ("auto", "whole"))
    assert all(torch.equal(tensor, other["state_dict"][key]) for key, tensor in one["state_dict"].items())
    assert run("fit", *TINY, "--data.micro_batch_size", "some").code == 2
