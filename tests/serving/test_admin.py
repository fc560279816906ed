"""What an operator calls, over HTTP."""

import shutil

import pytest
from fastapi.testclient import TestClient

from watchnext.serving.http import create_app
from watchnext.serving.server import ServerSettings

pytestmark = pytest.mark.usefixtures("unchecked_types")

TOKEN = "a-token-of-the-tests"


@pytest.fixture
def client(small_run, tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "token").write_text(TOKEN)
    app = create_app(settings=ServerSettings(tmp_path / "state", small_run.bundle))
    with TestClient(app, headers={"authorization": f"Bearer {TOKEN}"}) as client:
        yield client


def version(client):
    return client.get("/healthz").json()["bundle"]


def test_promote_and_rollback_tell_what_serves_now(client, foreign_run):
    first = version(client)
    told = client.post("/admin/bundle", json={"path": str(foreign_run.bundle)}).json()
    second = version(client)
    assert told == {"bundle": second, "variant": "main", "previous": first} and first != second
    assert f'version="{second}"}} 1.0' in client.get("/metrics").text
    assert client.post("/admin/rollback").json() == {"bundle": first, "variant": "main", "previous": second}
    assert version(client) == first and f'version="{second}"' not in client.get("/metrics").text


def test_two_variants_answer_side_by_side(client, foreign_run):
    told = client.post("/admin/bundle", json={"path": str(foreign_run.bundle), "share": 0.5, "variant": "new"}).json()
    assert told["variant"] == "new"
    asked = [client.get("/v1/recommendations", params={"user_id": user, "k": 3}).json() for user in range(30)]
    bundles = {answer["variant"]: answer["bundle"] for answer in asked}
    assert bundles == {"main": version(client), "new": told["bundle"]}
    again = [client.get("/v1/recommendations", params={"user_id": user, "k": 3}).json() for user in range(30)]
    assert [answer["variant"] for answer in again] == [answer["variant"] for answer in asked]
    shares = [(one["variant"], one["share"]) for one in client.get("/admin/status").json()["variants"]]
    assert shares == [("main", 0.5), ("new", 0.5)]


def test_a_damaged_bundle_is_409_and_the_old_one_serves(client, small_run, tmp_path):
    before = version(client)
    copy = shutil.copytree(small_run.bundle, tmp_path / "damaged")
    (copy / "ranking" / "weights.safetensors").write_bytes(b"nothing")
    answer = client.post("/admin/bundle", json={"path": str(copy)})
    assert answer.status_code == 409 and "is damaged" in answer.json()["detail"]
    assert version(client) == before
    assert client.get("/v1/recommendations", params={"user_id": 3}).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("rollback", None, "nothing to go back to"),
        ("bundle", {"path": "b", "share": 0.5}, "another name"),
        ("bundle", {"path": "b", "share": 0}, "share"),
        ("bundle", {"path": "", "share": 1}, "path"),
        ("bundle", {}, "path"),
    ],
)
def test_what_cannot_be_done_is_422(client, path, body, told):
    answer = client.post(f"/admin/{path}", json=body)
    assert answer.status_code == 422 and told in answer.text


def test_requests_are_answered_while_a_bundle_loads(client, small_run, monkeypatch):
    """With all threads of requests at work on something else, a promotion still goes on, and the other way round."""
    deployments, answered = client.app.state.server.deployments, []
    real = deployments.promote

    def slow(*what):
        for _ in range(3):  # more than there are threads, were it one of theirs
            answered.append(client.get("/v1/recommendations", params={"user_id": 3}).status_code)
        return real(*what)

    monkeypatch.setattr(deployments, "promote", slow)
    assert client.post("/admin/bundle", json={"path": str(small_run.bundle)}).status_code == 200
    assert answered == [200] * 3


def test_the_status_counts_requests(client):
    client.get("/v1/recommendations", params={"user_id": 3})
    status = client.get("/admin/status").json()
    assert status["requests"]["total"] == 1 and status["uptime_seconds"] > 0


def test_the_report_is_shown_if_there_is_one(client, small_run, tmp_path, monkeypatch):
    answer = client.get("/admin/report")
    assert answer.status_code == 200 and answer.text == (small_run.run.part("evaluation") / "report.html").read_text()
    assert answer.headers["content-type"].startswith("text/html")
    bundle = shutil.copytree(small_run.bundle, tmp_path / "alone" / "bundle")
    assert client.post("/admin/bundle", json={"path": str(bundle)}).status_code == 200
    answer = client.get("/admin/report")
    assert answer.status_code == 404 and "watchnext evaluate" in answer.text


def test_some_users_are_told_to_try(client, recommender):
    users = client.get("/v1/users", params={"limit": 5}).json()["users"]
    assert len(users) == 5 and len(set(users)) == 5
    assert recommender.bundle.dataset.vocabularies["users"].rows_of(users).all()


def test_figures_are_text_for_prometheus(client):
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain") and "watchnext_stage_seconds_bucket" in answer.text
