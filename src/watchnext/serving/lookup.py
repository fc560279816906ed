"""Looking things up: a user's history, videos like one, videos by title."""

from typing import Any

import numpy as np

from watchnext.errors import RequestError
from watchnext.events.tokens import title_words
from watchnext.serving.bodies import PlaceBody
from watchnext.serving.live import LiveBundle
from watchnext.serving.service import Service
from watchnext.shapes import Array, Float, Int

_ROWS_AT_ONCE = 1 << 20


class UnknownVideoError(RequestError):
    """The video is neither in the bundle's log nor an upload."""


def history_of(service: Service, user_id: str, limit: int) -> list[dict[str, Any]]:
    """Gives what a user watched, was shown and searched for since the log ended, newest first."""
    variant = service.deployments.now.variant_of(user_id)
    live = variant.recommender.live
    past = service.answerer.past(variant, user_id)
    events = past.records.events
    newest = np.argsort(events.segments.timestamp, kind="stable")[::-1][:limit]
    told: list[dict[str, Any]] = [
        {
            "kind": "watch" if events.watch_seconds[place] > 0 or events.completed[place] else "impression",
            "timestamp": int(events.segments.timestamp[place]),
            "video_id": video.video_id,
            "title": video.title,
            "channel": video.channel,
            "category": video.category,
            "duration_seconds": video.duration_seconds,
            "watch_seconds": _known(float(events.watch_seconds[place])),
            "completed": bool(events.completed[place]),
            "query": None,
        }
        for place, video in zip(newest.tolist(), live.describe(events.video_row[newest]), strict=True)
    ]
    searches = [event for event in service.store.of_user(user_id, limit) if event.kind == "search"]
    nothing: dict[str, Any] = dict.fromkeys(
        ("video_id", "title", "channel", "category", "duration_seconds", "watch_seconds")
    )
    told += [
        nothing | {"kind": "search", "timestamp": one.timestamp, "completed": False, "query": one.query}
        for one in searches
    ]
    return sorted(told, key=lambda one: one["timestamp"], reverse=True)[:limit]


def similar(live: LiveBundle, video_id: str, k: int) -> list[PlaceBody]:
    """Gives k videos like one: co-watched ones first, then the nearest by the angle between vectors.

    Raises:
        UnknownVideoError: it is not in the catalogue.
    """
    row = int(live.rows_of([video_id])[0])
    if not row:
        raise UnknownVideoError("this video is neither in the bundle's log nor an upload.")
    generator = live.generator
    together = np.zeros((1, 0), dtype=np.int64)
    if row < live.uploads.first_row:
        together, _ = generator.co_watch.related(np.array([[row]]), k)
    vector = generator.video_vectors[np.array([row])]
    struck = np.append(live.blocked, row)
    nearest, _ = generator.index.search(vector, k, [struck])
    found: dict[int, list[str]] = {}
    for name, rows in (("co_watch", together[0]), ("network", nearest[0])):
        for one in rows[(rows > 0) & ~np.isin(rows, struck)].tolist():
            found.setdefault(one, []).append(name)
    rows = np.array(list(found)[:k], dtype=np.int64)
    scores = (generator.video_vectors[rows] @ vector[0]) if len(rows) else np.zeros(0)
    return _places(live, rows, scores, list(found.values()))


def searched(live: LiveBundle, query: str, limit: int) -> list[PlaceBody]:
    """Gives the videos with most words of the query in their title, of those the most watched: a scan of the titles."""
    dataset = live.bundle.dataset
    words = title_words([query])[0]
    tokens = dataset.vocabularies["title_tokens"].rows_of(words)
    tokens = np.unique(tokens[tokens > 0])
    best: list[tuple[int, int, int]] = []
    for start in range(0, dataset.num_videos if len(tokens) else 0, _ROWS_AT_ONCE):
        titles = np.asarray(dataset.videos.title_rows[start : start + _ROWS_AT_ONCE])
        counts = sum((titles == token).any(axis=1).astype(np.int64) for token in tokens.tolist())
        places = np.flatnonzero(counts)
        completed = np.asarray(dataset.videos.num_completed[places + start])
        order = np.lexsort((-completed, -counts[places]))[: limit + len(live.blocked)]
        best += zip(
            (-counts[places[order]]).tolist(),
            (-completed[order]).tolist(),
            (places[order] + start).tolist(),
            strict=True,
        )
    for place, title in enumerate(live.uploads.titles):
        common = len(set(words) & set(title_words([title or ""])[0]))
        if common:
            best.append((-common, 0, live.uploads.first_row + place))
    rows = np.array([row for _, _, row in sorted(best)], dtype=np.int64)
    rows = rows[~np.isin(rows, live.blocked)][:limit]
    return _places(live, rows, np.zeros(len(rows)), [["search"]] * len(rows))


def _places(
    live: LiveBundle, rows: Int[Array, "videos"], scores: Float[Array, "videos"], sources: list[list[str]]
) -> list[PlaceBody]:
    return [
        PlaceBody(**vars(video), score=float(score), expected_watch_seconds=None, sources=names)
        for video, score, names in zip(live.describe(rows), scores, sources, strict=False)
    ]


def _known(number: float) -> float | None:
    return None if np.isnan(number) else number
