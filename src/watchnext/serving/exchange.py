"""What is asked of the service, and what it answers."""

from dataclasses import dataclass

from watchnext.errors import WatchnextError
from watchnext.serving.live import EVERYTHING, Filters
from watchnext.serving.recommendation import Recommendation, Visitor


class OverloadError(WatchnextError):
    """More is asked than can be answered in time; to be asked again later."""


@dataclass(frozen=True)
class Ask:
    """A request for recommendations: for a user by id, or for a visitor who is described."""

    user_id: str | None = None
    visitor: Visitor | None = None
    k: int = 20
    as_of: int | None = None
    stage: str = "ranking"
    exclude_seen: bool | None = None
    surface: str | None = None
    filters: Filters = EVERYTHING
    explain: bool = False


@dataclass(frozen=True)
class Answer:
    """A page, best first; `note` says why it is shorter than k, `degraded` what was left out, in that order."""

    request_id: str
    bundle: str
    variant: str
    as_of: int
    degraded: tuple[str, ...]
    note: str | None
    recommendations: tuple[Recommendation, ...]
