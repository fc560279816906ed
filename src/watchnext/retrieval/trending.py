"""What is watched now: counts that halve every six hours, fed while a server runs."""

import threading

import numpy as np

from watchnext.examples.contexts import UserContext
from watchnext.shapes import Array, Float, Int

_HALF_LIFE_SECONDS = 6 * 3600
_MOST_VIDEOS = 20_000


class Trending:
    """The videos most completed of late, by events that came since the bundle was made.

    A watch counts 2^(t / half-life) instead of halving all others: the order is the same at any later moment. Events
    may come from any thread. Past twenty thousand videos the lower half is forgotten.
    """

    name = "trending"

    def __init__(self, began: int) -> None:
        self._began = began
        self._weights: dict[int, float] = {}
        self._changing = threading.Lock()
        self._best: tuple[Int[Array, "videos"], Float[Array, "videos"]] | None = None

    def count(self, video_row: int, timestamp: int) -> None:
        """Counts a completed watch."""
        weight = 2.0 ** min((timestamp - self._began) / _HALF_LIFE_SECONDS, 1000.0)
        with self._changing:
            self._weights[video_row] = self._weights.get(video_row, 0.0) + weight
            if len(self._weights) > _MOST_VIDEOS:
                kept = sorted(self._weights, key=self._weights.__getitem__)[_MOST_VIDEOS // 2 :]
                self._weights = {row: self._weights[row] for row in kept}
            self._best = None

    def nominate(self, context: UserContext, k: int) -> tuple[Int[Array, "batch k"], Float[Array, "batch k"]]:
        """Gives the k most watched for every user alike; the score is the number of watches, faded to the moment."""
        rows, weights = self._sorted()
        wide = max(0, k - len(rows))
        moments = np.asarray(context.moment, dtype=np.float64)[:, None]
        faded = np.log2(weights[:k], where=weights[:k] > 0, out=np.zeros(len(weights[:k])))
        scores = np.exp2(faded - (moments - self._began) / _HALF_LIFE_SECONDS)
        listed = np.broadcast_to(np.pad(rows[:k], (0, wide)), (len(context), k))
        return listed, np.pad(scores, ((0, 0), (0, wide))).astype(np.float32)

    def _sorted(self) -> tuple[Int[Array, "videos"], Float[Array, "videos"]]:
        best = self._best
        if best is None:
            with self._changing:
                rows = np.array(list(self._weights), dtype=np.int64)
                weights = np.array(list(self._weights.values()), dtype=np.float64)
                order = np.lexsort((rows, -weights))
                self._best = best = rows[order], weights[order]
        return best
