"""Whatever is sent, the answer is one that the OpenAPI description knows, and none says that the server broke."""

import json

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import one_of
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from watchnext.serving.http import create_app
from watchnext.serving.server import ServerSettings

pytestmark = pytest.mark.usefixtures("unchecked_types")

TOKEN = "a-token-of-the-tests"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
JSON = {"content-type": "application/json"}
EXAMPLES = 40
JUDGED_BELOW = [positive_data_acceptance, negative_data_rejection]


@pytest.fixture(scope="module")
def client(small_run, tmp_path_factory):
    state = tmp_path_factory.mktemp("state")
    (state / "token").write_text(TOKEN)
    app = create_app(settings=ServerSettings(state, small_run.bundle, rate="100000/second"))
    with TestClient(app, raise_server_exceptions=False, headers=HEADERS) as client:
        yield client


def everlasting(app):
    """The application without its end: Schemathesis begins and ends it at every route."""

    async def called(scope, receive, send):
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})

    return called


def test_every_answer_is_one_that_is_described(client):
    """Schemathesis: whatever the description allows, and much that it does not, at every route.

    What is allowed may still be refused, a k beyond the catalogue say, and what nobody asked for is not looked at.
    """
    operations = [
        found.ok()
        for found in schemathesis.openapi.from_asgi("/openapi.json", everlasting(client.app)).get_all_operations()
    ]
    assert len(operations) >= 18
    for operation in operations:

        @given(one_of([operation.as_strategy(generation_mode=mode) for mode in GenerationMode]))
        @settings(
            max_examples=EXAMPLES,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def check(case):
            case.call_and_validate(headers=HEADERS, excluded_checks=JUDGED_BELOW, timeout=120)

        check()


def briefly(value):
    return ascii(value)[:20]


BODIES = {
    "no JSON": b"{",
    "empty": b"",
    "null": b"null",
    "a number": b"7",
    "a text": b'"history"',
    "a list": b"[]",
    "nested lists": b"[" * 100_000,
    "nested objects": b'{"a":' * 100_000,
    "nested and closed": b'{"history":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "not UTF-8": b'{"surface": "\xff\xfe"}',
    "a null byte": b'{"k": 3\x00}',
    "a name of half a character": b'{"\\ud800": 1}',
    "a very long integer": b'{"k": ' + b"9" * 5_000 + b"}",
    "a long integer": b'{"k": ' + b"9" * 4_000 + b"}",
    "a number past all": b'{"k": 1e999}',
    "NaN": b'{"k": NaN}',
    "Infinity": b'{"events": [{"watch_seconds": Infinity}]}',
    "the same name twice": b'{"k": 3, "k": "x"}',
    "many names": json.dumps({str(number): number for number in range(50_000)}).encode(),
}
POSTS = ["/v1/recommendations", "/v1/events", "/v1/videos", "/v1/videos/5/block", "/admin/bundle"]


def refused(client, method, path, **sent):
    """Sends it and gives the answer, which is a refusal that says something, and is JSON."""
    answer = client.request(method, path, **sent)
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["detail"]
    return answer


@pytest.mark.parametrize("route", POSTS)
@pytest.mark.parametrize("body", BODIES)
def test_an_odd_body_is_refused(client, route, body):
    if "block" in route and body in ("null", "empty"):
        pytest.skip("a block of everybody has no body")
    refused(client, "POST", route, content=BODIES[body], headers=JSON)


@pytest.mark.parametrize("route", [route for route in POSTS if "block" not in route])
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "a/b;c"])
def test_a_body_of_another_kind_is_refused(client, route, kind):
    refused(client, "POST", route, content=b'{"k": 3}', headers={"content-type": kind})


EVENT = {"event_id": "e", "kind": "watch", "user_id": "u", "video_id": "5"}
TEXTS = ["\x00", "a\x00b", "\ud800", "", "x" * 201]
ODD_VALUES = ["\ud800", "\x00", "x" * 1001, {"a": 1}, [[]], [1.5], float("nan"), 10**400]
COLUMNS = ["title", "channel_id", "category", "tags", "duration_seconds", "uploaded_at", "shoe"]
ID_ROUTES = ["/v1/videos/{}/similar", "/v1/users/{}/history", "/v1/videos/{}/block", "/v1/users/{}"]
FILES = ["../../pyproject.toml", "..%2f..%2fguard.py", "%2e%2e/guard.py", "//etc/passwd", "\\guard.py"]


