"""What `watchnext check` tells of a log before anything is made of it."""

from dataclasses import dataclass
from datetime import UTC, datetime

from watchnext.errors import DataError
from watchnext.events.log import EventLog
from watchnext.events.schema import TABLES


@dataclass(frozen=True)
class LogSummary:
    """Counts, ids, time range and rejected rows of a log; `problem` says why `prepare` would refuse it."""

    name: str
    rows: dict[str, int]
    num_users: int
    num_videos: int
    first_event: str
    last_event: str
    completed_share: float | None
    timed_share: float
    rejected: dict[str, int]
    problem: str | None


def summarise(log: EventLog) -> LogSummary:
    """Gives the summary of a log that was read."""
    events = (
        "(SELECT user_id, video_id, timestamp, watch_seconds, completed FROM watches "
        "UNION ALL SELECT user_id, video_id, timestamp, watch_seconds, completed FROM impressions)"
    )
    num_events = int(log.one(f"SELECT count(*) FROM {events}"))
    rejected = log.connection.execute(
        "SELECT \"table\" || '.' || \"column\" || ': ' || split_part(reason, ':', 1) AS why, count(*) "
        "FROM rejects GROUP BY why ORDER BY count(*) DESC, why"
    ).fetchall()
    return LogSummary(
        log.mapping.name,
        {table: log.rows(table) for table in TABLES},
        int(log.one(f"SELECT count(DISTINCT user_id) FROM {events}")),
        int(log.one(f"SELECT count(DISTINCT video_id) FROM {events}")),
        _date(log.one(f"SELECT min(timestamp) FROM {events}")),
        _date(log.one(f"SELECT max(timestamp) FROM {events}")),
        log.one(f"SELECT avg(CAST(completed AS INTEGER)) FROM {events}"),
        float(log.one(f"SELECT count(watch_seconds) FROM {events}")) / max(num_events, 1),
        dict(rejected),
        _problem(log),
    )


def _date(seconds: int | None) -> str:
    return "-" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _problem(log: EventLog) -> str | None:
    try:
        log.refuse_too_many_rejects()
    except DataError as problem:
        return str(problem)
    return None
