"""Command line, Python, HTTP by id and HTTP with the history inline: one question, one answer."""

import json
import sys

import pytest
from fastapi.testclient import TestClient

from watchnext.cli import main
from watchnext.serving.http import create_app

pytestmark = pytest.mark.usefixtures("unchecked_types")

USERS = (0, 3, 5, 20)  # of the first nothing is known but who it is


@pytest.fixture(scope="module")
def client(small_run):
    with TestClient(create_app(small_run.bundle)) as client:
        client.headers["authorization"] = f"Bearer {client.app.state.server.tokens.admin}"
        yield client


def command_line(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["watchnext", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    return json.loads(capsys.readouterr().out)


def rounded(places):
    return [
        {name: round(value, 4) if isinstance(value, float) else value for name, value in place.items()}
        for place in places
    ]


@pytest.mark.parametrize("stage", ["ranking", "retrieval"])
@pytest.mark.parametrize("days_before_the_end", [None, 6])
def test_three_ways_one_answer(recommender, client, told, small_run, monkeypatch, capsys, stage, days_before_the_end):
    """The inline history has no surfaces, and needs none: past surfaces are no feature, the request's own is."""
    as_of = None if days_before_the_end is None else recommender.bundle.dataset.log_end - days_before_the_end * 86_400
    question = {"k": 12, "stage": stage} | ({} if as_of is None else {"as_of": as_of})
    flags = [part for name, value in question.items() for part in (f"--{name.replace('_', '-')}", value)]
    for user in USERS:
        bundle = ["--bundle", small_run.bundle, "--user", user]
        typed = command_line(["recommend", *bundle, "--json", *flags], monkeypatch, capsys)
        called = recommender.recommend(user, 12, as_of=as_of, stage=stage)
        fetched = client.get("/v1/recommendations", params={"user_id": user, **question}).json()
        posted = client.post("/v1/recommendations", json=told(user) | question).json()
        assert len(called) == 12
        assert [place["video_id"] for place in typed] == [one.video_id for one in called]
        assert typed == fetched["recommendations"]
        assert rounded(posted["recommendations"]) == rounded(typed)


def test_the_surface_means_the_same_everywhere(recommender, client, told, small_run, monkeypatch, capsys):
    bundle = ["--bundle", small_run.bundle, "--user", 5, "-k", 5, "--surface", "home"]
    typed = command_line(["recommend", *bundle, "--json"], monkeypatch, capsys)
    called = recommender.recommend(5, 5, surface="home")
    fetched = client.get("/v1/recommendations", params={"user_id": 5, "k": 5, "surface": "home"}).json()
    posted = client.post("/v1/recommendations", json=told(5) | {"k": 5, "surface": "home"}).json()
    assert typed[0]["score"] == pytest.approx(called[0].score)
    assert typed == fetched["recommendations"]
    assert rounded(posted["recommendations"]) == rounded(typed)
    assert called[0].score != pytest.approx(recommender.recommend(5, 5)[0].score)


def test_a_visitor_who_is_told_less_gets_another_list(client, told):
    """Guards the test above: what is told of a user does matter."""
    body = told(3) | {"k": 12}
    whole = client.post("/v1/recommendations", json=body).json()["recommendations"]
    nothing = client.post("/v1/recommendations", json={"k": 12}).json()["recommendations"]
    ageless = client.post("/v1/recommendations", json=body | {"attributes": {}}).json()["recommendations"]
    silent = client.post("/v1/recommendations", json=body | {"searches": []}).json()["recommendations"]
    assert whole not in (nothing, ageless, silent)


def test_a_long_history_told_inline_gives_the_answer_of_the_log(recommender, client, told):
    """Longer than what the networks look at, whose oldest page is cut in the middle."""
    assert len(told(237)["history"]) > 300
    posted = client.post("/v1/recommendations", json=told(237) | {"k": 12, "stage": "retrieval"}).json()
    called = recommender.recommend(237, 12, stage="retrieval")
    assert [place["video_id"] for place in posted["recommendations"]] == [one.video_id for one in called]
    assert [place["score"] for place in posted["recommendations"]] == pytest.approx([one.score for one in called])
