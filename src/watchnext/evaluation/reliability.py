"""Whether expected watch time comes true: by tenths of the prediction, and for groups of impressions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from watchnext.evaluation.bootstrap import Estimate, ratio_estimate
from watchnext.shapes import Array, Float, Int


@dataclass(frozen=True)
class Groups:
    """Impressions sorted into groups: `place` tells which of `names` each one is in."""

    names: Sequence[str]
    place: Int[Array, "rows"]


@dataclass(frozen=True)
class GroupReliability:
    """What was expected and what was watched of one group, per impression.

    `ratio` is expected over watched, 1 is right; NaN where nobody watched.
    """

    name: str
    num_impressions: int
    expected_watch_seconds: float
    watch_seconds: float
    ratio: Estimate


def reliability(
    watch_seconds: Float[Array, "rows"], predicted: Float[Array, "rows"], num_bins: int = 10
) -> list[tuple[float, float, int]]:
    """Gives (mean predicted, mean watched, impressions) for equally filled bins of the prediction, lowest first.

    Equal predictions share a bin, so that there may be fewer bins: what sets them apart would be their order in the
    log, not what was predicted.
    """
    rank = np.searchsorted(np.sort(predicted), predicted)
    place = rank * num_bins // len(predicted)
    count = np.bincount(place)
    filled = count > 0
    expected, watched = (np.bincount(place, part)[filled] / count[filled] for part in (predicted, watch_seconds))
    return list(zip(expected.tolist(), watched.tolist(), count[filled].tolist(), strict=True))


def calibration_error(watch_seconds: Float[Array, "rows"], predicted: Float[Array, "rows"]) -> float:
    """Gives the expected calibration error, as a share of what was watched: Σ n·|predicted - watched| / Σ n·watched.

    The sums are over tenths of the prediction, each with its n impressions and its means. 0 is right; where all
    tenths err to one side it is |sum ratio - 1|. NaN where nobody watched.
    """
    tenths = reliability(watch_seconds, predicted)
    total = float(watch_seconds.sum())
    off = sum(count * abs(expected - watched) for expected, watched, count in tenths)
    return off / total if total else float("nan")


def reliability_by_group(
    groups: Groups,
    user_row: Int[Array, "rows"],
    watch_seconds: Float[Array, "rows"],
    predicted: Float[Array, "rows"],
    draws: int,
    seed: int,
) -> list[GroupReliability]:
    """Gives the reliability of each group that has impressions, in the order of their names.

    The interval of a group's ratio resamples the users who have impressions in it; of a single user it is a point.
    """
    found = []
    for place, name in enumerate(groups.names):
        rows = np.flatnonzero(groups.place == place)
        if not len(rows):
            continue
        _, user = np.unique(user_row[rows], return_inverse=True)
        expected, watched = np.bincount(user, predicted[rows]), np.bincount(user, watch_seconds[rows])
        means = float(predicted[rows].mean()), float(watch_seconds[rows].mean())
        found.append(GroupReliability(name, len(rows), *means, ratio_estimate(expected, watched, draws, seed)))
    return found
