"""Scaling laws: fit, bootstrap intervals and compute-optimal sizes."""

import math
from operator import attrgetter

import numpy as np
import pytest

from lit_gpt_scratch.scaling import law as law_module
from lit_gpt_scratch.scaling.law import (
    BESIROGLU,
    HOFFMANN,
    Floats,
    Law,
    bootstrap,
    confidence_interval,
    fit_law,
)

TRUE_LAW = Law(E=1.2, A=20.0, B=90.0, alpha=0.38, beta=0.42)


def runs_of_true_law(noise: float) -> Floats:
    rng = np.random.default_rng(0)
    grid = [(n, d) for n in (27_000, 60_000, 150_000, 450_000) for d in (65_536, 131_072, 262_144, 524_288)]
    return np.array([(n, d, TRUE_LAW.loss(n, d) * math.exp(noise * rng.normal())) for n, d in grid])


def test_fit_recovers_the_law_of_noiseless_runs() -> None:
    assert vars(fit_law(runs_of_true_law(noise=0))) == pytest.approx(vars(TRUE_LAW), rel=1e-3)


def test_confidence_intervals_contain_the_true_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(law_module, "N_BOOTSTRAP", 20)
    runs = runs_of_true_law(noise=0.004)
    laws = bootstrap(fit_law(runs), runs)
    for name, value in vars(TRUE_LAW).items():
        low, high = confidence_interval(laws, attrgetter(name))
        assert low < value < high, name
    low, high = confidence_interval(laws, lambda law: law.loss(1e6, 2e6))
    assert low < TRUE_LAW.loss(1e6, 2e6) < high < low + 0.1


def test_fit_is_robust_to_one_outlier() -> None:
    runs = runs_of_true_law(noise=0)
    runs[5, 2] *= 1.2
    assert fit_law(runs).loss(1e6, 2e6) == pytest.approx(TRUE_LAW.loss(1e6, 2e6), rel=2e-3)


def test_laws_with_extreme_constants_are_finite() -> None:
    assert Law(E=1.5, A=2.0, B=3.0, alpha=200.0, beta=300.0).loss(10**6, 10**7) == 1.5
    optimal = Law(E=1.5, A=1e-40, B=1e-3, alpha=5e-5, beta=5e-5).optimal(1e15)
    assert optimal == pytest.approx((1, 1e15 / 6))
    rng = np.random.default_rng(1)
    runs = np.array([(n, d, 3 + rng.normal()) for n in (10, 20, 30) for d in (100, 200, 300)])
    for law in bootstrap(fit_law(runs), runs):
        assert 0 < law.optimal_loss(1e15) < np.inf


@pytest.mark.parametrize("law", [HOFFMANN, BESIROGLU, TRUE_LAW])
def test_optimal_has_the_lowest_loss_for_its_flops(law: Law) -> None:
    n, d = law.optimal(1e18)
    assert 6 * n * d == pytest.approx(1e18)
    assert law.optimal_loss(1e18) == law.loss(n, d)
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert law.loss(n * factor, d / factor) > law.optimal_loss(1e18)


def test_too_few_sizes_or_tokens_are_rejected() -> None:
    with pytest.raises(ValueError, match="at least 3 sizes and 3 numbers of tokens"):
        fit_law(np.array([(n, 1000, 2.0) for n in (1, 2, 3, 4)]))


def test_published_laws_give_the_published_losses() -> None:
    assert HOFFMANN.loss(70e9, 1.4e12) == pytest.approx(1.936, abs=1e-3)
    assert HOFFMANN.loss(175e9, 300e9) == pytest.approx(2.002, abs=1e-3)
    n, d = BESIROGLU.optimal(5.76e23)  # Chinchilla's FLOPs
    assert 15 < d / n < 25
    assert 60e9 < n < 80e9
