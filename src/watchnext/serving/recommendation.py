"""The answer, and the question of somebody who is not in the log."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from watchnext.errors import RequestError
from watchnext.events.dataset import Dataset, SearchTokens, Segments, UserEvents, UserTable
from watchnext.events.schema import LATEST_TIME_SECONDS
from watchnext.events.tokens import query_tokens
from watchnext.shapes import Array, Int

_LARGEST_NUMBER = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class PulledBy:
    """A watched video, and the share of the match between user and candidate that is gone without it."""

    video_id: int | str
    title: str | None
    pull: float


@dataclass(frozen=True)
class Contribution:
    """A group of the ranker's inputs, and the seconds that it adds over what is usual there."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Why:
    """Why a video is in a list: who nominated it, what pulled it in, what the ranker made of it."""

    sources: tuple[str, ...]
    watches: tuple[PulledBy, ...]
    features: tuple[Contribution, ...]


@dataclass(frozen=True)
class Recommendation:
    """One place of a list: the border type between serving and the world. None stands for unknown."""

    video_id: int | str
    title: str | None
    channel: str | None
    category: str | None
    duration_seconds: float | None
    uploaded_at: int | None
    score: float
    expected_watch_seconds: float | None
    sources: tuple[str, ...]
    why: Why | None = None


@dataclass(frozen=True)
class Watch:
    """One event of an inline history; it counts as completed unless it says otherwise.

    Without a timestamp it happened just before the request, in the order given, oldest first.
    """

    video_id: int | str
    timestamp: int | None = None
    watch_seconds: float | None = None
    completed: bool = True


@dataclass(frozen=True)
class Visitor:
    """Somebody described by the request itself: recent watches and searches, and attributes by name."""

    history: tuple[Watch, ...] = ()
    searches: tuple[tuple[int, str], ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def times(self) -> list[int]:
        """The times that were given."""
        watched = [watch.timestamp for watch in self.history if watch.timestamp is not None]
        return watched + [when for when, _ in self.searches]


@dataclass(frozen=True)
class VisitorRecords:
    """A visitor in the shape in which a dataset remembers users: row 1 of one-user tables."""

    events: UserEvents
    searches: SearchTokens
    users: UserTable

    @classmethod
    def of(cls, visitor: Visitor, dataset: Dataset, moment: int) -> "VisitorRecords":
        """Looks up the visitor's ids; unknown videos and tokens are left as row 0.

        Raises:
            RequestError: an attribute that the bundle's log does not have.
        """
        times = _times(visitor.history, moment)
        rows = dataset.vocabularies["videos"].rows_of([watch.video_id for watch in visitor.history])
        order = np.lexsort((rows, times))  # as a dataset sorts a user's events
        history = [visitor.history[place] for place in order]
        times, rows = times[order], rows[order]
        completed = np.array([watch.completed for watch in history], dtype=bool)
        seconds = [np.nan if watch.watch_seconds is None else watch.watch_seconds for watch in history]
        watched = np.flatnonzero(completed & (rows > 0))
        events = UserEvents(
            segments=_one_user(times),
            video_row=rows.astype(np.int32),
            watch_seconds=np.array(seconds, dtype=np.float32),
            clicked=completed | (np.nan_to_num(np.array(seconds)) > 0),
            completed=completed,
            liked=np.zeros(len(history), dtype=bool),
            shown=np.ones(len(history), dtype=bool),
            surface_row=np.zeros(len(history), dtype=np.int32),
            position=np.zeros(len(history), dtype=np.int16),
            watches=_one_user(times[watched]),
            watch_places=watched,
        )
        return cls(events, _searches(visitor, dataset), _attributes(visitor, dataset))


def refuse_impossible_times(name: str, times: Iterable[int]) -> None:
    """Refuses what cannot be Unix seconds, milliseconds first of all.

    Raises:
        RequestError: a time before 1970 or after 2100.
    """
    for time in times:
        if not 0 <= time <= LATEST_TIME_SECONDS:
            raise RequestError(f"{name} = {time}: Unix seconds before the year 2100 were expected, not milliseconds.")


def _times(history: tuple[Watch, ...], moment: int) -> Int[Array, "rows"]:
    """When each watch was; those without a time are put one second apart before the moment, in the order given."""
    times = [
        moment - len(history) + place if watch.timestamp is None else watch.timestamp
        for place, watch in enumerate(history)
    ]
    return np.array(times, dtype=np.int64)


def _one_user(times: Int[Array, "rows"]) -> Segments:
    return Segments(np.array([0, 0, len(times)]), times)


def _searches(visitor: Visitor, dataset: Dataset) -> SearchTokens:
    tokens = query_tokens([query for _, query in visitor.searches])
    found = sorted(
        (timestamp, row)
        for (timestamp, _), words in zip(visitor.searches, tokens, strict=True)
        for row in dataset.vocabularies["search_tokens"].rows_of(words).tolist()
        if row > 0
    )
    times, rows = (np.array([pair[place] for pair in found], dtype=np.int64) for place in (0, 1))
    return SearchTokens(_one_user(times), rows)


def _attributes(visitor: Visitor, dataset: Dataset) -> UserTable:
    numbers = list(dataset.facts["user_numbers"])
    known = [*dataset.user_categories, *numbers]
    unknown = sorted(set(visitor.attributes) - set(known))
    if unknown:
        raise RequestError(f"unknown user attribute '{unknown[0]}': known are {', '.join(known) or '(none)'}.")
    categorical = np.zeros((2, len(dataset.user_categories)), dtype=np.int32)
    for place, name in enumerate(dataset.user_categories):
        if name in visitor.attributes:
            vocabulary = dataset.vocabularies[f"users.{name}"]
            categorical[1, place] = vocabulary.rows_of([visitor.attributes[name]])[0]
    continuous = np.full((2, len(numbers)), np.nan, dtype=np.float32)
    for place, name in enumerate(numbers):
        value = visitor.attributes.get(name)
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST_NUMBER
        ):
            raise RequestError(f"the user attribute '{name}' should be a number.")
        continuous[1, place] = np.nan if value is None else value
    return UserTable(categorical, continuous)
