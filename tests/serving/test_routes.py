"""What an application calls, route by route; what is sent is known to the next request."""

import pytest
from fastapi.testclient import TestClient

from watchnext.errors import StoreError
from watchnext.serving.http import create_app
from watchnext.serving.server import ServerSettings

pytestmark = pytest.mark.usefixtures("unchecked_types")

TOKEN = "a-token-of-the-tests"
LISTS = "/v1/recommendations"
LATER = 1_702_000_000


@pytest.fixture
def client(small_run, tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "token").write_text(TOKEN)
    app = create_app(settings=ServerSettings(tmp_path / "state", small_run.bundle))
    with TestClient(app, headers={"authorization": f"Bearer {TOKEN}"}) as client:
        yield client


def places(client, **asked):
    answer = client.get(LISTS, params={"user_id": 3, "k": 10} | asked)
    assert answer.status_code == 200
    return answer.json()["recommendations"]


def ids(client, **asked):
    return [place["video_id"] for place in places(client, **asked)]


def event(event_id, **said):
    return {"event_id": event_id, "kind": "watch", "user_id": 3, "video_id": 5, "timestamp": LATER} | said


def send(client, *events):
    return client.post("/v1/events", json={"events": list(events)})


def test_a_server_that_is_ready_says_so(client, monkeypatch):
    assert client.get("/readyz").json() == client.get("/healthz").json() | {"status": "ready"}

    def out_of_reach():
        raise StoreError("the store does not answer.")

    monkeypatch.setattr(client.app.state.server.service.store, "last_sequence", out_of_reach)
    answer = client.get("/readyz")
    assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
    assert client.get("/healthz").status_code == 200


def test_a_watch_is_known_to_the_next_request(client):
    first = ids(client)
    said = event("w", video_id=first[0], watch_seconds=60)
    assert send(client, said).json() == {"accepted": 1, "duplicates": 0}
    assert first[0] not in ids(client)
    newest = client.get("/v1/users/3/history", params={"limit": 1}).json()
    assert newest["user_id"] == "3" and newest["events"][0]["video_id"] == first[0]
    assert (newest["events"][0]["kind"], newest["events"][0]["watch_seconds"]) == ("watch", 60.0)
    assert send(client, said).json() == {"accepted": 0, "duplicates": 1}
    figures = client.get("/admin/status").json()["events"]
    assert figures == {"accepted": 1, "duplicates": 1}


def test_a_search_alone_is_known_to_the_next_request(client, table):
    query = next(row["query"] for row in table("searches") if row["user_id"] != 3)
    before = [place["score"] for place in places(client)]
    assert send(client, event("s", kind="search", video_id=None, query=query)).status_code == 202
    assert [place["score"] for place in places(client)] != before
    assert client.get("/v1/users/3/history", params={"limit": 1}).json()["events"][0]["query"] == query


def test_events_are_taken_all_or_none(client):
    answer = send(client, event("w"), event("x", video_id=None))
    assert answer.status_code == 422 and "without 'video_id'" in answer.json()["detail"]
    assert client.app.state.server.service.store.last_sequence() == 0


@pytest.mark.parametrize("whom", [None, 3])
def test_a_blocked_video_is_gone_and_comes_back(client, whom):
    body = None if whom is None else {"user_id": whom}
    first = ids(client)[0]
    assert client.post(f"/v1/videos/{first}/block", json=body).json() == {"blocked": True}
    assert first not in ids(client) and len(ids(client)) == 10
    assert (first in ids(client, user_id=5, k=90, exclude_seen=False)) == (whom is not None)
    answer = client.request("DELETE", f"/v1/videos/{first}/block", json=body)
    assert answer.json() == {"blocked": False} and first in ids(client)


def test_what_is_not_there_cannot_be_blocked(client):
    for method in ("POST", "DELETE"):
        answer = client.request(method, "/v1/videos/nowhere/block")
        assert answer.status_code == 422 and "not in the catalogue" in answer.json()["detail"]


def test_an_upload_is_served_from_the_next_request_on(client, table):
    known = table("videos")[0]
    columns = {name: known[name] for name in ("category", "duration_seconds")}
    body = {"video_id": "a/new one", "title": "Zebrafinch", "tags": [], "channel_id": None} | columns
    assert client.post("/v1/videos", json=body).status_code == 201
    found = client.get("/v1/videos", params={"query": "zebrafinch"}).json()["videos"]
    assert [(one["video_id"], one["title"], one["category"]) for one in found] == [
        ("a/new one", "Zebrafinch", known["category"])
    ]
    assert "a/new one" in ids(client, k=100, exclude_seen=False)
    assert len(client.get("/v1/videos/a%2Fnew%20one/similar", params={"k": 4}).json()["videos"]) == 4
    again = client.post("/v1/videos", json=body)
    assert again.status_code == 422 and "is there already" in again.json()["detail"]


