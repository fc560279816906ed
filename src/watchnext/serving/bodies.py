"""What comes in and goes out over HTTP, as the OpenAPI description tells it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from watchnext.serving.events import LiveEvent
from watchnext.serving.exchange import Ask
from watchnext.serving.live import EVERYTHING, Filters
from watchnext.serving.recommendation import Visitor, Watch

Stage = Literal["ranking", "retrieval"]
MOST_EVENTS = 1000
_LARGEST_ID = 2**63 - 1
Text = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
Sentence = Annotated[str, StringConstraints(max_length=1000, pattern=r"^[^\x00]*$")]
Whole = Annotated[int, Field(ge=-_LARGEST_ID, le=_LARGEST_ID)]
Id = Whole | Text
Seconds = Annotated[int, Field(ge=0, le=10**15, description="Unix seconds")]
Watched = Annotated[float, Field(ge=0, le=86_400)]


class Body(BaseModel):
    """Whatever is sent: nothing besides what is named."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class WatchBody(Body):
    """One watch of an inline history."""

    video_id: Id
    timestamp: Seconds | None = Field(None, description="Unix seconds; without it, the order given counts")
    watch_seconds: Watched | None = None
    completed: bool = True


class SearchBody(Body):
    """One search of an inline history."""

    query: str = Field(max_length=1000)
    timestamp: Seconds = 0


class FiltersBody(Body):
    """What may come at all; nothing said is no limit."""

    categories: list[Text] = Field([], max_length=100)
    channel_ids: list[Id] = Field([], max_length=100)
    max_duration_seconds: float | None = Field(None, gt=0, le=1e6)

    def filters(self) -> Filters:
        """Gives them as the service takes them."""
        channels = tuple(str(one) for one in self.channel_ids)
        return Filters(tuple(self.categories), channels, self.max_duration_seconds)


class VisitorBody(Body):
    """Somebody described by the request itself."""

    history: list[WatchBody] = Field([], max_length=MOST_EVENTS, description="oldest first")
    searches: list[SearchBody] = Field([], max_length=MOST_EVENTS)
    attributes: dict[Text, str | float | int] = Field(
        {}, max_length=100, description="the user's columns of the log, by name"
    )
    k: int = Field(20, ge=1, le=1000)
    as_of: Seconds | None = Field(
        None,
        description="Unix seconds; by default the end of the bundle's log, or of the history if later. "
        "Before the log's end: with the admin token",
    )
    stage: Stage = "ranking"
    exclude_seen: bool | None = None
    surface: Text | None = None
    filters: FiltersBody | None = None
    explain: bool = False

    def ask(self) -> Ask:
        """Gives the request as the service takes it."""
        visitor = Visitor(
            tuple(Watch(**dict(watch)) for watch in self.history),
            tuple((search.timestamp, search.query) for search in self.searches),
            dict(self.attributes),
        )
        filters = EVERYTHING if self.filters is None else self.filters.filters()
        return Ask(
            None, visitor, self.k, self.as_of, self.stage, self.exclude_seen, self.surface, filters, self.explain
        )


class Said(BaseModel):
    """Whatever is answered: read off what the service gives."""

    model_config = ConfigDict(from_attributes=True)


class VideoBody(Said):
    """What is known of a video."""

    video_id: int | str
    title: str | None
    channel: str | None
    category: str | None
    duration_seconds: float | None
    uploaded_at: int | None


class PullBody(Said):
    """A watched video that pulled this one in: the share of the match that is gone without it."""

    video_id: int | str
    title: str | None
    pull: float


class ContributionBody(Said):
    """A group of the ranker's inputs: the seconds it adds over what is usual there."""

    name: str
    seconds: float


class WhyBody(Said):
    """Why a video is in the list."""

    sources: list[str]
    watches: list[PullBody]
    features: list[ContributionBody]


class PlaceBody(VideoBody):
    """One place of the answer."""

    score: float
    expected_watch_seconds: float | None
    sources: list[str]
    why: WhyBody | None = None


class AnswerBody(Said):
    """A list, best first; `note` says why there are fewer than k, `degraded` what there was no time for."""

    request_id: str
    bundle: str
    variant: str
    as_of: int
    degraded: list[str]
    note: str | None
    recommendations: list[PlaceBody]


class EventBody(Body):
    """Something that happened; the same event_id sent again changes nothing."""

    event_id: Text
    kind: Literal["watch", "impression", "search"]
    user_id: Id
    video_id: Id | None = None
    timestamp: Seconds | None = Field(None, description="Unix seconds; by default now")
    watch_seconds: Watched | None = None
    completed: bool | None = Field(None, description="by default what the bundle's log calls completed")
    clicked: bool = False
    liked: bool = False
    position: int = Field(0, ge=0, le=32_000, description="place on the page, from 1")
    surface: Text | None = None
    page_id: Text | None = Field(None, description="the request_id of the answer that showed it")
    query: str | None = Field(None, min_length=1, max_length=1000)

    def event(self, now: int, completed: bool) -> LiveEvent:
        """Gives it as a store keeps it."""
        said = self.model_dump(exclude={"user_id", "video_id", "timestamp", "completed", "kind"})
        video_id = None if self.video_id is None else str(self.video_id)
        timestamp = now if self.timestamp is None else self.timestamp
        return LiveEvent(
            kind=self.kind, user_id=str(self.user_id), video_id=video_id, timestamp=timestamp, completed=completed,
            **said,
        )  # fmt: skip


class EventsBody(Body):
    """Several events at once: all are taken, or none."""

    events: list[EventBody] = Field(min_length=1, max_length=MOST_EVENTS)


class AcceptedBody(BaseModel):
    """How many events were new, and how many known already. They are on disk."""

    accepted: int
    duplicates: int


class UploadBody(Body):
    """A new video, by the columns of the log's table of videos."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)
    __pydantic_extra__: dict[str, Whole | float | Sentence | list[Id] | None]
    video_id: Id


class BlockBody(Body):
    """Who shall not see the video; nobody shall if no user is named."""

    user_id: Id | None = None


class BundleBody(Body):
    """A bundle to promote: a folder of the server's own disk."""

    path: str = Field(min_length=1, max_length=4096, pattern=r"^[^\x00]+$")
    share: float = Field(1.0, gt=0, le=1)
    variant: Text = "main"
