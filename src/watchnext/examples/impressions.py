"""Impression examples: this video was shown to this user, and watched for so long (§4)."""

from dataclasses import dataclass

import numpy as np

from watchnext.events.dataset import UserEvents
from watchnext.shapes import Array, Bool, Float, Int

_PAGE_BITS = 32  # pages are 32-bit numbers, none of them negative


@dataclass(frozen=True)
class Impressions:
    """Labels: at `timestamp`, `video_row` was shown to `user_row` on a surface; what came of it.

    `position` is counted from 1; 0 is not known. `page` is a number that a user's impressions on one page share, 0 is
    not known.
    """

    user_row: Int[Array, "rows"]
    timestamp: Int[Array, "rows"]
    video_row: Int[Array, "rows"]
    surface_row: Int[Array, "rows"]
    position: Int[Array, "rows"]
    page: Int[Array, "rows"]
    watch_seconds: Float[Array, "rows"]
    clicked: Bool[Array, "rows"]
    completed: Bool[Array, "rows"]
    liked: Bool[Array, "rows"]

    def __len__(self) -> int:
        """The number of impressions."""
        return len(self.user_row)

    @property
    def page_of_user(self) -> Int[Array, "rows"]:
        """A number for each page of each user; impressions of no known page are one page of their user's."""
        return (self.user_row << _PAGE_BITS) + self.page

    def part(self, places: Array | slice) -> "Impressions":
        """Gives some of the impressions."""
        return Impressions(**{name: column[places] for name, column in vars(self).items()})

    def latest(self, count: int) -> "Impressions":
        """Gives the `count` latest impressions, in the same order."""
        newest = np.argsort(-self.timestamp, kind="stable")[:count]
        return self.part(np.sort(newest))

    def followed_by(self, others: "Impressions") -> "Impressions":
        """Gives these impressions and then the others."""
        columns = {name: np.concatenate([column, getattr(others, name)]) for name, column in vars(self).items()}
        return Impressions(**columns)


def impressions_between(
    events: UserEvents, start: int, end: int, page: Int[Array, "events"] | None = None
) -> Impressions:
    """Gives the impressions in [start, end) whose watch time is known, one user's together and in time order.

    `page` is that of each event, where it is asked for.
    """
    when = np.asarray(events.segments.timestamp)
    wanted = (when >= start) & (when < end) & events.shown & ~np.isnan(events.watch_seconds)
    places = np.flatnonzero(wanted)
    owners = np.searchsorted(events.segments.offsets, places, side="right") - 1
    return Impressions(
        owners,
        when[places],
        events.video_row[places].astype(np.int64),
        events.surface_row[places].astype(np.int64),
        events.position[places].astype(np.int64),
        np.zeros(len(places), dtype=np.int64) if page is None else page[places].astype(np.int64),
        events.watch_seconds[places].astype(np.float64),
        np.asarray(events.clicked[places]),
        np.asarray(events.completed[places]),
        np.asarray(events.liked[places]),
    )


def with_unwatched(watched: Impressions, video_row: Int[Array, "rows samples"]) -> Impressions:
    """Adds, beside each watch, the videos of its row of `video_row` as shown and not watched (row 0 adds nothing)."""
    places, columns = np.nonzero(video_row)
    negatives = watched.part(places)
    nothing = np.zeros(len(places), dtype=bool)
    drawn = Impressions(
        negatives.user_row,
        negatives.timestamp,
        video_row[places, columns],
        negatives.surface_row,
        np.zeros(len(places), dtype=np.int64),
        negatives.page,
        np.zeros(len(places)),
        nothing,
        nothing,
        nothing,
    )
    return watched.followed_by(drawn)
