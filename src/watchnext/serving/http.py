"""The HTTP API: each endpoint parses, calls the recommender, and renders."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from watchnext.errors import RequestError, UnknownUserError
from watchnext.serving.recommendation import Recommendation, Visitor, Watch
from watchnext.serving.recommender import Recommender

Stage = Literal["ranking", "retrieval"]
_MOST_EVENTS = 1000


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class WatchBody(_Body):
    """One watch of an inline history."""

    video_id: int | str
    timestamp: int | None = Field(None, ge=0, description="Unix seconds; without it, the order given counts")
    watch_seconds: float | None = Field(None, ge=0, le=86_400)
    completed: bool = True


class SearchBody(_Body):
    """One search of an inline history."""

    query: str = Field(max_length=1000)
    timestamp: int = Field(0, ge=0, description="Unix seconds")


class VisitorBody(_Body):
    """Somebody described by the request itself."""

    history: list[WatchBody] = Field([], max_length=_MOST_EVENTS, description="oldest first")
    searches: list[SearchBody] = Field([], max_length=_MOST_EVENTS)
    attributes: dict[str, str | float | int] = Field({}, description="the user's columns of the log, by name")
    k: int = Field(20, ge=1)
    as_of: int | None = Field(
        None, ge=0, description="Unix seconds; by default the end of the bundle's log, or of the history if later"
    )
    stage: Stage = "ranking"
    exclude_seen: bool | None = None
    surface: str | None = None


class Place(BaseModel):
    """One place of the answer."""

    video_id: int | str
    score: float
    expected_watch_seconds: float | None
    sources: list[str]
    title: str | None
    channel: str | None


class Answer(BaseModel):
    """A list, best first; `note` says why there are fewer than k."""

    bundle: str
    recommendations: list[Place]
    note: str | None = None


def create_app(bundle: Path) -> FastAPI:
    """Gives the application that serves the bundle; it loads when the server starts."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.recommender = Recommender.open(bundle)
        yield

    app = FastAPI(title="watchnext", version="1", lifespan=lifespan)
    app.add_api_route("/healthz", healthz, methods=["GET"])
    app.add_api_route("/v1/recommendations", recommend_user, methods=["GET"], response_model=Answer)
    app.add_api_route("/v1/recommendations", recommend_visitor, methods=["POST"], response_model=Answer)
    app.add_exception_handler(RequestError, _refused)
    app.add_exception_handler(RequestValidationError, _malformed)
    return app


def healthz(request: Request) -> dict[str, str]:
    """Says that the server answers, and which bundle it serves."""
    return {"status": "ok", "bundle": _recommender(request).bundle.version}


def recommend_user(
    request: Request,
    user_id: Annotated[str, Query(description="a user of the bundle's log")],
    k: Annotated[int, Query(ge=1)] = 20,
    as_of: Annotated[int | None, Query(ge=0, description="Unix seconds")] = None,
    stage: Stage = "ranking",
    exclude_seen: bool | None = None,
    surface: str | None = None,
) -> Answer:
    """Gives the k best videos for a user of the bundle's log."""
    recommender = _recommender(request)
    found = recommender.recommend(user_id, k, as_of=as_of, stage=stage, exclude_seen=exclude_seen, surface=surface)
    return _answer(recommender, found, k)


def recommend_visitor(request: Request, body: VisitorBody) -> Answer:
    """Gives the k best videos for somebody whose history comes with the request."""
    recommender = _recommender(request)
    visitor = Visitor(
        tuple(Watch(**dict(watch)) for watch in body.history),
        tuple((search.timestamp, search.query) for search in body.searches),
        dict(body.attributes),
    )
    found = recommender.recommend_visitor(
        visitor,
        body.k,
        as_of=body.as_of,
        stage=body.stage,
        exclude_seen=body.exclude_seen,
        surface=body.surface,
    )
    return _answer(recommender, found, body.k)


def _recommender(request: Request) -> Recommender:
    recommender: Recommender = request.app.state.recommender
    return recommender


def _answer(recommender: Recommender, found: list[Recommendation], k: int) -> Answer:
    note = None if len(found) == k else f"only {len(found)} videos are left that were not seen before"
    places: list[Any] = [asdict(one) for one in found]
    return Answer(bundle=recommender.bundle.version, recommendations=places, note=note)


async def _refused(request: Request, error: Exception) -> JSONResponse:
    status = 404 if isinstance(error, UnknownUserError) else 422
    return JSONResponse({"detail": str(error)}, status)


async def _malformed(request: Request, error: Exception) -> JSONResponse:
    """Names the field and what is wrong, without the value: it may say who asks, and NaN cannot be rendered."""
    assert isinstance(error, RequestValidationError)
    detail = [{key: one[key] for key in ("loc", "msg", "type")} for one in error.errors()]
    return JSONResponse({"detail": detail}, 422)