@pytest.mark.parametrize(
    ("said", "told"),
    [({"shoe": 43}, "unknown column"), ({"duration_seconds": "long"}, "'duration_seconds' should be a number")],
)
def test_an_upload_that_no_bundle_can_take_is_refused_before_it_is_stored(client, said, told):
    answer = client.post("/v1/videos", json={"video_id": "new"} | said)
    assert answer.status_code == 422 and told in answer.json()["detail"]
    assert client.app.state.server.service.store.last_sequence() == 0


def test_similar_videos(client):
    found = client.get("/v1/videos/5/similar", params={"k": 7}).json()["videos"]
    assert len(found) == 7 and 5 not in [one["video_id"] for one in found]
    answer = client.get("/v1/videos/somebody@example.org/similar")
    assert answer.status_code == 404 and "somebody" not in answer.text


def test_filters_leave_what_passes(client, table):
    videos = {row["video_id"]: row for row in table("videos")}
    category, longest = videos[5]["category"], 300.0
    found = ids(client, categories=[category], max_duration_seconds=longest, exclude_seen=False)
    assert found
    assert all(videos[one]["category"] == category and videos[one]["duration_seconds"] <= longest for one in found)
    body = {"k": 5, "filters": {"categories": [category], "max_duration_seconds": longest}}
    posted = client.post(LISTS, json=body).json()["recommendations"]
    assert posted and {place["category"] for place in posted} == {category}
    channel = videos[5]["channel_id"]
    found = ids(client, channel_ids=[channel], exclude_seen=False)
    assert found and {str(videos[one]["channel_id"]) for one in found} == {str(channel)}


def test_reasons_come_when_asked_for(client):
    why = places(client, explain=True, k=3)[0]["why"]
    assert why["sources"] and why["features"] and {"name", "seconds"} == set(why["features"][0])
    assert places(client, k=3)[0]["why"] is None
    history = [{"video_id": 5}, {"video_id": 7}]
    posted = client.post(LISTS, json={"history": history, "k": 3, "explain": True}).json()["recommendations"]
    assert {pull["video_id"] for place in posted for pull in place["why"]["watches"]} <= {5, 7}


def test_a_person_is_forgotten(client):
    assert send(client, event("w")).status_code == 202
    page = client.get(LISTS, params={"user_id": 3}).json()["request_id"]
    assert client.request("DELETE", "/v1/users/3").json() == {"forgotten_events": 1}
    assert client.get(LISTS, params={"user_id": 3}).status_code == 404
    assert client.get("/v1/users/3/history").json()["events"] == []
    service = client.app.state.server.service
    service.answers.flush()
    assert service.store.last_sequence() == 1 and service.store.since(0, 10) == []
    assert all(page.encode() not in file.read_bytes() for file in service.answers.folder.iterdir() if file.is_file())
    assert client.request("DELETE", "/v1/users/nobody").json() == {"forgotten_events": 0}
    assert send(client, event("again")).json() == {"accepted": 1, "duplicates": 0}
    assert client.get(LISTS, params={"user_id": 3}).status_code == 200  # somebody new


def test_ids_with_slashes_are_ids(client):
    assert send(client, event("w", user_id="a/b/history")).status_code == 202
    assert len(client.get("/v1/users/a%2Fb%2Fhistory/history").json()["events"]) == 1
    assert client.request("DELETE", "/v1/users/a%2Fb%2Fhistory").json() == {"forgotten_events": 1}


@pytest.mark.parametrize(
    ("path", "asked", "named"),
    [
        ("/v1/videos", {}, "query"),
        ("/v1/videos", {"query": "x", "limit": 0}, "limit"),
        ("/v1/videos/5/similar", {"k": 0}, '"k"'),
        ("/v1/users/3/history", {"limit": 1001}, "limit"),
        (LISTS, {"user_id": 3, "max_duration_seconds": "NaN"}, "max_duration_seconds"),
        (LISTS, {"user_id": 3, "categories": ["x"] * 101}, "categories"),
    ],
)
def test_a_bad_parameter_is_422_and_named(client, path, asked, named):
    answer = client.get(path, params=asked)
    assert answer.status_code == 422 and named in answer.text


def test_the_page_is_there(client):
    answer = client.get("/")
    assert answer.status_code == 200 and "<html" in answer.text
    assert client.get("/nowhere").status_code == 404
