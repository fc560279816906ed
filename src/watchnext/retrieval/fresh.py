"""New uploads: a video that nobody has met yet is nominated because it is new."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from watchnext.artifacts import load_arrays, save_arrays
from watchnext.events.dataset import VideoTable
from watchnext.events.schema import SECONDS_OF_A_DAY
from watchnext.examples.contexts import UserContext
from watchnext.shapes import Array, Float, Int

_MOST_DAYS = 7.0


@dataclass(frozen=True)
class FreshUploads:
    """The catalogue in the order of upload, without videos whose upload is unknown.

    `since` are those of videos that came after it was saved.
    """

    uploaded_at: Int[Array, "rows"]
    rows: Int[Array, "rows"]
    since: "FreshUploads | None" = None

    name = "fresh"

    @classmethod
    def fit(cls, videos: VideoTable) -> "FreshUploads":
        """Sorts the videos by upload."""
        uploaded_at = np.asarray(videos.uploaded_at)
        rows = np.flatnonzero(uploaded_at > 0)
        rows = rows[np.argsort(uploaded_at[rows], kind="stable")]
        return cls(uploaded_at[rows], rows.astype(np.int32))

    def nominate(self, context: UserContext, k: int) -> tuple[Int[Array, "batch k"], Float[Array, "batch k"]]:
        """Gives the k newest uploads of the seven days before each moment; the score is minus their age in days.

        Of two of the same second the larger row comes first.
        """
        moments = np.asarray(context.moment)
        lists = [part.newest(moments, k) for part in (self, self.since) if part is not None and len(part.rows)]
        if not lists:
            return np.zeros((len(moments), k), dtype=np.int64), np.zeros((len(moments), k), dtype=np.float32)
        rows, scores = (np.concatenate(columns, axis=1) for columns in zip(*lists, strict=True))
        order = np.lexsort((-rows, -scores, rows == 0), axis=1)[:, :k]
        return np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)

    def newest(self, moments: Int[Array, "batch"], k: int) -> tuple[Int[Array, "batch k"], Float[Array, "batch k"]]:
        """Gives what `nominate` does, but for what came since; there must be a video."""
        places = np.searchsorted(self.uploaded_at, moments, side="right")[:, None] - 1 - np.arange(k)
        ages_days = (moments[:, None] - self.uploaded_at[np.maximum(places, 0)]) / SECONDS_OF_A_DAY
        there = (places >= 0) & (ages_days <= _MOST_DAYS)
        rows = np.where(there, self.rows[np.maximum(places, 0)], 0).astype(np.int64)
        return rows, np.where(there, -ages_days, 0.0).astype(np.float32)

    def with_uploads(self, rows: Int[Array, "new"], uploaded_at: Int[Array, "new"]) -> "FreshUploads":
        """Gives these and some that came since."""
        since = self.since or FreshUploads(self.uploaded_at[:0], self.rows[:0])
        times, together = np.append(since.uploaded_at, uploaded_at), np.append(since.rows, rows)
        order = np.argsort(times, kind="stable")
        return replace(self, since=FreshUploads(times[order], together[order]))

    def save(self, folder: Path) -> None:
        """Writes the order."""
        save_arrays(folder, {"uploaded_at": self.uploaded_at, "rows": self.rows})

    @classmethod
    def open(cls, folder: Path) -> "FreshUploads":
        """Maps what `save` wrote."""
        arrays = load_arrays(folder, ("uploaded_at", "rows"))
        return cls(arrays["uploaded_at"], arrays["rows"])
