"""The groups of impressions for which expected watch time is compared with what was watched."""

from itertools import pairwise

import numpy as np

from watchnext.evaluation.reliability import Groups
from watchnext.events.dataset import Dataset
from watchnext.events.schema import SECONDS_OF_A_DAY
from watchnext.examples.impressions import Impressions
from watchnext.features.spec import durations_of
from watchnext.shapes import Array, Float, Int

_NUM_NAMED = 10
_AGES_DAYS, _AGES = (1, 3, 7, 30), ("under 1 day", "1 to 3 days", "3 to 7 days", "7 to 30 days", "30 days and older")
_NUM_BEFORE, _ACTIVITIES = (1, 10, 100), ("none before", "1 to 9 before", "10 to 99 before", "100 or more before")


def impression_groups(dataset: Dataset, impressions: Impressions) -> dict[str, Groups]:
    """Gives every way of grouping the impressions, by name.

    One is left out where the log knows nothing of the kind about any of them.
    """
    ways = {
        "video_duration": _by_duration(durations_of(dataset)[impressions.video_row]),
        "video_age": _by_age(dataset.videos.uploaded_at[impressions.video_row], impressions.timestamp),
        "user_activity": Groups(_ACTIVITIES, np.digitize(_num_before(dataset)[impressions.user_row], _NUM_BEFORE)),
        "user_region": _by_region(dataset, impressions.user_row),
        "surface": _by_value(dataset, "surfaces", impressions.surface_row),
    }
    return {name: groups for name, groups in ways.items() if groups is not None}


def _by_duration(seconds: Float[Array, "rows"]) -> Groups | None:
    """Fifths of the impressions whose duration is known, cut at whole seconds."""
    known = seconds[~np.isnan(seconds)]
    if not len(known):
        return None
    cuts = np.unique(np.rint(np.quantile(known, [0.2, 0.4, 0.6, 0.8]))).astype(np.int64).tolist()
    between = [f"{low} to {high} s" for low, high in pairwise(cuts)]
    names = (f"under {cuts[0]} s", *between, f"{cuts[-1]} s and longer", "unknown duration")
    return _between(seconds, cuts, names)


def _by_age(uploaded_at: Int[Array, "rows"], timestamp: Int[Array, "rows"]) -> Groups | None:
    """Groups by the time from upload to impression; what was uploaded later is new."""
    if not uploaded_at.any():
        return None
    age_days = np.where(uploaded_at > 0, (timestamp - uploaded_at) / SECONDS_OF_A_DAY, np.nan)
    return _between(age_days, _AGES_DAYS, (*_AGES, "unknown upload"))


def _by_region(dataset: Dataset, user_row: Int[Array, "rows"]) -> Groups | None:
    if "region" not in dataset.user_categories:
        return None
    column = dataset.users.categorical[:, dataset.user_categories.index("region")]
    return _by_value(dataset, "users.region", column[user_row])


def _by_value(dataset: Dataset, vocabulary: str, value_row: Int[Array, "rows"]) -> Groups | None:
    """A group for each of the most frequent values, and one for all others and the unknown."""
    if not value_row.any():
        return None
    values = dataset.vocabularies[vocabulary]
    num_named = min(_NUM_NAMED, len(values) - 1)
    names = [str(one) for one in values.ids_of(np.arange(1, num_named + 1))]
    named = (value_row > 0) & (value_row <= num_named)
    return Groups([*names, "other"], np.where(named, value_row - 1, num_named))


def _between(values: Float[Array, "rows"], cuts: list[int] | tuple[int, ...], names: tuple[str, ...]) -> Groups:
    """Groups by the cuts at or below each value; the last name is of NaN."""
    return Groups(names, np.where(np.isnan(values), len(cuts) + 1, np.digitize(values, cuts)))


def _num_before(dataset: Dataset) -> Int[Array, "users"]:
    """How many impressions each user had before the test period."""
    segments = dataset.events.segments
    places = np.flatnonzero(dataset.events.shown & (segments.timestamp < dataset.test_start))
    return np.diff(np.searchsorted(places, segments.offsets))
