"""How a video, or a channel, did with everybody before a moment."""

from dataclasses import dataclass

import numpy as np

from watchnext.events.dataset import Timelines
from watchnext.shapes import Array, Float, Int


@dataclass(frozen=True)
class TrackRecord:
    """Sums over the events of each owner strictly before the moment."""

    num_shown: Float[Array, "rows"]
    num_completed: Float[Array, "rows"]
    watch_seconds: Float[Array, "rows"]
    num_timed: Float[Array, "rows"]


def track_record(timelines: Timelines, owners: Int[Array, "rows"], moments: Int[Array, "rows"]) -> TrackRecord:
    """Reads the running sums at the last event before each moment; owner 0 has no record."""
    ends = timelines.segments.ends_before(owners, moments)
    shown = ends - timelines.segments.offsets[owners]
    last = np.maximum(ends - 1, 0)

    def at_last(sums: Array) -> Float[Array, "rows"]:
        return np.where(shown > 0, sums[last], 0.0).astype(np.float64) if len(sums) else np.zeros(len(owners))

    return TrackRecord(
        shown.astype(np.float64),
        at_last(timelines.completed),
        at_last(timelines.watch_seconds),
        at_last(timelines.num_timed),
    )
