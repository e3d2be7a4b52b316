"""Learning-rate schedules at the ends of warmup and decay, and between."""

import math

import pytest

from lit_gpt_scratch.training.lr_schedule import learning_rate


def rate(schedule: str, step: int, warmup: int = 10, end: int = 110) -> float:
    return learning_rate(schedule, step, peak=1.0, floor=0.1, warmup_steps=warmup, decay_steps=end)


@pytest.mark.parametrize(("schedule", "half"), [("cosine", 0.55), ("linear", 0.55), ("wsd", 1.0)])
def test_schedules_at_warmup_and_decay_ends(schedule: str, half: float) -> None:
    assert rate(schedule, 0) == pytest.approx(1 / 11)  # not 0 in the first step
    assert rate(schedule, 10) == 1.0
    assert rate(schedule, 60) == pytest.approx(half)
    assert rate(schedule, 110) == rate(schedule, 10_000) == 0.1
    rates = [rate(schedule, step) for step in range(111)]
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_schedules_during_decay() -> None:
    assert rate("cosine", 35) == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi / 4)))
    assert rate("linear", 35) == pytest.approx(0.775)
    assert rate("wsd", 88) == 1.0
    assert rate("wsd", 99) == pytest.approx(0.55)  # halfway through the last fifth
    assert {rate("constant", step) for step in (10, 60, 10_000)} == {1.0}


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd"])
def test_schedules_without_warmup_or_decay(schedule: str) -> None:
    assert rate(schedule, 0, warmup=0, end=100) == 1.0
    assert rate(schedule, 50, warmup=50, end=50) == 0.1
