"""Metrics of predicted watch time (§4.3 and later work), per user where they compare impressions of one user."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from watchnext.shapes import Array, Bool, Float, Int

_XAUC_PAIRS = 1_000_000


@dataclass(frozen=True)
class PairSums:
    """For each user, a numerator and a denominator over pairs of the user's impressions."""

    counted: Float[Array, "users"]
    total: Float[Array, "users"]

    @property
    def ratio(self) -> float:
        """The pooled ratio; NaN where there is no pair."""
        total = float(self.total.sum())
        return float(self.counted.sum()) / total if total else float("nan")


def weighted_loss(
    page: Int[Array, "rows"],
    user_row: Int[Array, "rows"],
    watch_seconds: Float[Array, "rows"],
    completed: Bool[Array, "rows"],
    predicted: Float[Array, "rows"],
) -> PairSums:
    """Gives mispredicted and total watch time over pairs of a completed and an uncompleted impression of one page.

    The completed one's watch time is mispredicted when the other is predicted longer, and half of it on a tie. A page
    is any number that its impressions share, all of one user; the sums are each user's.

    Source: §4.3, per-user loss; without pages in the log, a user's impressions are taken as one page.
    """

    def of_page(rows: Int[Array, "rows"]) -> tuple[float, float]:
        good, bad = rows[completed[rows]], rows[~completed[rows]]
        difference = predicted[good][:, None] - predicted[bad][None, :]
        wrong = ((difference < 0) + 0.5 * (difference == 0)).sum(axis=1)
        return float(wrong @ watch_seconds[good]), float(len(bad) * watch_seconds[good].sum())

    return _per_user(page, user_row, of_page)


def xauc_within_users(
    user_row: Int[Array, "rows"], watch_seconds: Float[Array, "rows"], predicted: Float[Array, "rows"]
) -> PairSums:
    """Gives, of all pairs of one user with different watch times, how many are predicted in the right order."""

    def of_user(rows: Int[Array, "rows"]) -> tuple[float, float]:
        first, second = np.triu_indices(len(rows), 1)
        return _ordered(watch_seconds[rows], predicted[rows], first, second)

    return _per_user(user_row, user_row, of_user)


def xauc(watch_seconds: Float[Array, "rows"], predicted: Float[Array, "rows"], seed: int) -> float:
    """Gives the share of random pairs with different watch times predicted in the right order; ties count half."""
    draw = np.random.default_rng(seed)
    first, second = (draw.integers(0, len(predicted), _XAUC_PAIRS) for _ in range(2))
    right, total = _ordered(watch_seconds, predicted, first, second)
    return right / total if total else float("nan")


def mean_absolute_error(watch_seconds: Float[Array, "rows"], predicted: Float[Array, "rows"]) -> float:
    """Gives the mean of |watched - predicted| in seconds; its best constant is the median, not the mean."""
    return float(np.abs(watch_seconds - predicted).mean())


def root_mean_squared_error(watch_seconds: Float[Array, "rows"], predicted: Float[Array, "rows"]) -> float:
    """Gives √mean((watched - predicted)²) in seconds; its best constant is the mean."""
    return float(np.sqrt(np.square(watch_seconds - predicted).mean()))


def sum_ratio(watch_seconds: Float[Array, "rows"], predicted: Float[Array, "rows"]) -> float:
    """Gives predicted over true total watch time: calibration in the large, 1 is right."""
    total = float(watch_seconds.sum())
    return float(predicted.sum()) / total if total else float("nan")


def _ordered(watched: Array, predicted: Array, first: Array, second: Array) -> tuple[float, float]:
    """Pairs in the right order (ties half) and pairs with different watch times."""
    truth = np.sign(watched[first] - watched[second])
    guess = np.sign(predicted[first] - predicted[second])
    differs = truth != 0
    right = np.where(guess == 0, 0.5, guess == truth)[differs]
    return float(right.sum()), float(differs.sum())


def _per_user(
    page: Int[Array, "rows"], user_row: Int[Array, "rows"], of_page: Callable[[Array], tuple[float, float]]
) -> PairSums:
    """The sums of each page, added up by user."""
    if not len(page):
        return PairSums(np.zeros(0), np.zeros(0))
    order = np.argsort(page, kind="stable")
    starts = np.flatnonzero(np.diff(page[order], prepend=page[order[:1]] - 1))
    sums = np.array([of_page(rows) for rows in np.split(order, starts[1:])])
    _, user = np.unique(user_row[order[starts]], return_inverse=True)
    return PairSums(np.bincount(user, sums[:, 0]), np.bincount(user, sums[:, 1]))
