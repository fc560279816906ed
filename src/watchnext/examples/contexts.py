"""What is known of users as of a moment: the one way in which training and serving see the past."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from watchnext.events.dataset import SearchTokens, UserEvents, UserTable
from watchnext.shapes import Array, Bool, Float, Int, RowLists


@runtime_checkable
class UserRecords(Protocol):
    """Whatever remembers users: a dataset, a bundle, or one visitor's inline history."""

    @property
    def events(self) -> UserEvents:
        """What they were shown and watched."""
        ...

    @property
    def searches(self) -> SearchTokens:
        """What they searched for."""
        ...

    @property
    def users(self) -> UserTable:
        """What is known of them besides."""
        ...


@dataclass(frozen=True)
class UserContext:
    """Some users, each as of one moment; nothing in here happened at or after it.

    `video_row` and its companions are what was shown, `watched_row` the completed watches alone, both newest
    first. Padding has row 0 and is neither clicked nor completed. Unknown watch seconds are NaN.
    """

    user_row: Int[Array, "batch"]
    moment: Int[Array, "batch"]
    video_row: Int[Array, "batch history"]
    timestamp: Int[Array, "batch history"]
    watch_seconds: Float[Array, "batch history"]
    clicked: Bool[Array, "batch history"]
    completed: Bool[Array, "batch history"]
    watched_row: Int[Array, "batch _"]
    token_row: Int[Array, "batch tokens"]
    categorical: Int[Array, "batch fields"]
    continuous: Float[Array, "batch values"]

    def __len__(self) -> int:
        """The number of users."""
        return len(self.user_row)

    def part(self, places: Int[Array, "rows"] | slice) -> "UserContext":
        """Gives some of the users."""
        return UserContext(**{name: column[places] for name, column in vars(self).items()})


def context_as_of(
    records: UserRecords,
    user_rows: Int[Array, "batch"],
    moments: Int[Array, "batch"],
    history_length: int,
    num_tokens: int,
    shown_length: int | None = None,
) -> UserContext:
    """Gives what `records` knew of each user strictly before its moment (§3.3: history rolled back).

    `shown_length` shortens what was shown where only the completed watches are needed.
    """
    events = records.events
    shown_length = history_length if shown_length is None else shown_length
    places = events.segments.latest_before(user_rows, moments, shown_length)
    watches = events.watches.latest_before(user_rows, moments, history_length)
    watched = _taken(events.watch_places, watches, -1)
    return UserContext(
        user_row=user_rows,
        moment=moments,
        video_row=_taken(events.video_row, places, 0).astype(np.int64),
        timestamp=_taken(events.segments.timestamp, places, 0),
        watch_seconds=_taken(events.watch_seconds, places, np.nan),
        clicked=_taken(events.clicked, places, False),
        completed=_taken(events.completed, places, False),
        watched_row=_taken(events.video_row, watched, 0).astype(np.int64),
        token_row=_latest_tokens(records.searches, user_rows, moments, num_tokens),
        categorical=records.users.categorical[user_rows],
        continuous=records.users.continuous[user_rows],
    )


def seen_before(records: UserRecords, user_rows: Int[Array, "batch"], moments: Int[Array, "batch"]) -> RowLists:
    """Gives, for each user, the rows of all videos met strictly before the moment, however long ago."""
    segments = records.events.segments
    ends = segments.ends_before(user_rows, moments)
    starts = segments.offsets[user_rows]
    return [np.unique(records.events.video_row[start:end]) for start, end in zip(starts, ends, strict=True)]


def _latest_tokens(
    searches: SearchTokens, user_rows: Int[Array, "batch"], moments: Int[Array, "batch"], num_tokens: int
) -> Int[Array, "batch tokens"]:
    places = searches.segments.latest_before(user_rows, moments, num_tokens)
    return _taken(searches.token_row, places, 0).astype(np.int64)


def _taken(column: Array, places: Int[Array, "batch rows"], padding: int | float | bool) -> Array:
    """Gives the column's values at `places`, and `padding` where a place is -1."""
    if len(column) == 0:
        return np.full(places.shape, padding, dtype=column.dtype)
    values: Array = np.take(column, places, mode="clip")  # half the time of indexing with the clipped places
    values[places < 0] = padding
    return values
