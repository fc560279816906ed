import json

import pytest
from fastapi.testclient import TestClient

from watchnext.errors import ArtifactError
from watchnext.serving.http import create_app

pytestmark = pytest.mark.usefixtures("unchecked_types")

ROUTE = "/v1/recommendations"


@pytest.fixture(scope="module")
def client(small_run):
    with TestClient(create_app(small_run.bundle), raise_server_exceptions=False) as client:
        client.headers["authorization"] = f"Bearer {client.app.state.server.tokens.admin}"
        yield client


def refusal(answer):
    """The text of a 422 answer."""
    assert answer.status_code == 422
    return json.dumps(answer.json()["detail"])


def test_health_names_the_bundle(client, recommender):
    assert client.get("/healthz").json() == {"status": "ok", "bundle": recommender.bundle.version}


def test_an_answer_names_its_bundle(client, recommender):
    answer = client.get(ROUTE, params={"user_id": 3}).json()
    assert answer["bundle"] == recommender.bundle.version
    assert len(answer["recommendations"]) == 20
    assert answer["note"] is None


def test_every_parameter_reaches_the_recommender(client, recommender):
    asked = {"k": 4, "as_of": 1_701_000_000, "stage": "retrieval", "exclude_seen": False, "surface": "home"}
    answer = client.get(ROUTE, params={"user_id": 3} | asked).json()
    found = recommender.recommend(3, **asked)
    assert [place["video_id"] for place in answer["recommendations"]] == [one.video_id for one in found]


def test_a_visitor_without_history_gets_a_list(client):
    assert len(client.post(ROUTE, json={}).json()["recommendations"]) == 20


def test_fewer_than_k_are_explained(client, seen_by, everything):
    left = len(everything) - len(seen_by(3))
    answer = client.get(ROUTE, params={"user_id": 3, "k": 100}).json()
    assert len(answer["recommendations"]) == left
    assert answer["note"] == f"only {left} videos are left that may be shown"


def test_who_has_seen_everything_gets_an_empty_list(client, everything):
    answer = client.post(ROUTE, json={"history": [{"video_id": video} for video in everything]})
    assert answer.status_code == 200
    assert answer.json()["recommendations"] == [] and "only 0" in answer.json()["note"]


def test_an_unknown_user_is_404_and_not_named(client):
    answer = client.get(ROUTE, params={"user_id": "somebody@example.org"})
    assert answer.status_code == 404
    assert "POST /v1/recommendations" in answer.json()["detail"] and "somebody" not in answer.text


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"k": 0}, '"k"'),
        ({"k": 101}, "k = 101"),
        ({"k": "many"}, '"k"'),
        ({"as_of": -1}, '"as_of"'),
        ({"as_of": 1_700_000_000_000}, "as_of = "),
        ({"as_of": 10**30}, "as_of"),
        ({"stage": "rankin"}, '"stage"'),
        ({"surface": "kitchen"}, "surface"),
    ],
)
def test_a_bad_parameter_is_422_and_named(client, parameters, named):
    answer = client.get(ROUTE, params={"user_id": 123} | parameters)
    assert named in refusal(answer)
    assert "123" not in answer.text


def test_a_missing_user_is_422(client):
    assert "user_id" in refusal(client.get(ROUTE))


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"k": 0}, '"k"'),
        ({"k": 101}, "k = 101"),
        ({"kk": 5}, '"kk"'),
        ({"stage": "x"}, '"stage"'),
        ({"history": "none"}, '"history"'),
        ({"history": [{"video_id": 3}, {"video": 3}]}, '["body", "history", 1, "video_id"]'),
        ({"history": [{"video_id": 3, "watch_seconds": -1}]}, '"watch_seconds"'),
        ({"history": [{"video_id": 3, "watch_seconds": 1e9}]}, '"watch_seconds"'),
        ({"history": [{"video_id": 3, "timestamp": 1_700_000_000_000}]}, "timestamp"),
        ({"history": [{"video_id": 3, "timestamp": 10**30}]}, "timestamp"),
        ({"history": [{"video_id": 3}] * 1001}, '"history"'),
        ({"searches": [{"query": "x" * 1001}]}, '"query"'),
        ({"attributes": {"shoe": 43}}, "'shoe'"),
        ({"attributes": {"age": "old"}}, "'age'"),
        ({"surface": "kitchen"}, "surface"),
        ([], "body"),
    ],
)
def test_a_bad_body_is_422_and_names_the_field(client, body, named):
    assert named in refusal(client.post(ROUTE, json=body))


@pytest.mark.parametrize("text", ["{", "", '{"k": NaN}', '{"history": [{"video_id": 3, "watch_seconds": NaN}]}'])
def test_a_body_that_is_no_json_is_422(client, text):
    refusal(client.post(ROUTE, content=text, headers={"content-type": "application/json"}))


@pytest.mark.parametrize("value", [1e300, "Infinity", "NaN"])
def test_no_number_breaks_the_answer(client, value):
    text = f'{{"k": 3, "attributes": {{"age": {value}}}}}'
    answer = client.post(ROUTE, content=text, headers={"content-type": "application/json"})
    assert answer.status_code in (200, 422)


def test_unknown_paths_are_404(client):
    assert client.get("/v2/recommendations").status_code == 404


def test_the_openapi_document_lists_the_routes(client):
    document = client.get("/openapi.json").json()
    assert {path: set(methods) for path, methods in document["paths"].items()} == {
        "/healthz": {"get"},
        "/readyz": {"get"},
        "/metrics": {"get"},
        ROUTE: {"get", "post"},
        "/v1/events": {"post"},
        "/v1/users": {"get"},
        "/v1/users/{user_id}": {"delete"},
        "/v1/users/{user_id}/history": {"get"},
        "/v1/videos": {"get", "post"},
        "/v1/videos/{video_id}/similar": {"get"},
        "/v1/videos/{video_id}/block": {"post", "delete"},
        "/admin/status": {"get"},
        "/admin/bundle": {"post"},
        "/admin/rollback": {"post"},
        "/admin/report": {"get"},
    }


def test_a_damaged_bundle_stops_the_server(tmp_path):
    with pytest.raises(ArtifactError, match="holds no bundle"), TestClient(create_app(tmp_path)):
        pass
