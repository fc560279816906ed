"""The HTTP application: what an application calls, what an operator calls, and the page."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.types import Scope

from watchnext.errors import ArtifactError, RequestError, StoreError, UnknownUserError, WatchnextError
from watchnext.serving import admin, routes
from watchnext.serving.guard import Guard
from watchnext.serving.lookup import UnknownVideoError
from watchnext.serving.server import OverloadError, Server, ServerSettings

PAGE = Path(__file__).parent / "page"
_STATUS = {
    UnknownUserError: 404,
    UnknownVideoError: 404,
    RequestError: 422,
    ArtifactError: 409,
    StoreError: 503,
    OverloadError: 503,
}


def create_app(bundle: Path | None = None, settings: ServerSettings | None = None) -> FastAPI:
    """Gives the application that serves the bundle; it loads when the server starts.

    Without settings it keeps its files in a folder that is gone when it ends: for tests and notebooks.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            chosen = settings or ServerSettings(Path(folder))
            server = Server(replace(chosen, bundle=bundle or chosen.bundle))
            app.state.server = server
            try:
                yield
            finally:
                server.close()

    app = FastAPI(
        title="watchnext",
        version="1",
        lifespan=lifespan,
        summary="Who should watch what next.",
        responses={
            401: {"description": "a write or admin route without its token"},
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
        route = scope.get("route")
        server: Server | None = getattr(app.state, "server", None)
        if server is not None:
            server.metrics.requested(getattr(route, "path", "page"), scope["method"], status)
            if status >= 500 and status != 503:
                server.recent.count("failed")

    limits = settings or ServerSettings(Path())
    app.add_middleware(Guard, most_bytes=limits.most_body_bytes, rate=limits.rate, told=told)
    return app


async def _refused(request: Request, error: Exception) -> JSONResponse:
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)
    headers = {"retry-after": "1"} if status == 503 else None
    return JSONResponse({"detail": str(error)}, status, headers)


async def _malformed(request: Request, error: Exception) -> JSONResponse:
    """Names the field and what is wrong, without the value: it may say who asks, and NaN cannot be rendered."""
    assert isinstance(error, RequestValidationError)
    detail: list[dict[str, Any]] = [{key: one[key] for key in ("loc", "msg", "type")} for one in error.errors()]
    return JSONResponse({"detail": detail}, 422)
