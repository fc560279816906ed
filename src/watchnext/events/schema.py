"""The tables of a watch log and what each column must hold."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["user id", "video id", "time", "seconds", "number", "flag", "text", "tags", "category"]

SECONDS_OF_A_DAY = 86_400
LATEST_TIME_SECONDS = 4_102_444_800  # the year 2100; later "seconds" are most likely milliseconds


@dataclass(frozen=True)
class Column:
    """One column of the schema; `required` ones must be mapped or be named so in the file."""

    name: str
    kind: Kind
    required: bool = False


_USER = Column("user_id", "user id", required=True)
_VIDEO = Column("video_id", "video id", required=True)
_TIME = Column("timestamp", "time", required=True)
_WATCH = Column("watch_seconds", "seconds", required=True)

TABLES: dict[str, tuple[Column, ...]] = {
    "watches": (_USER, _VIDEO, _TIME, _WATCH, Column("completed", "flag"), Column("surface", "category")),
    "impressions": (
        _USER,
        _VIDEO,
        _TIME,
        _WATCH,
        Column("clicked", "flag"),
        Column("completed", "flag"),
        Column("liked", "flag"),
        Column("position", "number"),
        Column("surface", "category"),
        Column("page_id", "text"),
    ),
    "searches": (_USER, _TIME, Column("query", "text", required=True)),
    "users": (
        _USER,
        Column("age", "number"),
        Column("gender", "category"),
        Column("region", "category"),
        Column("device", "category"),
    ),
    "videos": (
        _VIDEO,
        Column("uploaded_at", "time"),
        Column("duration_seconds", "seconds"),
        Column("channel_id", "text"),
        Column("category", "category"),
        Column("tags", "tags"),
        Column("title", "text"),
        Column("language", "category"),
    ),
}

EXTENSIBLE = ("users", "videos")
"""Tables that take any further categorical or numeric column."""
