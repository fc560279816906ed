"""Continuous values as their quantile, with powers (§4.2)."""

from dataclasses import dataclass

import numpy as np

from watchnext.shapes import Array, Float

NUM_KNOTS = 257


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
        columns = [
            np.interp(column, knots[: _used(knots)], levels[: _used(knots)]) if _used(knots) else np.zeros(len(column))
            for column, knots, levels in zip(values.T, self.knots, self.levels, strict=True)
        ]
        stacked = np.stack(columns, axis=1) if columns else np.zeros(values.shape)
        return np.where(np.isnan(values), 0.0, stacked).astype(np.float32)


def with_powers(normalised: Float[Array, "rows features"]) -> Float[Array, "rows powers"]:
    """Gives x, x² and √x of every column, side by side (§4.2)."""
    return np.concatenate([normalised, normalised**2, np.sqrt(normalised)], axis=1)


def _used(knots: Float[Array, "quantiles"]) -> int:
    return int(np.searchsorted(knots, np.inf))