def as_json(value):
    return json.dumps(value).encode()  # half a character as \ud800


@pytest.mark.parametrize("value", [*TEXTS, 2**63, -(2**63), 10**400, 1.5, [], {}], ids=briefly)
@pytest.mark.parametrize("field", ["event_id", "user_id", "video_id"])
def test_an_impossible_id_is_refused(client, field, value):
    body = {"events": [EVENT | {field: value}]}
    refused(client, "POST", "/v1/events", content=as_json(body), headers=JSON)
    if field == "video_id":
        refused(client, "POST", "/v1/videos", content=as_json({"video_id": value}), headers=JSON)
        history = {"history": [{"video_id": value}]}
        refused(client, "POST", "/v1/recommendations", content=as_json(history), headers=JSON)


@pytest.mark.parametrize("value", [2**63, -1, 10**400, 1.5, "soon", [], float("nan")], ids=briefly)
@pytest.mark.parametrize("field", ["timestamp", "position"])
def test_an_impossible_number_is_refused(client, field, value):
    refused(client, "POST", "/v1/events", content=as_json({"events": [EVENT | {field: value}]}), headers=JSON)


@pytest.mark.parametrize("value", ODD_VALUES, ids=repr)
@pytest.mark.parametrize(
    "column", ["title", "channel_id", "category", "tags", "duration_seconds", "uploaded_at", "shoe"]
)
def test_an_impossible_column_of_an_upload_is_refused(client, column, value):
    refused(client, "POST", "/v1/videos", content=as_json({"video_id": "odd", column: value}), headers=JSON)


@pytest.mark.parametrize("value", ["\ud800", 10**400, [], {}, None, True, "x" * 10_000], ids=briefly)
@pytest.mark.parametrize("name", ["age", "gender", "\ud800", "shoe", ""])
def test_no_attribute_breaks_the_answer(client, name, value):
    body = as_json({"k": 2, "attributes": {name: value}})
    assert client.post("/v1/recommendations", content=body, headers=JSON).status_code in (200, 422)


@pytest.mark.parametrize("query", ["\x00", "'; DROP TABLE events; --", "%", "☃" * 300, "../../etc/passwd", "a\nb"])
def test_no_search_breaks_the_answer(client, query):
    assert client.get("/v1/videos", params={"query": query}).status_code == 200
    event = {"event_id": f"s{query}"[:200].replace("\x00", ""), "kind": "search", "user_id": "u", "query": query}
    assert client.post("/v1/events", json={"events": [event]}).status_code == 202
    assert client.get("/v1/recommendations", params={"user_id": "u"}).status_code == 200


@pytest.mark.parametrize("path", ["%ED%A0%80", "%00", "x" * 300, "..%2F..%2Fetc%2Fpasswd", "%2e%2e", "a%2Fb", "%FF"])
@pytest.mark.parametrize(
    "route", ["/v1/videos/{}/similar", "/v1/users/{}/history", "/v1/videos/{}/block", "/v1/users/{}"]
)
def test_no_id_in_a_path_breaks_the_answer(client, route, path):
    for method in ("GET", "POST", "DELETE"):
        assert client.request(method, route.format(path)).status_code < 500


@pytest.mark.parametrize(
    "path", ["../../pyproject.toml", "..%2f..%2fguard.py", "%2e%2e/guard.py", "//etc/passwd", "\\guard.py"]
)
def test_the_page_gives_no_other_file(client, path):
    answer = client.get(f"/{path}")
    assert answer.status_code == 404


@pytest.mark.parametrize("path", ["x" * 4000, "a/" * 2000, "/etc/passwd", "/", "nowhere", "~", "."])
def test_a_bundle_that_is_none_is_refused(client, path):
    before = client.get("/healthz").json()
    assert client.post("/admin/bundle", json={"path": path}).status_code == 409
    assert client.get("/healthz").json() == before


def test_odd_headers_are_no_fault(client):
    for value in ("Bearer " + "x" * 10_000, "Bearer \xe9", "\t", "Bearer Bearer"):
        headers = {"authorization": value.encode("latin-1")}
        assert client.get("/admin/status", headers=headers).status_code == 401


def test_after_all_of_it_the_server_answers(client):
    assert client.get("/readyz").status_code == 200
    answer = client.get("/v1/recommendations", params={"user_id": 3}).json()
    assert len(answer["recommendations"]) == 20 and answer["degraded"] == []
    assert client.get("/admin/status").json()["requests"]["failed"] == 0
