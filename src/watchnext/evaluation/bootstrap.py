"""How far a figure may be off: 95 % intervals from resampled users."""

from dataclasses import dataclass

import numpy as np

from watchnext.evaluation.metrics import ratio_or_nan
from watchnext.shapes import Array, Float

_DRAWS_AT_ONCE = 10


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def mean_estimate(values: Float[Array, "users"], draws: int, seed: int) -> Estimate:
    """Gives the mean over users that have a value (not NaN), and its interval."""
    known = values[~np.isnan(values)]
    return ratio_estimate(known, np.ones(len(known)), draws, seed)


def ratio_estimate(counted: Float[Array, "users"], total: Float[Array, "users"], draws: int, seed: int) -> Estimate:
    """Gives Σcounted / Σtotal and its interval, resampling users with replacement (percentile bootstrap)."""
    users = len(counted)
    if not users or total.sum() == 0:
        return Estimate(float("nan"), float("nan"), float("nan"))
    random = np.random.default_rng(seed)
    ratios: list[float] = []
    for start in range(0, draws, _DRAWS_AT_ONCE):
        chosen = random.integers(0, users, (min(_DRAWS_AT_ONCE, draws - start), users))
        sums = total[chosen].sum(axis=1)
        ratios += ratio_or_nan(counted[chosen].sum(axis=1), sums).tolist()
    low, high = np.nanquantile(ratios, [0.025, 0.975])
    return Estimate(float(counted.sum() / total.sum()), float(low), float(high))
