"""What an operator calls."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, Response

from watchnext.serving.access import ADMIN, Running
from watchnext.serving.bodies import BundleBody
from watchnext.serving.metrics import CONTENT_TYPE
from watchnext.serving.server import Server

router = APIRouter(tags=["admin"])


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(server: Running) -> Response:
    """Gives the figures in Prometheus' text form; nothing in them names a user or a video."""
    return Response(server.metrics.render(), media_type=CONTENT_TYPE)


@router.get("/admin/status", dependencies=ADMIN)
async def status(server: Running) -> dict[str, Any]:
    """Gives what serves, how fast, and what it is made of."""
    return await server.in_thread(server.status)


@router.post("/admin/bundle", dependencies=ADMIN)
async def promote(server: Running, body: BundleBody) -> dict[str, Any]:
    """Loads and checks a bundle beside the one that serves, then switches; in-flight requests finish on theirs."""
    # The threads of requests go on answering meanwhile.
    await run_in_threadpool(server.deployments.promote, Path(body.path), body.share, body.variant)
    return _told(server)


@router.post("/admin/rollback", dependencies=ADMIN)
async def rollback(server: Running) -> dict[str, Any]:
    """Goes back to what was served before."""
    await server.in_thread(server.deployments.rollback)
    return _told(server)


@router.get(
    "/admin/report",
    dependencies=ADMIN,
    response_class=HTMLResponse,
    responses={404: {"description": "no evaluation lies beside the bundle"}},
)
async def report(server: Running) -> Response:
    """Gives the page of the last evaluation."""
    path = server.report
    if path is None:
        return HTMLResponse("no report: run 'watchnext evaluate', or name one by --report", 404)
    return HTMLResponse(path.read_text())


@router.get("/v1/users", dependencies=ADMIN)
async def some_users(server: Running, limit: Annotated[int, Query(ge=1, le=100)] = 20) -> dict[str, list[str]]:
    """Gives a few users of the bundle's log to try."""
    users = server.deployments.now.variants[0].recommender.bundle.dataset.vocabularies["users"]
    rows = np.unique(np.linspace(1, len(users) - 1, limit).astype(np.int64))
    return {"users": [str(one) for one in users.ids_of(rows)]}


def _told(server: Server) -> dict[str, Any]:
    server.show_what_serves()
    latest, previous = server.deployments.now.variants[-1], server.deployments.previous
    before = None if previous is None else previous.variants[-1].version
    return {"bundle": latest.version, "variant": latest.name, "previous": before}
