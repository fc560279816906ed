import time

import pytest

from watchnext.errors import RequestError
from watchnext.serving.bodies import EventBody
from watchnext.serving.intake import by_rule, events_of
from watchnext.serving.server import Server, ServerSettings


@pytest.fixture(scope="module")
def service(small_run, tmp_path_factory):
    server = Server(ServerSettings(tmp_path_factory.mktemp("state"), small_run.bundle))
    yield server.service
    server.close()


def body(**said):
    return EventBody(**{"event_id": "e", "kind": "watch", "user_id": "3", "video_id": "5"} | said)


def test_a_moment_that_is_not_told_is_now(service, recommender):
    said, unsaid = events_of(service, [body(timestamp=1_701_000_000), body()])
    assert said.timestamp == 1_701_000_000
    assert unsaid.timestamp == recommender.bundle.dataset.log_end == service.answerer.now()


def test_ids_become_text_and_the_rest_stays(service):
    fields = {"clicked": True, "liked": True, "position": 3, "surface": "home", "page_id": "p", "watch_seconds": 9.0}
    (event,) = events_of(service, [body(user_id=3, video_id=5, completed=True, **fields)])
    assert (event.user_id, event.video_id, event.event_id, event.kind) == ("3", "5", "e", "watch")
    assert {name: getattr(event, name) for name in fields} == fields and event.completed


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"video_id": None}, "kind 'watch' came without 'video_id'"),
        ({"kind": "impression", "video_id": None}, "kind 'impression' came without 'video_id'"),
        ({"kind": "search"}, "kind 'search' came without 'query'"),
        ({"timestamp": int(time.time()) + 2 * 86_400}, "more than a day from now"),
        ({"timestamp": 1_701_000_000_000}, "not milliseconds"),
    ],
)
def test_an_event_that_cannot_be_is_refused(service, said, told):
    with pytest.raises(RequestError, match=told):
        events_of(service, [body(), body(**said)])


def test_a_clock_that_is_a_little_fast_is_believed(service):
    soon = int(time.time()) + 3_600
    assert events_of(service, [body(timestamp=soon)])[0].timestamp == soon


def test_what_is_completed_is_said_or_follows_from_the_rule_of_the_log(service, recommender):
    """The small world completes a watch at half of its length, or after thirty seconds."""
    duration = recommender.live.describe(recommender.live.rows_of([5]))[0].duration_seconds
    bodies = [
        body(watch_seconds=duration),
        body(watch_seconds=0.01 * duration),
        body(),
        body(watch_seconds=duration, completed=False),
        body(watch_seconds=0.0, completed=True),
        body(watch_seconds=29.0, video_id="nowhere"),
        body(kind="impression", watch_seconds=duration),
        body(kind="search", query="x"),
    ]
    found = [event.completed for event in events_of(service, bodies)]
    assert found == [True, False, False, False, True, False, False, False]


@pytest.mark.parametrize(
    ("rule", "row", "completed"),
    [
        ("clicked", (None, None, True), True),
        ("watch_seconds > 10", (11.0, None, False), True),
        ("watch_seconds > 10", (None, None, False), False),
        ("watch_seconds / duration_seconds >= 0.9", (9.0, 10.0, False), True),
        ("watch_seconds / duration_seconds >= 0.9", (9.0, 0.0, False), True),
    ],
)
def test_rules_by_hand(rule, row, completed):
    """By a length of zero anything is longer: as the log's own reader has it."""
    assert by_rule(rule, [row]) == [completed]
