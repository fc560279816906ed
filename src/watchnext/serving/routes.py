"""What an application calls: lists, events, videos, and what is known of a user."""

import time
import uuid
from collections import Counter
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi import Path as InPath
from fastapi.responses import Response
from pydantic import BaseModel, TypeAdapter

from watchnext.errors import RequestError
from watchnext.serving.access import WRITE, Running, refuse_without_token
from watchnext.serving.bodies import (
    AcceptedBody,
    AnswerBody,
    BlockBody,
    EventsBody,
    PlaceBody,
    Seconds,
    Stage,
    Text,
    UploadBody,
    VisitorBody,
)
from watchnext.serving.events import LiveEvent
from watchnext.serving.exchange import Answer, Ask
from watchnext.serving.intake import events_of
from watchnext.serving.live import Filters
from watchnext.serving.lookup import history_of, searched, similar
from watchnext.serving.server import Server

router = APIRouter()
_ANSWER = TypeAdapter(Answer)
# Ids may hold slashes.
VideoId = Annotated[Text, InPath(description="a video of the bundle's log, or an upload")]
UserId = Annotated[Text, InPath(description="a user, as the log or the events name them")]


class HistoryBody(BaseModel):
    """What is known of a user, newest first."""

    user_id: str
    events: list[dict[str, Any]]


class VideosBody(BaseModel):
    """Videos, best first."""

    videos: list[PlaceBody]


@router.get("/healthz", tags=["health"])
async def healthz(server: Running) -> dict[str, str]:
    """Says that the server answers, and which bundle it serves."""
    return {"status": "ok", "bundle": server.deployments.now.variants[0].version}


@router.get("/readyz", tags=["health"])
async def readyz(server: Running) -> dict[str, str]:
    """Says whether requests can be answered: a bundle is there, and the store of events answers."""
    await server.in_thread(server.service.store.last_sequence)
    return {"status": "ready", "bundle": server.deployments.now.variants[0].version}


@router.get(
    "/v1/recommendations",
    tags=["recommendations"],
    response_model=AnswerBody,
    responses={404: {"description": "an unknown user"}},
)
async def recommend_user(
    server: Running,
    request: Request,
    user_id: Annotated[Text, Query(description="a user of the bundle's log, or of events that came since")],
    k: Annotated[int, Query(ge=1, le=1000)] = 20,
    as_of: Annotated[
        Seconds | None,
        Query(description="Unix seconds; by default now, by the bundle's clock. Before the log's end: by admins"),
    ] = None,
    stage: Stage = "ranking",
    exclude_seen: bool | None = None,
    surface: Annotated[Text | None, Query(description="where the list will be shown, as the log names it")] = None,
    explain: Annotated[bool, Query(description="say why each video is there; takes longer")] = False,
    categories: Annotated[list[Text], Query(description="only videos of these", max_length=100)] = [],  # noqa: B006
    channel_ids: Annotated[list[Text], Query(description="only videos of these", max_length=100)] = [],  # noqa: B006
    max_duration_seconds: Annotated[float | None, Query(gt=0, le=1e6, allow_inf_nan=False)] = None,
) -> Response:
    """Gives the k best videos for a user, best first."""
    filters = Filters(tuple(filter(None, categories)), tuple(filter(None, channel_ids)), max_duration_seconds)
    return await _answer(server, request, Ask(user_id, None, k, as_of, stage, exclude_seen, surface, filters, explain))


@router.post("/v1/recommendations", tags=["recommendations"], response_model=AnswerBody)
async def recommend_visitor(server: Running, request: Request, body: VisitorBody) -> Response:
    """Gives the k best videos for somebody whose history comes with the request."""
    return await _answer(server, request, body.ask())


@router.post("/v1/events", status_code=202, dependencies=WRITE, tags=["events"])
async def take_events(server: Running, body: EventsBody) -> AcceptedBody:
    """Takes what happened; it is on disk when the answer comes, and the next request knows it."""

    def accept() -> AcceptedBody:
        events = events_of(server.service, body.events)
        accepted = server.service.accept(events)
        outcome = "accepted" if accepted else "duplicate"  # of a mixed batch, which of them is not known
        for kind, count in Counter(event.kind for event in events).items():
            server.metrics.received(kind, outcome, count)
        server.recent.count("accepted", accepted)
        server.recent.count("duplicates", len(events) - accepted)
        return AcceptedBody(accepted=accepted, duplicates=len(events) - accepted)

    return await server.in_thread(accept)


