"""New uploads: a video that nobody has met yet is nominated because it is new."""

from dataclasses import dataclass
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
    """The catalogue in the order of upload, without videos whose upload is unknown."""

    uploaded_at: Int[Array, "uploads"]
    rows: Int[Array, "uploads"]

    name = "fresh"

    @classmethod
    def fit(cls, videos: VideoTable) -> "FreshUploads":
        """Sorts the videos by upload."""
        uploaded_at = np.asarray(videos.uploaded_at)
        rows = np.flatnonzero(uploaded_at > 0)
        rows = rows[np.argsort(uploaded_at[rows], kind="stable")]
        return cls(uploaded_at[rows], rows.astype(np.int32))

    def nominate(self, context: UserContext, k: int) -> tuple[Int[Array, "batch k"], Float[Array, "batch k"]]:
        """Gives the k newest uploads of the seven days before each moment; the score is minus their age in days."""
        ends = np.searchsorted(self.uploaded_at, context.moment, side="right")
        places = ends[:, None] - 1 - np.arange(k)
        moments = np.asarray(context.moment)[:, None]
        ages_days = (moments - self.uploaded_at[np.maximum(places, 0)]) / SECONDS_OF_A_DAY if len(self.rows) else 0.0
        there = (places >= 0) & (ages_days <= _MOST_DAYS)
        if not there.any():
            return np.zeros(places.shape, dtype=np.int64), np.zeros(places.shape, dtype=np.float32)
        rows = np.where(there, self.rows[np.maximum(places, 0)], 0).astype(np.int64)
        return rows, np.where(there, -ages_days, 0.0).astype(np.float32)

    def save(self, folder: Path) -> None:
        """Writes the order."""
        save_arrays(folder, {"uploaded_at": self.uploaded_at, "rows": self.rows})

    @classmethod
    def open(cls, folder: Path) -> "FreshUploads":
        """Maps what `save` wrote."""
        return cls(**load_arrays(folder, ("uploaded_at", "rows")))
