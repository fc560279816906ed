"""One user's past: what the bundle's log says, and what happened since."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from watchnext.events.dataset import Dataset, SearchTokens, Segments, UserEvents, UserTable
from watchnext.events.tokens import query_tokens
from watchnext.serving.events import LiveEvent
from watchnext.serving.live import LiveBundle
from watchnext.serving.recommendation import VisitorRecords
from watchnext.shapes import Array, Int


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

    As in a log, what a user did with a video in one second is one event, whichever of both it is in, and the first
    watch that names its page takes the place of the impression of the same page and video. Of a user who was forgotten
    the log's events and attributes are left out, `events` being what came since.
    """
    dataset = live.bundle.dataset
    user_row = int(dataset.vocabularies["users"].rows_of([user_id])[0]) if forgotten_at is None else 0
    log = dataset.events.segments.offsets[user_row : user_row + 2]
    since = _shown(live, events)
    columns = _merged(_columns(dataset, slice(*log.tolist()) if user_row else slice(0, 0), since))
    timestamp = columns.pop("timestamp")
    watched = np.flatnonzero(columns["completed"] & (columns["video_row"] > 0))
    records = VisitorRecords(
        UserEvents(_one_user(timestamp), watches=_one_user(timestamp[watched]), watch_places=watched, **columns),
        _searches(dataset, user_row, events),
        UserTable(*(column[[0, user_row]] for column in (dataset.users.categorical, dataset.users.continuous))),
    )
    return Past(records, _blocked(live, events), bool(user_row or events))


def _shown(live: LiveBundle, events: Sequence[LiveEvent]) -> list[tuple[int, LiveEvent]]:
    """Watches and impressions with the rows of their videos."""
    of_pages: dict[tuple[str | None, str | None], LiveEvent] = {}
    found = []
    for event in (event for event in events if event.kind == "impression"):
        if event.page_id is None:
            found.append(event)
        else:
            of_pages.setdefault((event.page_id, event.video_id), event)
    for event in (event for event in events if event.kind == "watch"):
        impression = of_pages.pop((event.page_id, event.video_id), None)
        found.append(event if impression is None else _in_place_of(impression, event))
    found += of_pages.values()
    return list(zip(live.rows_of([event.video_id for event in found]).tolist(), found, strict=True))


def _in_place_of(impression: LiveEvent, watch: LiveEvent) -> LiveEvent:
    """The watch as a log has it: when and where it was shown."""
    return replace(
        watch,
        timestamp=impression.timestamp,
        position=impression.position or watch.position,
        surface=impression.surface or watch.surface,
        liked=impression.liked or watch.liked,
    )


def _merged(columns: dict[str, Array]) -> dict[str, Array]:
    """The columns in the order of a dataset; events of one second and video are one, with the most that is said."""
    order = np.lexsort([columns[name] for name in ("completed", "clicked", "watch_seconds", "video_row", "timestamp")])
    times, rows = columns["timestamp"][order], columns["video_row"][order]
    same = (times[1:] == times[:-1]) & (rows[1:] == rows[:-1]) & (rows[1:] > 0)
    first = np.flatnonzero(np.append(True, ~same)[: len(order)])
    return {name: np.fmax.reduceat(column[order], first) for name, column in columns.items()}


def _columns(dataset: Dataset, log: slice, since: list[tuple[int, LiveEvent]]) -> dict[str, Array]:
    """The columns of `UserEvents`, those of the log first."""
    events, surfaces = dataset.events, dataset.vocabularies["surfaces"]
    later = {
        "timestamp": [event.timestamp for _, event in since],
        "video_row": [row for row, _ in since],
        "watch_seconds": [_seconds(event) for _, event in since],
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


def _seconds(event: LiveEvent) -> float:
    """As a log has them: of what was only shown nothing is known to be watched."""
    if event.watch_seconds is not None:
        return event.watch_seconds
    return 0.0 if event.kind == "impression" else np.nan


def _is_clicked(event: LiveEvent) -> bool:
    return event.kind == "watch" or event.clicked or (event.watch_seconds or 0.0) > 0.0


def _searches(dataset: Dataset, user_row: int, events: Sequence[LiveEvent]) -> SearchTokens:
    segments = dataset.searches.segments
    log = slice(*segments.offsets[user_row : user_row + 2].tolist()) if user_row else slice(0, 0)
    later: Counter[tuple[int, int]] = Counter(
        (event.timestamp, row)
        for event in events
        if event.kind == "search"
        for row in dataset.vocabularies["search_tokens"].rows_of(query_tokens([event.query or ""])[0]).tolist()
        if row
    )
    known: Counter[tuple[int, int]] = Counter(
        zip(segments.timestamp[log].tolist(), dataset.searches.token_row[log].tolist(), strict=True)
    )
    together = sorted((known | later).elements())  # a search that is in both counts once
    times, rows = (np.array([pair[place] for pair in together], dtype=np.int64) for place in (0, 1))
    return SearchTokens(_one_user(times), rows)


def _blocked(live: LiveBundle, events: Sequence[LiveEvent]) -> Int[Array, "videos"]:
    """What the user does not want to see, by the last word on each video."""
    last = {event.video_id: event.kind for event in events if event.kind in ("block", "unblock")}
    rows = live.rows_of([video for video, kind in last.items() if kind == "block"])
    return rows[rows > 0]


def _one_user(times: Int[Array, "rows"]) -> Segments:
    return Segments(np.array([0, 0, len(times)]), times)