@router.get("/v1/videos", tags=["videos"])
async def search_videos(
    server: Running,
    query: Annotated[str, Query(min_length=1, max_length=1000)],
    limit: Annotated[int, Query(ge=1, le=100)] = 24,
) -> VideosBody:
    """Gives videos with words of the query in their title; most words first, then most watched."""
    live = server.deployments.now.variants[0].recommender.live
    return await server.in_thread(lambda: VideosBody(videos=searched(live, query, limit)))


@router.get("/v1/videos/{video_id:path}/similar", tags=["videos"], responses={404: {"description": "an unknown video"}})
async def similar_videos(server: Running, video_id: VideoId, k: Annotated[int, Query(ge=1, le=100)] = 20) -> VideosBody:
    """Gives videos that are watched by the same people, then those whose vectors are nearest."""
    live = server.deployments.now.variants[0].recommender.live
    return await server.in_thread(lambda: VideosBody(videos=similar(live, video_id, k)))


@router.post("/v1/videos", status_code=201, dependencies=WRITE, tags=["videos"])
async def upload(server: Running, body: UploadBody) -> dict[str, bool]:
    """Takes a new video in: it is served from the next request on, and is no part of training until it is in a log."""
    columns = {name: value for name, value in (body.model_extra or {}).items() if value is not None}
    video_id = str(body.video_id)

    def take() -> None:
        server.deployments.follow()
        now = server.service.answerer.now()
        said = columns if "uploaded_at" in columns else columns | {"uploaded_at": now}
        for variant in server.deployments.now.variants:
            variant.recommender.live.refuse_upload(video_id, said)
        _accept(server, LiveEvent(f"upload:{video_id}", "upload", now, video_id=video_id, upload=said))

    await server.in_thread(take)
    return {"uploaded": True}


@router.post("/v1/videos/{video_id:path}/block", dependencies=WRITE, tags=["videos"])
async def block(server: Running, video_id: VideoId, body: BlockBody | None = None) -> dict[str, bool]:
    """Lets nobody see the video, or one user."""
    await _blocked(server, video_id, body, "block")
    return {"blocked": True}


@router.delete("/v1/videos/{video_id:path}/block", dependencies=WRITE, tags=["videos"])
async def unblock(server: Running, video_id: VideoId, body: BlockBody | None = None) -> dict[str, bool]:
    """Lets the video be seen again."""
    await _blocked(server, video_id, body, "unblock")
    return {"blocked": False}


@router.get("/v1/users/{user_id:path}/history", dependencies=WRITE, tags=["users"])
async def history(server: Running, user_id: UserId, limit: Annotated[int, Query(ge=1, le=1000)] = 50) -> HistoryBody:
    """Gives what is known of a user, from the bundle's log and since, newest first."""
    events = await server.in_thread(partial(history_of, server.service, user_id, limit))
    return HistoryBody(user_id=user_id, events=events)


@router.delete("/v1/users/{user_id:path}", dependencies=WRITE, tags=["users"])
async def forget(server: Running, user_id: UserId) -> dict[str, int]:
    """Forgets a person: events and answers are deleted, the log's history is no longer used, exports leave them out."""
    return {"forgotten_events": await server.in_thread(partial(server.service.forget, user_id))}


async def _answer(server: Server, request: Request, ask: Ask) -> Response:
    log_end = max(one.recommender.bundle.dataset.log_end for one in server.deployments.now.variants)
    if ask.as_of is not None and ask.as_of < log_end:  # the log is replayed, and no budget ends that
        refuse_without_token(request, admin=True)
    answer = await server.answer(partial(server.service.answer, ask, time.perf_counter()))
    return Response(_ANSWER.dump_json(answer), media_type="application/json")  # once: FastAPI would check it


async def _blocked(server: Server, video_id: str, body: BlockBody | None, kind: Any) -> None:
    user = None if body is None or body.user_id is None else str(body.user_id)

    def take() -> None:
        server.deployments.follow()
        if not server.deployments.now.variants[0].recommender.live.rows_of([video_id])[0]:
            raise RequestError("a video that is not in the catalogue came: block what can be recommended.")
        now = server.service.answerer.now()
        _accept(server, LiveEvent(f"{kind}:{uuid.uuid4().hex}", kind, now, user, video_id))

    await server.in_thread(take)


def _accept(server: Server, event: LiveEvent) -> None:
    server.service.accept([event])
    server.recent.count("accepted")
