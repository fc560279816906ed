"""What an operator types, against a server that runs."""

import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest
import uvicorn

from watchnext.serving.http import create_app
from watchnext.serving.server import ServerSettings

pytestmark = pytest.mark.usefixtures("unchecked_types")

TOKEN = "a-token-of-the-tests"
SERVE = [sys.executable, "-c", "from watchnext.cli import main; main()", "serve"]


@pytest.fixture(autouse=True)
def without_environment(monkeypatch):
    monkeypatch.delenv("WATCHNEXT_ADMIN_TOKEN", raising=False)
    monkeypatch.delenv("WATCHNEXT_WRITE_TOKEN", raising=False)


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    state = tmp_path_factory.mktemp("state")
    (state / "token").write_text(TOKEN)
    return state


@pytest.fixture(scope="module")
def address(small_run, state):
    settings = ServerSettings(state, small_run.bundle)
    server = uvicorn.Server(uvicorn.Config(create_app(settings=settings), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def version(address):
    return httpx.get(f"{address}/healthz").json()["bundle"]


def test_promote_and_rollback(watchnext, address, state, foreign_run, capsys):
    first = version(address)
    where = ("--url", address, "--state", state)
    assert watchnext("promote", foreign_run.bundle, *where) == 0
    second = version(address)
    told = capsys.readouterr().err
    assert first != second and f"bundle {second} serves as 'main'" in told and f"goes back to {first}" in told
    assert watchnext("rollback", *where) == 0
    assert version(address) == first and f"bundle {first} serves as 'main' again" in capsys.readouterr().err


def test_promote_a_share_under_a_name(watchnext, address, state, foreign_run, capsys):
    where = ("--url", address, "--state", state)
    assert watchnext("promote", foreign_run.bundle, "--share", 0.5, "--variant", "new", *where) == 0
    assert "serves as 'new'" in capsys.readouterr().err
    asked = [httpx.get(f"{address}/v1/recommendations", params={"user_id": user}).json() for user in range(20)]
    assert {answer["variant"] for answer in asked} == {"main", "new"}
    assert watchnext("rollback", *where) == 0


def test_a_relative_path_is_that_of_who_types_it(watchnext, address, state, small_run, monkeypatch):
    monkeypatch.chdir(small_run.bundle.parent)
    assert watchnext("promote", "bundle", "--url", address, "--state", state) == 0


def test_what_the_server_refuses_is_one_message(watchnext, address, state, tmp_path):
    message = watchnext("promote", tmp_path, "--url", address, "--state", state)
    assert message.startswith("watchnext: the server refused with 409") and "holds no bundle" in message


def test_another_token_is_refused(watchnext, address, tmp_path):
    (tmp_path / "token").write_text("another-token-of-the-tests")
    message = watchnext("rollback", "--url", address, "--state", tmp_path)
    assert message.startswith("watchnext: the server refused with 401") and "needs the admin token" in message


def test_without_a_token_nothing_is_asked_nor_made(watchnext, address, tmp_path):
    message = watchnext("rollback", "--url", address, "--state", tmp_path / "nowhere")
    assert "there is no token in" in message and "--state" in message and "WATCHNEXT_ADMIN_TOKEN" in message
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nonsense", "http://["])
def test_no_server_is_one_message(watchnext, state, url):
    message = watchnext("rollback", "--url", url, "--state", state)
    assert message.startswith(f"watchnext: no answer from {url}") and "is 'watchnext serve' running there?" in message


def test_something_else_that_listens_is_one_message(watchnext, state):
    async def other(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
        await send({"type": "http.response.body", "body": b"<p>hello"})

    server = uvicorn.Server(uvicorn.Config(other, port=0, lifespan="off", log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        message = watchnext("rollback", "--url", url, "--state", state)
    finally:
        server.should_exit = True
        thread.join()
    assert message == f"watchnext: what listens at {url} is no 'watchnext serve': say --url."


def test_export_writes_a_log_that_check_accepts(watchnext, address, state, tmp_path, capsys):
    headers = {"authorization": f"Bearer {TOKEN}"}
    page = httpx.get(f"{address}/v1/recommendations", params={"user_id": 3, "k": 5}).json()
    event = {"event_id": "w", "kind": "watch", "user_id": 3, "video_id": page["recommendations"][0]["video_id"]}
    sent = {"events": [event | {"watch_seconds": 30, "page_id": page["request_id"]}]}
    assert httpx.post(f"{address}/v1/events", json=sent, headers=headers).status_code == 202
    assert watchnext("export", "--to", tmp_path / "log", "--state", state) == 0
    assert "impressions" in capsys.readouterr().err
    assert watchnext("check", tmp_path / "log" / "log.toml", "--rejects", tmp_path / "rejects.parquet") == 0


def first_words(server, count):
    return [server.stderr.readline() for _ in range(count)]


def test_serve_prints_the_address_of_the_page_and_remembers_the_bundle(small_run, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    state = tmp_path / "state"
    command = [*SERVE, "--state", str(state), "--port", str(port)]
    for options in (["--bundle", str(small_run.bundle)], []):
        with subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True) as server:
            try:
                page, api = first_words(server, 2)
                token = (state / "token").read_text().strip()
                assert page.strip() == f"the page: http://127.0.0.1:{port}/#token={token}"
                assert api.strip() == f"the API:  http://127.0.0.1:{port}/docs"
                answer = first_answer(server, f"http://127.0.0.1:{port}/v1/recommendations?user_id=3")
                assert answer.status_code == 200
            finally:
                server.send_signal(signal.SIGTERM)
        assert list((state / "answers").glob("answers-*.parquet")), "what was answered is written at the end"
        shutil.rmtree(state / "answers")


def first_answer(server, address):
    """Asks until the server listens, for half a minute at most."""
    for _ in range(300):
        try:
            return httpx.get(address, timeout=30)
        except httpx.ConnectError:
            time.sleep(0.1)
        if server.poll() is not None:
            pytest.fail(f"the server ended: {server.stderr.read()}")
    pytest.fail("the server does not listen")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "remembers none: say --bundle"),
        (["--rate", "often"], "rate limit 'often'"),
        (["--bundle", "nowhere"], "nowhere holds no bundle"),
        (["--store", "redis://127.0.0.1:1"], "the Redis server at 127.0.0.1 cannot be read"),
    ],
)
def test_what_cannot_be_served_is_one_message(watchnext, tmp_path, monkeypatch, options, told):
    monkeypatch.setattr(uvicorn, "run", lambda *_, **__: pytest.fail("it was served"))
    message = watchnext("serve", "--state", tmp_path / "state", *options)
    assert message.startswith("watchnext: ") and told in message
