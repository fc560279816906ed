"""What happens while a server runs: watches, impressions, searches, likes of one moment, blocks, uploads."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

Kind = Literal["watch", "impression", "search", "block", "unblock", "upload"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class LiveEvent:
    """One event, as a store keeps it; ids are text, whatever the log calls them.

    `user_id` is None of what concerns everybody: an upload, and a video that nobody shall see. `watch_seconds` is 0
    of what was shown and not watched, None where it is not known. `page_id` is the request that was answered.
    `upload` are the columns of a new video.
    """

    event_id: str
    kind: Kind
    timestamp: int
    user_id: str | None = None
    video_id: str | None = None
    watch_seconds: float | None = None
    completed: bool = False
    clicked: bool = False
    liked: bool = False
    position: int = 0
    surface: str | None = None
    page_id: str | None = None
    query: str | None = None
    upload: dict[str, Any] | None = None
