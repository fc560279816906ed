"""Serving and what an operator does while it runs."""

import gc
import json
import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from watchnext.errors import RequestError
from watchnext.loading import load
from watchnext.progress import say
from watchnext.serving import copies

STATE = Path("runs/serving")
StateFolder = Annotated[
    Path, typer.Option("--state", help="the server's own folder: events, answers, token, what was promoted")
]
StoreUrl = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="where events are kept: a file (SQLite) or redis://…, shared by several servers; by default in --state",
    ),
]
TrustDurability = Annotated[
    bool,
    typer.Option(
        "--trust-durability", help="take a Redis store's word for it that it keeps what it accepts, as managed ones do"
    ),
]
ServerUrl = Annotated[str, typer.Option("--url", help="where the server listens")]
_URL = "http://127.0.0.1:8000"
_PROMOTION_SECONDS = 600.0
_KEEP_ALIVE_SECONDS = 75  # longer than clients keep a connection: none is closed just as a request is sent on it


def serve(
    bundle: Annotated[
        Path | None, typer.Option(help="the folder that 'watchnext bundle' made; by default what was last promoted")
    ] = None,
    host: Annotated[str, typer.Option(help="address to listen on; only this machine by default")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port to listen on", min=0, max=65535)] = 8000,
    state: StateFolder = STATE,
    store: StoreUrl = None,
    trust_durability: TrustDurability = False,
    threads: Annotated[
        int, typer.Option(help="requests answered at the same time, if by one process", min=1, max=256)
    ] = 4,
    processes: Annotated[
        int,
        typer.Option(
            help="processes that answer, each one request at a time, say one for each core; 1: threads of this one",
            min=1,
            max=256,
        ),
    ] = 1,
    rate: Annotated[str, typer.Option(help="requests that one address may send")] = "1000/second",
    report: Annotated[
        Path | None, typer.Option(help="the page of an evaluation; by default the one beside the bundle")
    ] = None,
    keep_answers_days: Annotated[
        float | None, typer.Option(help="remove logged answers that are older; all are kept by default")
    ] = None,
) -> None:
    """Answer over HTTP: a page for people at /, an API for applications (/docs), figures at /metrics.

    Routes that write or administrate need a token: WATCHNEXT_ADMIN_TOKEN, or the one in STATE/token. The address that
    is printed has it, for the page.
    """
    if processes > 1:
        copies.begin()  # it loads while this process does
    load("watchnext.serving.http")
    import uvicorn

    from watchnext.memory import keep_freed_memory
    from watchnext.serving.http import create_app
    from watchnext.serving.server import Server, ServerSettings

    keep_freed_memory()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Made here, so that what is wrong is one message and no server's traceback.
    server = Server(
        ServerSettings(
            state,
            bundle,
            store,
            trust_durability,
            threads,
            processes,
            rate=rate,
            report=report,
            keep_answers_days=keep_answers_days,
        )
    )
    try:
        say(f"the page: http://{host}:{port}/#token={server.tokens.admin}\nthe API:  http://{host}:{port}/docs")
        app = create_app(server=server)
        gc.collect()
        gc.freeze()  # a full round of the collector would stop all requests to look through what is here to stay
        uvicorn.run(app, host=host, port=port, log_level="warning", timeout_keep_alive=_KEEP_ALIVE_SECONDS)
    finally:
        server.close()  # where the application never began


def promote(
    bundle: Annotated[Path, typer.Argument(help="the folder that 'watchnext bundle' made, on the server's disk")],
    share: Annotated[
        float, typer.Option(help="share of the users it answers, the same ones always; below 1 an A/B test")
    ] = 1.0,
    variant: Annotated[str, typer.Option(help="its name in answers and logs")] = "main",
    url: ServerUrl = _URL,
    state: StateFolder = STATE,
) -> None:
    """Let a running server serve another bundle: it is loaded and checked first; no request fails meanwhile."""
    body = {"path": str(bundle.absolute()), "share": share, "variant": variant}
    told = _asked(url, state, "/admin/bundle", body)
    say(f"bundle {told['bundle']} serves as '{told['variant']}'; 'watchnext rollback' goes back to {told['previous']}")


def rollback(url: ServerUrl = _URL, state: StateFolder = STATE) -> None:
    """Let a running server go back to the bundle that it served before."""
    told = _asked(url, state, "/admin/rollback", None)
    say(f"bundle {told['bundle']} serves as '{told['variant']}' again")


def export(
    to: Annotated[Path, typer.Option(help="the folder that receives tables and a log.toml")],
    state: StateFolder = STATE,
    store: StoreUrl = None,
    trust_durability: TrustDurability = False,
) -> None:
    """Write what a server answered and what came of it as a log that 'prepare' reads; forgotten users are left out."""
    from watchnext.serving.export import export as write_export
    from watchnext.serving.stores.opening import open_store

    events = open_store(store or str(state / "events.sqlite"), trust_durability=trust_durability)
    try:
        exported = write_export(events, state / "answers", to)
    finally:
        events.close()
    say(f"{to}: " + ", ".join(f"{count:,} {name.removeprefix('num_')}" for name, count in vars(exported).items()))


def _asked(url: str, state: Path, route: str, body: dict[str, Any] | None) -> dict[str, Any]:
    """What the server answers to an admin's request.

    Raises:
        RequestError: it refuses, or cannot be reached.
    """
    import httpx

    from watchnext.serving.guard import Tokens

    headers = {"authorization": f"Bearer {Tokens.known(state / 'token').admin}"}
    try:
        answer = httpx.post(f"{url}{route}", json=body, headers=headers, timeout=_PROMOTION_SECONDS)
    except httpx.HTTPError as error:
        raise RequestError(
            f"no answer from {url} ({type(error).__name__}): is 'watchnext serve' running there?"
        ) from None
    try:
        told = dict(answer.json())
    except (ValueError, TypeError):
        told = {}
    if answer.status_code == 200 and "bundle" in told:
        return told
    if "detail" in told:
        raise RequestError(f"the server refused with {answer.status_code}: {json.dumps(told['detail'])}")
    raise RequestError(f"what listens at {url} is no 'watchnext serve': say --url.")
