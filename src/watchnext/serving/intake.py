"""From what is sent to events: missing times and outcomes are filled in, impossible ones refused."""

import time
from collections.abc import Sequence

import duckdb

from watchnext.errors import RequestError
from watchnext.events.schema import LATEST_TIME_SECONDS, SECONDS_OF_A_DAY
from watchnext.serving.bodies import EventBody
from watchnext.serving.events import LiveEvent
from watchnext.serving.service import Service


def events_of(service: Service, bodies: Sequence[EventBody]) -> list[LiveEvent]:
    """Gives events as a store keeps them.

    Raises:
        RequestError: one lacks what its kind needs, or is of a time that has not come.
    """
    variant = service.deployments.now.variants[0]
    now = service.answerer.now(variant)
    latest = min(max(now, int(time.time())) + SECONDS_OF_A_DAY, LATEST_TIME_SECONDS)
    for body in bodies:
        if (body.query is None) if body.kind == "search" else (body.video_id is None):
            needed = "query" if body.kind == "search" else "video_id"
            raise RequestError(f"an event of kind '{body.kind}' came without '{needed}'.")
        if body.timestamp is not None and body.timestamp > latest:
            raise RequestError(
                "an event of more than a day from now came: Unix seconds were expected, not milliseconds, of a clock "
                "that is right."
            )
    completed = _completed(service, bodies)
    return [body.event(now, done) for body, done in zip(bodies, completed, strict=True)]


def _completed(service: Service, bodies: Sequence[EventBody]) -> list[bool]:
    """What is said, or else what the log's rule says of watch_seconds, duration_seconds and clicked."""
    asked = [place for place, body in enumerate(bodies) if body.kind == "watch" and body.completed is None]
    found = [bool(body.completed) and body.kind == "watch" for body in bodies]
    if asked:
        live = service.deployments.now.variants[0].recommender.live
        videos = live.describe(live.rows_of([str(bodies[place].video_id) for place in asked]))
        rows = [
            (bodies[place].watch_seconds, video.duration_seconds, bodies[place].clicked)
            for place, video in zip(asked, videos, strict=True)
        ]
        for place, done in zip(asked, by_rule(live.bundle.dataset.facts["completed_rule"], rows), strict=True):
            found[place] = done
    return found


def by_rule(rule: str, rows: Sequence[tuple[float | None, float | None, bool]]) -> list[bool]:
    """Gives which watches are completed by a log's rule; unknown is not.

    >>> by_rule("watch_seconds >= 0.5 * duration_seconds", [(30.0, 40.0, True), (10.0, 40.0, True), (30.0, None, True)])
    [True, False, False]
    """
    columns = [list(column) for column in zip(*rows, strict=True)]
    with duckdb.connect() as connection:
        found = connection.execute(
            f"SELECT coalesce({rule}, false) FROM (SELECT unnest(?::DOUBLE[]) AS watch_seconds, "
            "unnest(?::DOUBLE[]) AS duration_seconds, unnest(?::BOOLEAN[]) AS clicked)",
            columns,
        ).fetchall()
    return [bool(done) for (done,) in found]
