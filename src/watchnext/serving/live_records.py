"""One user's past: what the bundle's log says, and what happened since."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from watchnext.events.dataset import Dataset, SearchTokens, Segments, UserEvents, UserTable
from watchnext.events.tokens import query_tokens
from watchnext.serving.events import LiveEvent
from watchnext.serving.live import LiveBundle
from watchnext.serving.recommendation import VisitorRecords
from watchnext.shapes import Array, Int

_QUERIES_KEPT = 10_000


@dataclass(frozen=True)
class Past:
    """A user as a request sees them: row 1 of one-user tables, and the rows they blocked.

    `is_known` says whether anything at all is known of them.
    """

    records: VisitorRecords
    blocked: Int[Array, "videos"]
    is_known: bool


def past_of(live: LiveBundle, user_id: str, events: Sequence[LiveEvent], forgotten_at: int | None) -> Past:
    """Puts the log's events of a user and the later ones together, in time order.

    An event that is in both counts once. A watch that names its page replaces the impression of the same page and
    video. Of a user who was forgotten the log's events and attributes are left out, `events` being what came since.
    """
    dataset = live.bundle.dataset
    user_row = int(dataset.vocabularies["users"].rows_of([user_id])[0]) if forgotten_at is None else 0
    log = dataset.events.segments.offsets[user_row : user_row + 2]
    since = _shown(live, events)
    columns = _columns(dataset, slice(*log.tolist()) if user_row else slice(0, 0), since)
    order = np.lexsort((columns["video_row"], columns["timestamp"]))
    columns = {name: column[order] for name, column in columns.items()}
    times, rows = columns["timestamp"], columns["video_row"]
    repeated = np.append(False, (times[1:] == times[:-1]) & (rows[1:] == rows[:-1]) & (rows[1:] > 0))
    columns = {name: column[~repeated[: len(order)]] for name, column in columns.items()}
    timestamp = columns.pop("timestamp")
    watched = np.flatnonzero(columns["completed"] & (columns["video_row"] > 0))
    records = VisitorRecords(
        UserEvents(_one_user(timestamp), watches=_one_user(timestamp[watched]), watch_places=watched, **columns),
        _searches(dataset, user_row, events),
        UserTable(*(column[[0, user_row]] for column in (dataset.users.categorical, dataset.users.continuous))),
    )
    return Past(records, _blocked(live, events), bool(user_row or events))


def _shown(live: LiveBundle, events: Sequence[LiveEvent]) -> list[tuple[int, LiveEvent]]:
    """Watches and impressions with the rows of their videos; of those of one page and video, the watch."""
    shown = [event for event in events if event.kind in ("watch", "impression")]
    kept: dict[object, tuple[int, LiveEvent]] = {}
    for row, event in zip(live.rows_of([event.video_id for event in shown]).tolist(), shown, strict=True):
        key = (event.page_id, event.video_id) if event.page_id is not None else event.event_id
        if key not in kept or event.kind == "watch":
            kept[key] = (row, event)
    return list(kept.values())


def _columns(dataset: Dataset, log: slice, since: list[tuple[int, LiveEvent]]) -> dict[str, Array]:
    """The columns of `UserEvents`, those of the log first."""
    events, surfaces = dataset.events, dataset.vocabularies["surfaces"]
    later = {
        "timestamp": [event.timestamp for _, event in since],
        "video_row": [row for row, _ in since],
        "watch_seconds": [np.nan if event.watch_seconds is None else event.watch_seconds for _, event in since],
        "clicked": [_is_clicked(event) for _, event in since],
        "completed": [event.completed for _, event in since],
        "liked": [event.liked for _, event in since],
        "shown": [True for _ in since],
        "surface_row": surfaces.rows_of([event.surface for _, event in since]),
        "position": [event.position for _, event in since],
    }
    found = {}
    for name, values in later.items():
        known = (events.segments.timestamp if name == "timestamp" else getattr(events, name))[log]
        found[name] = np.concatenate([known, np.asarray(values, dtype=known.dtype)])
    return found


def _is_clicked(event: LiveEvent) -> bool:
    return event.clicked or event.completed or (event.watch_seconds or 0.0) > 0.0


def _searches(dataset: Dataset, user_row: int, events: Sequence[LiveEvent]) -> SearchTokens:
    segments = dataset.searches.segments
    log = slice(*segments.offsets[user_row : user_row + 2].tolist()) if user_row else slice(0, 0)
    later = [
        (event.timestamp, row)
        for event in events
        if event.kind == "search"
        for row in dataset.vocabularies["search_tokens"].rows_of(_tokens_of(event.query or "")).tolist()
        if row
    ]
    times = np.array([time for time, _ in later], dtype=np.int64)
    rows = np.array([row for _, row in later], dtype=np.int64)
    times = np.concatenate([segments.timestamp[log], times])
    rows = np.concatenate([dataset.searches.token_row[log], rows])
    order = np.lexsort((rows, times))
    return SearchTokens(_one_user(times[order]), rows[order])


@lru_cache(_QUERIES_KEPT)
def _tokens_of(query: str) -> tuple[str, ...]:
    return tuple(query_tokens([query])[0])


def _blocked(live: LiveBundle, events: Sequence[LiveEvent]) -> Int[Array, "videos"]:
    """What the user does not want to see, by the last word on each video."""
    last = {event.video_id: event.kind for event in events if event.kind in ("block", "unblock")}
    rows = live.rows_of([video for video, kind in last.items() if kind == "block"])
    return rows[rows > 0]


def _one_user(times: Int[Array, "rows"]) -> Segments:
    return Segments(np.array([0, 0, len(times)]), times)
