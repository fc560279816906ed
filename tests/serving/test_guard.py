"""Who may, how much, how often; what is said when something breaks."""

import json
import logging

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient

from watchnext.errors import ConfigurationError
from watchnext.serving.guard import Guard, Tokens, rate_of
from watchnext.serving.http import create_app
from watchnext.serving.server import ServerSettings

pytestmark = pytest.mark.usefixtures("unchecked_types")

ADMIN, WRITE = "an-admins-token-of-the-tests", "a-writers-token-of-the-tests"
SECRET = "somebody@example.org"
OPEN = {
    ("get", "/healthz"),
    ("get", "/readyz"),
    ("get", "/metrics"),
    ("get", "/v1/recommendations"),
    ("post", "/v1/recommendations"),
    ("get", "/v1/videos"),
    ("get", "/v1/videos/{video_id}/similar"),
}


@pytest.fixture(autouse=True)
def without_environment(monkeypatch):
    monkeypatch.delenv("WATCHNEXT_ADMIN_TOKEN", raising=False)
    monkeypatch.delenv("WATCHNEXT_WRITE_TOKEN", raising=False)


# Tokens


def test_a_token_is_made_for_its_owner_alone(tmp_path):
    file = tmp_path / "state" / "token"
    tokens = Tokens.found(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert tokens.admin == tokens.write == file.read_text().strip() and len(tokens.admin) >= 32
    assert Tokens.found(file) == Tokens.known(file) == tokens
    assert Tokens.found(tmp_path / "another" / "token") != tokens


def test_a_second_line_is_the_writers_token(tmp_path):
    (tmp_path / "token").write_text(f"{ADMIN}\n{WRITE}\n")
    assert Tokens.found(tmp_path / "token") == Tokens(WRITE, ADMIN)


def test_the_environment_comes_first(tmp_path, monkeypatch):
    (tmp_path / "token").write_text("0" * 16)
    monkeypatch.setenv("WATCHNEXT_WRITE_TOKEN", WRITE)
    assert Tokens.found(tmp_path / "token") == Tokens(WRITE, "0" * 16)
    monkeypatch.setenv("WATCHNEXT_ADMIN_TOKEN", ADMIN)
    assert Tokens.found(tmp_path / "token") == Tokens(WRITE, ADMIN)
    monkeypatch.delenv("WATCHNEXT_WRITE_TOKEN")
    assert Tokens.found(tmp_path / "nowhere") == Tokens(ADMIN, ADMIN)
    assert not (tmp_path / "nowhere").exists()


def test_a_file_that_is_not_there_is_told_to_who_cannot_make_one(tmp_path):
    with pytest.raises(ConfigurationError, match=r"no token in .*--state"):
        Tokens.known(tmp_path / "token")
    assert not (tmp_path / "token").exists()


@pytest.mark.parametrize("text", ["", "0" * 15, f"{ADMIN}\n{'0' * 15}"])
def test_a_short_token_is_refused_and_not_told(tmp_path, text):
    (tmp_path / "token").write_text(text)
    with pytest.raises(ConfigurationError, match="at least 16 were expected, say by: openssl") as refused:
        Tokens.found(tmp_path / "token")
    assert "0" * 15 not in str(refused.value)


@pytest.mark.parametrize(
    ("header", "writes", "administrates"),
    [
        (None, False, False),
        ("", False, False),
        ("Bearer", False, False),
        ("Bearer ", False, False),
        (f"Bearer {ADMIN}", True, True),
        (f"bearer  {ADMIN} ", True, True),
        (f"Bearer {WRITE}", True, False),
        (f"Basic {ADMIN}", False, False),
        (ADMIN, False, False),
        (f"Bearer {ADMIN[:-1]}", False, False),
        (f"Bearer {ADMIN}é", False, False),
    ],
)
def test_only_the_whole_token_of_the_right_kind_opens(header, writes, administrates):
    tokens = Tokens(WRITE, ADMIN)
    assert (tokens.allow(header, admin=False), tokens.allow(header, admin=True)) == (writes, administrates)


# Who may, route by route


@pytest.fixture(scope="module")
def client(small_run, tmp_path_factory):
    state = tmp_path_factory.mktemp("state")
    (state / "token").write_text(f"{ADMIN}\n{WRITE}\n")
    settings = ServerSettings(state, small_run.bundle)
    with TestClient(create_app(settings=settings), raise_server_exceptions=False) as client:
        yield client


def routes(client):
    """Every route of the OpenAPI description: method, path, description."""
    paths = client.get("/openapi.json").json()["paths"]
    return [(method, path, told) for path, methods in paths.items() for method, told in methods.items()]


def called(client, method, path, token):
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    return client.request(method, path.format(video_id="5", user_id="somebody"), headers=headers)


def test_only_known_routes_are_open(client):
    assert {(method, path) for method, path, told in routes(client) if "security" not in told} == OPEN


def test_every_protected_route_wants_its_token(client):
    protected = [(method, path, told) for method, path, told in routes(client) if "security" in told]
    assert len(protected) >= 11
    for method, path, told in protected:
        for token in (None, "another-token-than-that-of-the-tests", *([WRITE] if "admin" in told["tags"] else [])):
            answer = called(client, method, path, token)
            assert answer.status_code == 401, (method, path, token)
            assert answer.headers["www-authenticate"] == "Bearer" and "Authorization: Bearer" in answer.text
            assert "401" in told["responses"]


@pytest.mark.parametrize("send", [{"method": "GET", "params": {"user_id": 3}}, {"method": "POST"}])
def test_a_list_of_a_past_moment_wants_the_admins_token(client, send):
    """It replays the log, which takes as long as the log is long."""
    asked = {"as_of": 1_701_000_000}
    send = send | ({"params": send["params"] | asked} if "params" in send else {"json": asked})
    for token in (None, WRITE):
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        answer = client.request(url="/v1/recommendations", headers=headers, **send)
        assert answer.status_code == 401 and "needs the admin token" in answer.text
        later = json.loads(json.dumps(send).replace("1701000000", "1800000000"))
        assert client.request(url="/v1/recommendations", headers=headers, **later).status_code == 200
    headers = {"authorization": f"Bearer {ADMIN}"}
    assert client.request(url="/v1/recommendations", headers=headers, **send).json()["as_of"] == asked["as_of"]


def test_the_right_token_opens_every_protected_route(client):
    for method, path, told in routes(client):
        if "security" in told:
            for token in (ADMIN, *([] if "admin" in told["tags"] else [WRITE])):
                assert called(client, method, path, token).status_code != 401, (method, path)


# How much, how often, what else


@pytest.fixture
def told():
    return []


@pytest.fixture
def guarded(told):
    """Gives `guarded(most_bytes=…, rate=…)`: a client of a small application behind a guard."""

    def make(most_bytes=100, rate="1000/second"):
        app = FastAPI()

        @app.post("/length")
        async def length(body: dict[str, str]) -> int:
            return len(body)

        @app.get("/broken")
        async def broken() -> None:
            raise ValueError(SECRET)

        @app.get("/late")
        async def late(request: Request) -> StreamingResponse:
            def parts():
                yield b"part"
                raise ValueError(SECRET)

            return StreamingResponse(parts())

        def tell(scope, status, seconds):
            told.append((scope["path"], status, seconds))

        app.add_middleware(Guard, most_bytes=most_bytes, rate=rate, told=tell)
        return TestClient(app, raise_server_exceptions=False, headers={"content-type": "application/json"})

    return make


def test_a_body_that_is_declared_too_long_is_refused_unread(guarded):
    client = guarded()
    assert client.post("/length", content=b'{"a": "b"}').status_code == 200
    answer = client.post("/length", content=b" " * 101)
    assert answer.status_code == 413 and "more than 100 bytes" in answer.json()["detail"]


@pytest.mark.parametrize("length", ["1" * 5000, "-1", "many", "1e3"])
def test_an_impossible_length_is_refused(guarded, length):
    assert guarded().post("/length", content=b"{}", headers={"content-length": length}).status_code == 413


def test_a_streamed_body_is_counted(guarded):
    client = guarded()
    assert client.post("/length", content=iter([b'{"a":', b'"b"}'])).json() == 1
    answer = client.post("/length", content=iter([b" " * 60, b" " * 60]))
    assert answer.status_code == 413 and "more than 100 bytes" in answer.json()["detail"]


def test_too_many_requests_wait_a_little(guarded, told):
    client = guarded(rate="3/hour")
    answers = [client.post("/length", content=b"{}") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[-1].headers["retry-after"] == "1" and "3/hour" in answers[-1].json()["detail"]
    assert [status for _, status, _ in told] == [200, 200, 200, 429]


def test_a_rate_that_is_none_is_refused(tmp_path):
    for make in (rate_of, lambda rate: ServerSettings(tmp_path, rate=rate)):
        with pytest.raises(ConfigurationError, match="rate limit 'often': something like '100/second'"):
            make("often")


def test_a_fault_says_nothing_of_its_cause(guarded, told, caplog):
    with caplog.at_level(logging.INFO):
        answer = guarded().get("/broken")
    assert answer.status_code == 500 and SECRET not in answer.text and "ValueError" not in answer.text
    assert answer.json()["detail"].startswith("this is a fault of the server")
    assert "a request failed: ValueError" in caplog.text and SECRET not in caplog.text
    assert told[0][:2] == ("/broken", 500) and told[0][2] >= 0.0


def test_an_answer_that_has_begun_is_not_begun_again(guarded, told):
    assert guarded().get("/late").text == "part"
    assert told[0][:2] == ("/late", 200)


def test_every_answer_has_the_headers_of_safety(client):
    for path in ("/", "/healthz", "/nowhere", "/admin/status"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
    for path in ("/docs", "/admin/report"):  # whose pages have scripts and styles of others
        headers = client.get(path).headers
        assert "content-security-policy" not in headers and headers["x-content-type-options"] == "nosniff"


def test_labels_of_figures_are_templates(client):
    client.get("/v1/users/somebody@example.org/history", headers={"authorization": f"Bearer {ADMIN}"})
    client.get("/v1/videos/somebody@example.org/similar")
    client.get("/somebody@example.org")
    client.request("SOMEBODY", "/healthz")
    figures = client.get("/metrics").text
    assert "somebody" not in figures.lower()
    assert 'route="/v1/users/{user_id}/history"' in figures and 'route="page"' in figures
    assert 'method="other"' in figures


def test_a_body_of_the_service_has_a_limit(client):
    answer = client.post("/v1/recommendations", content=b" " * (2**20 + 1))
    assert answer.status_code == 413 and "1,048,576" in answer.text
