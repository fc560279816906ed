"""Continuous values as their quantile, with powers (§4.2)."""

from dataclasses import dataclass
from typing import Any, no_type_check

import numpy as np
from numba import njit

from watchnext.native import even_parts, side_by_side
from watchnext.shapes import Array, Float

NUM_KNOTS = 257
_STEP = 16


@dataclass(frozen=True)
class Quantiles:
    """The cumulative distribution of each column, as knots and the level reached at each.

    Unused knots of a column are +inf.
    """

    knots: Float[Array, "features quantiles"]
    levels: Float[Array, "features quantiles"]

    @classmethod
    def fit(cls, values: Float[Array, "rows features"]) -> "Quantiles":
        """Fits every column to its known (not NaN) values.

        A value that occurs often covers a range of levels and is given the middle of it.
        """
        features = values.shape[1]
        knots = np.full((features, NUM_KNOTS), np.inf, dtype=np.float64)
        levels = np.full((features, NUM_KNOTS), 1.0, dtype=np.float64)
        grid = np.linspace(0.0, 1.0, NUM_KNOTS)
        for feature in range(features):
            known = values[~np.isnan(values[:, feature]), feature].astype(np.float64)
            if not len(known):
                continue
            distinct, first = np.unique(np.quantile(known, grid), return_index=True)
            last = np.append(first[1:], NUM_KNOTS) - 1
            knots[feature, : len(distinct)] = distinct
            levels[feature, : len(distinct)] = (grid[first] + grid[last]) / 2
        return cls(knots, levels)

    def normalised(self, values: Float[Array, "rows features"]) -> Float[Array, "rows features"]:
        """Gives each value's quantile, linearly interpolated; unknown values give 0.

        >>> ages = Quantiles.fit(np.array([[10.0], [20.0], [30.0]]))
        >>> ages.normalised(np.array([[10.0], [15.0], [99.0], [np.nan]])).ravel().tolist()
        [0.0, 0.25, 1.0, 0.0]
        """
        found = np.zeros(values.shape, dtype=np.float32)
        used = np.isfinite(self.knots).sum(axis=1)
        bounds = even_parts(values.shape[1], values.size)
        side_by_side(_interpolate, bounds, (values, np.asarray(self.knots), np.asarray(self.levels), used, found))
        return found


def with_powers(normalised: Float[Array, "rows features"]) -> Float[Array, "rows powers"]:
    """Gives x, x² and √x of every column, side by side (§4.2)."""
    return np.concatenate([normalised, normalised**2, np.sqrt(normalised)], axis=1)


@njit(nogil=True, cache=True)
@no_type_check  # the tests' type checker would wrap it in what Numba cannot compile
def _interpolate(
    values: Any, knots: Any, levels: Any, used: Any, found: Any, begin: int, end: int
) -> None:  # pragma: no cover  # compiled
    """Some columns; a value's place among the knots is counted in two steps of sixteen, which a vector does at once."""
    padded = np.empty((_STEP + 1) * _STEP)
    last_of_step = np.empty(_STEP)
    for feature in range(begin, end):
        num = used[feature]
        if num == 0:
            continue
        padded[:] = np.inf
        padded[:num] = knots[feature, :num]
        for step in range(_STEP):
            last_of_step[step] = padded[step * _STEP + _STEP - 1]
        for row in range(len(values)):
            value = np.float64(values[row, feature])
            if np.isnan(value):
                continue
            steps = 0
            for step in range(_STEP):
                steps += last_of_step[step] <= value
            first, place = steps * _STEP, 0
            for knot in range(_STEP):
                place += padded[first + knot] <= value
            place = min(place + first, num)
            if place == 0 or place == num:
                found[row, feature] = levels[feature, max(place - 1, 0)]
            else:
                low, high = levels[feature, place - 1], levels[feature, place]
                share = (value - padded[place - 1]) / (padded[place] - padded[place - 1])
                found[row, feature] = low + share * (high - low)
