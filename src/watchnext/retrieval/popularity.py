"""What everybody watches, and what everybody watches lately."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from watchnext.artifacts import load_arrays, save_arrays
from watchnext.events.dataset import Dataset
from watchnext.examples.contexts import UserContext
from watchnext.shapes import Array, Float, Int

_QUARTER_OF_A_DAY_SECONDS = 6 * 3600
_MOST_LISTS = 2000
_HALF_LIFE_SECONDS = 3 * 86_400
_LIST_LENGTH = 1000


@dataclass(frozen=True)
class RecentPopularity:
    """The most completed videos of the days before, for every quarter of a day of the log.

    A watch counts half after three days. A moment uses the list made when the last quarter ended. A log of years
    has longer periods than quarters of a day, so that there are never more than two thousand lists.
    """

    first_moment: Int[Array, ""]
    period_seconds: Int[Array, ""]
    rows: Int[Array, "moments k"]
    scores: Float[Array, "moments k"]

    name = "popular"

    @classmethod
    def fit(cls, dataset: Dataset) -> "RecentPopularity":
        """Makes the lists from the first period to the end of the log."""
        events = dataset.events
        moments = np.asarray(events.watches.timestamp)
        videos = np.asarray(events.video_row[events.watch_places])
        first = int(dataset.facts["log_start"])
        seconds = max(_QUARTER_OF_A_DAY_SECONDS, (dataset.log_end - first) // _MOST_LISTS)
        period = (moments - first) // seconds
        order = np.argsort(period, kind="stable")
        num_periods = (dataset.log_end - first) // seconds + 2
        bounds = np.searchsorted(period[order], np.arange(num_periods))
        length = min(_LIST_LENGTH, dataset.num_videos - 1)
        rows = np.zeros((num_periods, length), dtype=np.int32)
        scores = np.zeros((num_periods, length), dtype=np.float32)
        score = np.zeros(dataset.num_videos)
        decay = 0.5 ** (seconds / _HALF_LIFE_SECONDS)
        for now in range(1, num_periods):
            ended = videos[order[bounds[now - 1] : bounds[now]]]
            score = score * decay + np.bincount(ended, minlength=dataset.num_videos)
            rows[now], scores[now] = _top(score, length)
        return cls(np.array(first), np.array(seconds), rows, scores)

    def nominate(self, context: UserContext, k: int) -> tuple[Int[Array, "batch k"], Float[Array, "batch k"]]:
        """Gives the k most popular videos as of each moment."""
        period = (context.moment - int(self.first_moment)) // int(self.period_seconds)
        period = np.clip(period, 0, len(self.rows) - 1)
        wider = ((0, 0), (0, max(0, k - self.rows.shape[1])))
        return np.pad(self.rows[period, :k].astype(np.int64), wider), np.pad(self.scores[period, :k], wider)

    def save(self, folder: Path) -> None:
        """Writes the lists."""
        save_arrays(folder, vars(self))

    @classmethod
    def open(cls, folder: Path) -> "RecentPopularity":
        """Maps what `save` wrote."""
        return cls(**load_arrays(folder, ("first_moment", "period_seconds", "rows", "scores")))


def _top(score: Float[Array, "videos"], length: int) -> tuple[Int[Array, "k"], Float[Array, "k"]]:
    """The rows of the largest scores above 0, best first, padded with row 0."""
    score[0] = 0.0
    places = np.argpartition(-score, length - 1)[:length]
    places = places[np.lexsort((places, -score[places]))]
    return np.where(score[places] > 0, places, 0), score[places]
