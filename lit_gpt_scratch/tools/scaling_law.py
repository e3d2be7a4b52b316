"""How loss falls with parameters and tokens: published laws, and one fitted on one's own runs.

Hoffmann et al. 2022, "Training Compute-Optimal Large Language Models", approach 3; Besiroglu et al. 2024,
"Chinchilla Scaling: A replication attempt", whose fit of the same runs has other constants.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from operator import attrgetter

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

Floats = npt.NDArray[np.float64]

HUBER_DELTA = 1e-3  # of the logarithm of a loss: a run that is off by more counts in proportion, not squared
FLOPS_PER_PARAMETER_AND_TOKEN = 6  # Kaplan et al. 2020: 2 forward, 4 backward
# Where fits begin: the logarithms of A and B, the exponents, and the share of the lowest loss that is E.
STARTS = ((1.0, 6.0), (1.0, 6.0), (0.2, 0.6), (0.3, 0.9))
N_BOOTSTRAP = 100
TOLERANCES = {"ftol": 1e-12, "xtol": 1e-12, "gtol": 1e-12}
# Logarithms of A, B, E, alpha and beta, beyond which a law of a few odd runs could not be computed with.
BOUNDS = [(-100, -100, -20, -10, -10), (100, 100, 20, 5, 5)]


def training_flops(n_parameters: float, n_tokens: float) -> float:
    """What training costs, by the rule of 6 N D."""
    return FLOPS_PER_PARAMETER_AND_TOKEN * n_parameters * n_tokens


@dataclass(frozen=True)
class Law:
    """L(N, D) = E + A / N^alpha + B / D^beta, in nats per token, of N parameters and D tokens.

    Args:
        E: The loss that no model and no text could get below.
        A: What too few parameters cost.
        B: What too few tokens cost.
        alpha: How fast the one falls.
        beta: How fast the other falls.
    """

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def loss(self, n_parameters: float, n_tokens: float) -> float:
        """L(N, D)."""
        # Negative powers: those of a law with large exponents become 0, where a division overflows.
        return self.E + self.A * n_parameters**-self.alpha + self.B * n_tokens**-self.beta

    def optimal(self, flops: float) -> tuple[float, float]:
        """Parameters and tokens for which the loss is least, of all that cost so many FLOPs, 6 N D.

        Both are at least 1, also by a law that a few odd runs gave.
        """
        product = flops / FLOPS_PER_PARAMETER_AND_TOKEN
        log_ratio = math.log(self.alpha * self.A) - math.log(self.beta * self.B)
        log_n = (log_ratio + self.beta * math.log(product)) / (self.alpha + self.beta)
        n_parameters = math.exp(min(max(log_n, 0.0), math.log(product)))
        return n_parameters, product / n_parameters

    def best_loss(self, flops: float) -> float:
        """The loss of the best parameters and tokens for so many FLOPs."""
        return self.loss(*self.optimal(flops))


HOFFMANN = Law(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
BESIROGLU = Law(E=1.8172, A=482.01, B=2085.43, alpha=0.3478, beta=0.3658)


@dataclass(frozen=True)
class Point:
    """A run: its parameters, the tokens that it read, and the loss it came to."""

    n_parameters: int
    n_tokens: int
    loss: float


@dataclass(frozen=True)
class Fit:
    """A law fitted on runs, and those fitted on drawings of as many runs from among them.

    Args:
        law: The one of all runs.
        drawn: The others: how much they differ is how sure the law is.
    """

    law: Law
    drawn: list[Law]

    def interval(self, function: Callable[[Law], float]) -> tuple[float, float]:
        """Between what a number that follows from the law lies, with a confidence of 95 %."""
        low, high = np.percentile([function(law) for law in self.drawn], [2.5, 97.5])
        return float(low), float(high)

    def to_dict(self) -> dict[str, object]:
        """The law, and the intervals of its constants, as builtins."""
        names = [field.name for field in fields(Law)]
        intervals = {name: list(self.interval(attrgetter(name))) for name in names}
        return {"law": asdict(self.law), "intervals": intervals}


def check_enough(n_sizes: int, n_budgets: int, n_runs: int) -> None:
    """See that a law can be fitted on so many runs.

    Raises:
        ValueError: There are too few.
    """
    if n_sizes < 3 or n_budgets < 3 or n_runs < 6:
        raise ValueError(
            f"a law has five constants, too many for {n_runs} runs of {n_sizes} sizes and "
            f"{n_budgets} numbers of tokens: give three of each at least, and six runs"
        )


def fit_law(points: Sequence[Point], seed: int = 0, advance: Callable[[int], object] = lambda n: None) -> Fit:
    """Fit a law on runs, and on drawings from them (the bootstrap, Efron 1979).

    Args:
        points: The runs: of at least three numbers of parameters, and three of tokens.
        seed: Of the drawings.
        advance: Called with 1 for each of the N_BOOTSTRAP + 1 fits.

    Raises:
        ValueError: There are too few runs.
    """
    sizes, budgets = ({getattr(point, name) for point in points} for name in ("n_parameters", "n_tokens"))
    check_enough(len(sizes), len(budgets), len(points))
    lowest = math.log(min(point.loss for point in points))
    starts = [
        np.array([a, b, lowest + math.log(e), math.log(alpha), math.log(alpha)])
        for a, b, alpha, e in itertools.product(*STARTS)
    ]
    best = min((_least_huber(start, points) for start in starts), key=lambda found: found[1])[0]
    advance(1)
    rng = np.random.default_rng(seed)
    drawn: list[Law] = []
    while len(drawn) < N_BOOTSTRAP:
        picked = [points[i] for i in rng.integers(len(points), size=len(points))]
        if len({p.n_parameters for p in picked}) >= 3 and len({p.n_tokens for p in picked}) >= 3:
            drawn.append(_law(_least_huber(best, picked)[0]))
            advance(1)
    return Fit(_law(best), drawn)


def _least_huber(start: Floats, points: Sequence[Point]) -> tuple[Floats, float]:
    """Minimize the sum of Huber losses of log L from a start; return the constants of `_law` and the sum."""
    runs = [(point.n_parameters, point.n_tokens, point.loss) for point in points]
    n, d, loss = np.log(np.array(runs, dtype=np.float64)).T

    def residuals(constants: Floats) -> Floats:
        a, b, e = constants[:3]
        alpha, beta = np.exp(constants[3:])  # positive: loss never rises with size or text
        return np.logaddexp(np.logaddexp(a - alpha * n, b - beta * d), e) - loss

    found = least_squares(
        residuals,
        start,
        bounds=BOUNDS,
        loss="huber",
        f_scale=HUBER_DELTA,
        x_scale="jac",
        max_nfev=500,
        **TOLERANCES,
    )
    return found.x, found.cost


def _law(constants: Floats) -> Law:
    a, b, e, alpha, beta = np.exp(constants).tolist()
    return Law(E=e, A=a, B=b, alpha=alpha, beta=beta)
