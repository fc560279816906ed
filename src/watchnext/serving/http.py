"""The HTTP application: what an application calls, what an operator calls, and the page."""

import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles
from starlette.types import Scope

from watchnext.errors import ArtifactError, RequestError, StoreError, UnknownUserError, WatchnextError
from watchnext.serving import admin, routes
from watchnext.serving.exchange import OverloadError
from watchnext.serving.guard import FAULT, Guard
from watchnext.serving.lookup import UnknownVideoError
from watchnext.serving.server import Server, ServerSettings

PAGE = Path(__file__).parent / "page"
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_STATUS = {
    UnknownUserError: 404,
    UnknownVideoError: 404,
    RequestError: 422,
    ArtifactError: 409,
    StoreError: 503,
    OverloadError: 503,
}


def create_app(
    bundle: Path | None = None, settings: ServerSettings | None = None, server: Server | None = None
) -> FastAPI:
    """Gives the application that serves the bundle; it loads when the application starts, and ends with it.

    Without settings it keeps its files in a folder that is gone when it ends: for tests and notebooks. A server that
    is there already is taken as it is, and ends with the application too.
    """
    limits = server.settings if server is not None else settings or ServerSettings(Path())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            chosen = settings or ServerSettings(Path(folder))
            app.state.server = server or Server(replace(chosen, bundle=bundle or chosen.bundle))
            try:
                yield
            finally:
                app.state.server.close()

    app = FastAPI(
        title="watchnext",
        version="1",
        lifespan=lifespan,
        redoc_url=None,
        summary="Who should watch what next.",
        responses={
            400: {"description": "a body that cannot be read"},
            401: {"description": "what needs a token, without it"},
            404: {"description": "a user, a video or a page that is not there"},
            409: {"description": "a bundle that cannot serve, or a damaged file of the server's own"},
            413: {"description": "a body that is too long"},
            422: {"description": "a request that cannot be answered; 'detail' says why"},
            429: {"description": "more requests than this address may send"},
            500: {"description": "a fault of the server"},
            503: {"description": "too much is asked, or the store of events does not answer"},
        },
    )
    app.include_router(routes.router)
    app.include_router(admin.router)
    app.mount("/", StaticFiles(directory=PAGE, html=True), name="page")
    app.add_exception_handler(WatchnextError, _refused)
    app.add_exception_handler(RequestValidationError, _malformed)

    def told(scope: Scope, status: int, seconds: float) -> None:
        running: Server = app.state.server
        method = scope["method"] if scope["method"] in _METHODS else "other"
        running.metrics.requested(getattr(scope.get("route"), "path_format", "page"), method, status)
        if status >= 500 and status != 503:
            running.recent.count("failed")

    app.add_middleware(Guard, most_bytes=limits.most_body_bytes, rate=limits.rate, told=told)
    return app


async def _refused(request: Request, error: Exception) -> Response:
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)
    headers = {"retry-after": "1"} if status == 503 else None
    return _told(FAULT if status == 500 else str(error), status, headers)


async def _malformed(request: Request, error: Exception) -> Response:
    """Names the field and what is wrong, without the value: it may say who asks, and NaN cannot be rendered."""
    assert isinstance(error, RequestValidationError)
    detail: list[dict[str, Any]] = [{key: one[key] for key in ("loc", "msg", "type")} for one in error.errors()]
    return _told(detail, 422)


def _told(detail: Any, status: int, headers: dict[str, str] | None = None) -> Response:
    """As ASCII: names of fields may hold half a character."""
    return Response(json.dumps({"detail": detail}), status, headers, media_type="application/json")
