"""What is watched now: counts that halve every six hours, fed while a server runs."""

import threading

import numpy as np

from watchnext.examples.contexts import UserContext
from watchnext.shapes import Array, Float, Int

_HALF_LIFE_SECONDS = 6 * 3600
_MOST_VIDEOS = 20_000
_LARGEST_POWER = 100.0


class Trending:
    """The videos most completed of late, by events that came since the bundle was made.

    A watch counts 2^(t / half-life) instead of halving all others: the order is the same at any later moment. What is
    kept is the logarithm of the sum, so that years are no trouble. Events may come from any thread. Past twenty
    thousand videos the lower half is forgotten. Before the moment at which it began nothing is trending.
    """

    name = "trending"

    def __init__(self, began: int) -> None:
        self._began = began
        self._weights: dict[int, float] = {}
        self._changing = threading.Lock()
        self._best: tuple[Int[Array, "videos"], Float[Array, "videos"]] | None = None

    def count(self, video_row: int, timestamp: int) -> None:
        """Counts a completed watch."""
        weight = (timestamp - self._began) / _HALF_LIFE_SECONDS
        with self._changing:
            self._weights[video_row] = float(np.logaddexp2(self._weights.get(video_row, -np.inf), weight))
            if len(self._weights) > _MOST_VIDEOS:
                kept = sorted(self._weights, key=self._weights.__getitem__)[_MOST_VIDEOS // 2 :]
                self._weights = {row: self._weights[row] for row in kept}
            self._best = None

    def nominate(self, context: UserContext, k: int) -> tuple[Int[Array, "batch k"], Float[Array, "batch k"]]:
        """Gives the k most watched for every user alike; the score is the number of watches, faded to the moment."""
        rows, weights = self._sorted()
        wide = (0, max(0, k - len(rows)))
        passed = (np.asarray(context.moment)[:, None] - self._began) / _HALF_LIFE_SECONDS
        faded = np.pad(weights[:k], wide, constant_values=-np.inf) - passed
        scores = np.where(passed >= 0, np.exp2(np.minimum(faded, _LARGEST_POWER)), 0.0)
        return np.where(passed >= 0, np.pad(rows[:k], wide), 0), scores.astype(np.float32)

    def _sorted(self) -> tuple[Int[Array, "videos"], Float[Array, "videos"]]:
        best = self._best
        if best is None:
            with self._changing:
                rows = np.array(list(self._weights), dtype=np.int64)
                weights = np.array(list(self._weights.values()), dtype=np.float64)
                order = np.lexsort((rows, -weights))
                self._best = best = rows[order], weights[order]
        return best
