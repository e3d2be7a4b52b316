"""Scaling laws: the loss as a function of parameters and training tokens.

Hoffmann et al. 2022, "Training Compute-Optimal Large Language Models", approach 3; Besiroglu et al. 2024,
"Chinchilla Scaling: A replication attempt", who fitted other constants on the same runs.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

Floats = npt.NDArray[np.float64]

FLOPS_PER_PARAMETER_AND_TOKEN = 6  # Kaplan et al. 2020: 2 forward, 4 backward
HUBER_DELTA = 1e-3  # residuals of log L beyond it count linearly, not squared
# Starting points: log A, log B, E as a fraction of the lowest loss, and alpha = beta.
STARTS = ((1.0, 6.0), (1.0, 6.0), (0.3, 0.9), (0.2, 0.6))
# Bounds of log A, log B, log E, log alpha and log beta; a law fitted on a few outliers overflows beyond them.
BOUNDS = [(-100, -100, -20, -10, -10), (100, 100, 20, 5, 5)]
N_BOOTSTRAP = 100
MIN_GRID = 3  # minimum number of sizes, and of numbers of tokens, to fit five constants


def training_flops(n_parameters: float, n_tokens: float) -> float:
    """Return the FLOPs of training N parameters on D tokens, estimated as 6 N D."""
    return FLOPS_PER_PARAMETER_AND_TOKEN * n_parameters * n_tokens


@dataclass(frozen=True)
class Law:
    """L(N, D) = E + A / N^alpha + B / D^beta, in nats per token, for N parameters and D training tokens.

    Args:
        E: Irreducible loss.
        A: Coefficient of the term for a finite number of parameters.
        B: Coefficient of the term for a finite number of tokens.
        alpha: Exponent of N.
        beta: Exponent of D.
    """

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def loss(self, n_parameters: float, n_tokens: float) -> float:
        """Return L(N, D), in nats per token."""
        # Negative powers: large exponents underflow to 0, where a division by a power would overflow.
        return self.E + self.A * n_parameters**-self.alpha + self.B * n_tokens**-self.beta

    def optimal(self, flops: float) -> tuple[float, float]:
        """Return the N and D that minimize the loss under 6 N D = flops; both are at least 1."""
        product = flops / FLOPS_PER_PARAMETER_AND_TOKEN
        log_ratio = math.log(self.alpha * self.A) - math.log(self.beta * self.B)
        log_n = (log_ratio + self.beta * math.log(product)) / (self.alpha + self.beta)
        n_parameters = math.exp(min(max(log_n, 0.0), math.log(product)))
        return n_parameters, product / n_parameters

    def optimal_loss(self, flops: float) -> float:
        """Return the lowest loss under 6 N D = flops."""
        return self.loss(*self.optimal(flops))


HOFFMANN = Law(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
BESIROGLU = Law(E=1.8172, A=482.01, B=2085.43, alpha=0.3478, beta=0.3658)


def fit_law(runs: Floats) -> Law:
    """Fit a scaling law to runs.

    Args:
        runs: Number of parameters, number of training tokens, and validation loss in nats per token, of
            each run, (n_runs, 3).

    Raises:
        ValueError: The runs have too few distinct model sizes or numbers of training tokens.
    """
    if min(_grid_shape(runs)) < MIN_GRID:
        raise ValueError(f"a law needs runs of at least {MIN_GRID} sizes and {MIN_GRID} numbers of tokens")
    lowest = runs[:, 2].min()
    starts = [
        np.array([a, b, math.log(fraction * lowest), math.log(exponent), math.log(exponent)])
        for a, b, fraction, exponent in itertools.product(*STARTS)
    ]
    return min((_minimize_huber(start, runs) for start in starts), key=lambda found: found[1])[0]


def bootstrap(law: Law, runs: Floats, seed: int = 0) -> list[Law]:
    """Return N_BOOTSTRAP laws, each fitted on runs drawn with replacement (Efron 1979).

    Args:
        law: Law fitted on all runs, from which each fit starts.
        runs: Runs, (n_runs, 3), as described in `fit_law`.
        seed: Seed of the random samples.
    """
    rng, start = np.random.default_rng(seed), np.log([law.A, law.B, law.E, law.alpha, law.beta])
    laws: list[Law] = []
    while len(laws) < N_BOOTSTRAP:
        sample = runs[rng.integers(len(runs), size=len(runs))]
        if min(_grid_shape(sample)) >= MIN_GRID:
            laws.append(_minimize_huber(start, sample)[0])
    return laws


def confidence_interval(laws: Sequence[Law], function: Callable[[Law], float]) -> tuple[float, float]:
    """Return the bounds of the 95 % confidence interval of `function` over bootstrapped laws."""
    low, high = np.percentile([function(law) for law in laws], [2.5, 97.5])
    return float(low), float(high)


def _grid_shape(runs: Floats) -> tuple[int, int]:
    """Return the number of distinct model sizes and of distinct numbers of training tokens."""
    return len(np.unique(runs[:, 0])), len(np.unique(runs[:, 1]))


def _minimize_huber(start: Floats, runs: Floats) -> tuple[Law, float]:
    """Return the law that minimizes the Huber loss of the residuals of log L, and the minimal Huber loss.

    Args:
        start: Starting point of the minimization: the logarithms of A, B, E, alpha and beta, (5,).
        runs: Runs, (n_runs, 3), as described in `fit_law`.
    """
    log_n, log_d, log_loss = np.log(runs).T

    def residuals(constants: Floats) -> Floats:
        a, b, e = constants[:3]
        alpha, beta = np.exp(constants[3:])  # positive: the loss never rises with N or D
        return np.logaddexp(np.logaddexp(a - alpha * log_n, b - beta * log_d), e) - log_loss

    tolerances = dict.fromkeys(("ftol", "xtol", "gtol"), 1e-12)
    options = {"loss": "huber", "f_scale": HUBER_DELTA, "x_scale": "jac", "max_nfev": 500, **tolerances}
    found = least_squares(residuals, start, bounds=BOUNDS, **options)
    a, b, e, alpha, beta = np.exp(found.x).tolist()
    return Law(E=e, A=a, B=b, alpha=alpha, beta=beta), found.cost
