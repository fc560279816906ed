"""Budgets, and what is left out in which order; live histories; what a request leaves behind."""

import logging
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from watchnext.errors import RequestError, StoreError, UnknownUserError
from watchnext.serving.events import LiveEvent
from watchnext.serving.exchange import Ask
from watchnext.serving.recommendation import Visitor, Watch
from watchnext.serving.server import Server, ServerSettings

pytestmark = pytest.mark.usefixtures("unchecked_types")

K = 10
USER = "3"
SECRET = "somebody@example.org"
PATIENT = 30.0


@pytest.fixture
def server(small_run, tmp_path):
    server = Server(ServerSettings(tmp_path / "state", small_run.bundle))
    yield server
    server.close()


@pytest.fixture
def service(server):
    return server.service


@pytest.fixture
def live(server):
    return server.deployments.now.variants[0].recommender.live


@pytest.fixture
def with_budget(server, monkeypatch):
    """Gives `with_budget(milliseconds, of a source)`."""
    bundle = server.deployments.now.variants[0].recommender.bundle

    def change(milliseconds, source_milliseconds):
        serving = replace(bundle.serving, budget_ms=milliseconds, source_budget_ms=source_milliseconds)
        monkeypatch.setitem(vars(bundle), "serving", serving)

    return change


class Another:
    """A source of candidates beside the others: it nominates one video, when it comes to it."""

    name = "another"

    def __init__(self):
        self.may_go_on, self.num_asked = threading.Event(), 0
        self.error = None

    def nominate(self, context, k):
        self.num_asked += 1
        if self.error is not None:
            raise self.error
        self.may_go_on.wait(PATIENT)
        return np.full((len(context), 1), 5), np.ones((len(context), 1), dtype=np.float32)


@pytest.fixture
def another(live, monkeypatch):
    source = Another()
    monkeypatch.setattr(live.generator, "beside", (*live.generator.beside, source))
    yield source
    source.may_go_on.set()


def ids(answer):
    return [place.video_id for place in answer.recommendations]


def watch(event_id, video_id, user=USER, **said):
    fields = {"timestamp": 1_702_000_000, "watch_seconds": 30.0, "completed": True} | said
    return LiveEvent(event_id, "watch", user_id=user, video_id=str(video_id), **fields)


def broken(*_, **__):
    raise ValueError(SECRET)


# Budgets


def test_a_source_in_time_is_among_the_sources(service, live, another):
    another.may_go_on.set()
    answer = service.answer(Ask(USER, k=90, exclude_seen=False))
    assert answer.degraded == ()
    (nominated,) = live.ids_of(np.array([5]))
    assert "another" in next(place.sources for place in answer.recommendations if place.video_id == nominated)


def test_a_slow_source_is_left_out_and_named(service, another, with_budget):
    with_budget(60_000.0, 1500.0)
    whole = service.answer(Ask(USER, k=K))
    assert whole.degraded == ("source:another",) and len(whole.recommendations) == K


def test_a_source_that_hung_twice_is_not_asked_again(service, another, with_budget):
    with_budget(60_000.0, 1000.0)
    for _ in range(3):
        assert service.answer(Ask(USER, k=K)).degraded == ("source:another",)
    assert another.num_asked == 2


def test_a_failing_source_is_left_out_and_its_text_is_nowhere(service, another, caplog):
    another.error = ValueError(SECRET)
    with caplog.at_level(logging.DEBUG):
        answer = service.answer(Ask(USER, k=K))
    assert answer.degraded == ("source:another",) and len(answer.recommendations) == K
    assert "another" in caplog.text and SECRET not in caplog.text


def test_a_new_budget_of_sources_counts_at_once(service, another, with_budget):
    """A bundle that is promoted brings its own."""
    with_budget(60_000.0, 60_000.0)
    threading.Timer(0.3, another.may_go_on.set).start()
    assert service.answer(Ask(USER, k=K)).degraded == ()
    another.may_go_on.clear()
    with_budget(60_000.0, 1000.0)
    assert service.answer(Ask(USER, k=K)).degraded == ("source:another",)


def test_with_time_for_some_candidates_fewer_are_ranked(service):
    whole = service.answer(Ask(USER, k=K))
    assert whole.degraded == () and service.num_candidates[-1] > 20
    service.answerer._seconds_per_candidate = 60.0 * 0.8 / 16
    answer = service.answer(Ask(USER, k=K))
    assert answer.degraded == ("fewer_candidates",) and len(ids(answer)) == K
    assert K <= service.num_candidates[-1] <= 16
    assert answer.recommendations[0].expected_watch_seconds is not None


def test_without_time_to_rank_the_order_is_that_of_retrieval(service):
    service.answerer._seconds_per_candidate = 60.0 * 0.8 / 5
    answer = service.answer(Ask(USER, k=K))
    scores = [place.score for place in answer.recommendations]
    assert answer.degraded == ("retrieval_order",) and len(scores) == K
    assert scores == sorted(scores, reverse=True)
    assert {place.expected_watch_seconds for place in answer.recommendations} == {None}


def test_an_overdrawn_budget_ranks_nothing(service, another, with_budget):
    """All of it goes to a source that hangs, while the others have come."""
    with_budget(1500.0, 60_000.0)
    answer = service.answer(Ask(USER, k=K))
    assert answer.degraded == ("source:another", "retrieval_order") and len(ids(answer)) == K


def test_one_slow_moment_is_not_believed_for_ever(service):
    service.answerer._seconds_per_candidate = 60.0 * 0.8 / 5
    for _ in range(50):
        if not service.answer(Ask(USER, k=K)).degraded:
            return
    pytest.fail("nothing is ranked any more")


def test_a_question_about_the_past_says_nothing_of_how_fast_ranking_is(service, server, monkeypatch):
    recommender = server.deployments.now.variants[0].recommender
    real = recommender.state_before

    now = 100.0

    def slow(moment):
        nonlocal now
        now += 2.0
        return real(moment)

    monkeypatch.setattr("watchnext.serving.answering.time", SimpleNamespace(perf_counter=lambda: now, time=time.time))
    monkeypatch.setattr(recommender, "state_before", slow)
    service.answerer._seconds_per_candidate = 0.0
    service.answer(Ask(USER, k=K, as_of=1_701_000_000))
    assert now == 102.0 and service.answerer._seconds_per_candidate == 0.0


def test_stages_that_end_in_a_refusal_are_timed_too(service, server):
    with pytest.raises(UnknownUserError):
        service.answer(Ask("nobody"))
    assert set(server.recent.latencies_ms()) == {"waiting", "history", "total"}


def test_what_a_request_has_waited_is_of_its_budget_and_of_its_time(service, server):
    answer = service.answer(Ask(USER, k=K), time.perf_counter() - 2 * PATIENT)
    assert {"retrieval_order", "trending"} & set(answer.degraded) and len(answer.recommendations) == K
    told = server.recent.latencies_ms()
    assert min(told["waiting"]["p50"], told["total"]["p50"]) >= 2000.0 * PATIENT
    assert service.answer(Ask(USER, k=K), time.perf_counter()).degraded == ()


def test_a_failing_ranker_leaves_the_order_of_retrieval(service, live, monkeypatch, caplog):
    monkeypatch.setitem(vars(live.bundle), "ranker", type("Ranker", (), {"predictions": staticmethod(broken)})())
    with caplog.at_level(logging.DEBUG):
        answer = service.answer(Ask(USER, k=K))
    assert answer.degraded == ("retrieval_order",) and len(ids(answer)) == K
    assert "retrieval_order" in caplog.text and SECRET not in caplog.text


@pytest.mark.parametrize("stage", ["ranking", "retrieval"])
def test_without_retrieval_the_answer_is_what_is_popular(service, live, monkeypatch, caplog, seen_by, stage):
    monkeypatch.setitem(vars(live.generator.network), "vectors_of", broken)
    with caplog.at_level(logging.DEBUG):
        answer = service.answer(Ask(USER, k=K, stage=stage))
    assert answer.degraded == ("trending",) and len(ids(answer)) == K
    assert not set(ids(answer)) & seen_by(int(USER))
    assert {place.sources for place in answer.recommendations} == {("popular",)}
    assert "trending" in caplog.text and SECRET not in caplog.text


def test_what_is_popular_obeys_blocks_and_filters(service, live, monkeypatch):
    monkeypatch.setitem(vars(live.generator.network), "vectors_of", broken)
    first = service.answer(Ask(USER, k=K))
    service.accept([LiveEvent("b", "block", 1_702_000_000, USER, str(ids(first)[0]))])
    assert ids(first)[0] not in ids(service.answer(Ask(USER, k=K)))
    category = first.recommendations[1].category
    filters = replace(Ask().filters, categories=(category,))
    assert {one.category for one in service.answer(Ask(USER, k=3, filters=filters)).recommendations} == {category}


def test_a_late_network_leaves_no_short_list(service, live, monkeypatch, with_budget):
    """The list of retrieval alone is the network's; without it, it is what is popular."""
    ended = threading.Event()
    with_budget(60_000.0, 1000.0)
    monkeypatch.setattr(live.index, "search", lambda *_: ended.wait(PATIENT))
    answer = service.answer(Ask(USER, k=K, stage="retrieval"))
    ended.set()
    assert answer.degraded == ("source:network", "trending")
    assert len(ids(answer)) == K and answer.note is None


def test_who_has_seen_everything_has_a_whole_answer(service, everything):
    """An empty list is no sign of haste."""
    answer = service.answer(Ask(visitor=Visitor(tuple(Watch(video) for video in everything))))
    assert (ids(answer), answer.degraded) == ([], ())


def test_a_failing_store_leaves_the_history_of_the_log(service, monkeypatch, caplog):
    whole = service.answer(Ask(USER, k=K))

    def out_of_reach(*_):
        raise StoreError(SECRET)

    for call in ("last_sequence", "of_user", "forgotten_at"):
        monkeypatch.setattr(service.store, call, out_of_reach)
    with caplog.at_level(logging.DEBUG):
        answer = service.answer(Ask(USER, k=K))
    assert answer.degraded == ("history",) and ids(answer) == ids(whole)
    assert SECRET not in caplog.text
    stranger = service.answer(Ask("nobody", k=K))  # may be known to the store
    assert stranger.degraded == ("history",) and len(ids(stranger)) == K


def test_reasons_are_named_in_the_order_in_which_they_came(service, another, live, monkeypatch):
    another.error = ValueError()
    monkeypatch.setattr(service.store, "of_user", lambda *_: (_ for _ in ()).throw(StoreError()))
    monkeypatch.setitem(vars(live.bundle), "ranker", None)
    service.answerer._seconds_per_candidate = 60.0 * 0.8 / 16
    answer = service.answer(Ask(USER, k=K))
    assert answer.degraded == ("history", "source:another", "fewer_candidates", "retrieval_order")
    assert len(ids(answer)) == K


def test_a_question_about_the_past_has_all_the_time_it_takes(service, with_budget):
    with_budget(1.0, 1.0)
    service.answerer._seconds_per_candidate = 1.0
    assert service.answer(Ask(USER, k=K, as_of=1_701_000_000)).degraded == ()


# Live histories


def test_a_watch_is_gone_from_the_next_list(service):
    first = service.answer(Ask(USER, k=K))
    assert service.accept([watch("w", ids(first)[0])]) == 1
    second = service.answer(Ask(USER, k=K))
    assert ids(first)[0] not in ids(second) and len(ids(second)) == K
    assert second.as_of == 1_702_000_001


def test_a_watch_of_the_present_second_counts_by_the_clock_on_the_wall(service, live, monkeypatch):
    monkeypatch.setitem(vars(live.bundle), "serving", replace(live.bundle.serving, clock="wall"))
    first = service.answer(Ask(USER, k=K))
    now = service.answerer.now()
    assert now > 1_780_000_000 and first.as_of in (now, now - 1)
    service.accept([watch("w", ids(first)[0], timestamp=now + 60)])
    second = service.answer(Ask(USER, k=K))
    assert ids(first)[0] not in ids(second) and second.as_of == now + 61


def test_somebody_new_is_known_by_their_first_event(service):
    with pytest.raises(UnknownUserError, match="nothing is known"):
        service.answer(Ask("new"))
    service.accept([watch("w", 7, "new")])
    answer = service.answer(Ask("new", k=K))
    assert len(ids(answer)) == K and 7 not in ids(answer)


def test_a_search_alone_changes_what_the_ranker_is_told(service, table):
    query = next(row["query"] for row in table("searches") if row["user_id"] != int(USER))
    first = service.answer(Ask(USER, k=K))
    service.accept([LiveEvent("s", "search", 1_702_000_000, USER, query=query)])
    second = service.answer(Ask(USER, k=K))
    assert [one.score for one in first.recommendations] != [one.score for one in second.recommendations]


def test_the_same_event_again_changes_nothing(service):
    assert service.accept([watch("w", 7), watch("w", 7)]) == 1
    assert service.accept([watch("w", 7)]) == 0
    past = service.answerer.past(service.deployments.now.variants[0], USER)
    assert (past.records.events.segments.timestamp == 1_702_000_000).sum() == 1


def test_all_events_are_taken_or_none(service):
    with pytest.raises(RequestError):
        service.accept([watch("w", 7, "new"), watch("x", 8, "new", timestamp=2**60)])
    assert service.store.of_user("new", 10) == []


@pytest.mark.parametrize("whom", [None, USER])
def test_a_blocked_video_does_not_come_until_it_may_again(service, whom):
    first = ids(service.answer(Ask(USER, k=K)))[0]
    service.accept([LiveEvent("b", "block", 1_702_000_000, whom, str(first))])
    assert first not in ids(service.answer(Ask(USER, k=90, exclude_seen=False)))
    assert (first in ids(service.answer(Ask("5", k=90, exclude_seen=False)))) == (whom is not None)
    service.accept([LiveEvent("u", "unblock", 1_702_000_001, whom, str(first))])
    assert first in ids(service.answer(Ask(USER, k=90, exclude_seen=False)))


def test_a_forgotten_user_of_the_log_is_unknown_and_nowhere(service):
    page = service.answer(Ask(USER, k=K))
    service.accept([watch("w", 7)])
    service.answers.flush()
    assert service.forget(USER) == 1
    with pytest.raises(UnknownUserError):
        service.answer(Ask(USER, k=K))
    assert service.store.of_user(USER, 10) == []
    service.answers.flush()
    kept = [pq.read_table(file) for file in service.answers.folder.glob("*.parquet")]
    assert kept and all(page.request_id not in table["page_id"].to_pylist() for table in kept)


# What a request leaves behind


def test_an_answer_is_in_the_log_as_it_was_given(service):
    answer = service.answer(Ask(USER, k=K, surface="home"))
    service.answers.flush()
    (file,) = service.answers.folder.glob("answers-*.parquet")
    rows = pq.read_table(file).to_pylist()
    assert [row["video_id"] for row in rows] == [str(one) for one in ids(answer)]
    assert {(row["page_id"], row["user_id"], row["variant"], row["bundle"], row["surface"]) for row in rows} == {
        (answer.request_id, USER, "main", answer.bundle, "home")
    }


def test_a_watch_of_a_page_tells_of_calibration(service):
    answer = service.answer(Ask(USER, k=K))
    place = answer.recommendations[0]
    service.accept([watch("w", place.video_id, page_id=answer.request_id, watch_seconds=40.0)])
    expected = sum(one.expected_watch_seconds for one in answer.recommendations)
    assert service.metrics.calibration.ratio == pytest.approx(40.0 / expected)


def test_figures_count_answers_and_what_they_lack(service, live, monkeypatch):
    monkeypatch.setitem(vars(live.generator.network), "vectors_of", broken)
    service.answer(Ask(USER, k=K))
    told = service.metrics.render().decode()
    assert 'watchnext_degraded_total{reason="trending"} 1.0' in told
    assert 'watchnext_recommendations_total{variant="main"} 1.0' in told
    assert f'watchnext_places_filled_total{{source="popular"}} {K}.0' in told


@pytest.mark.parametrize(("ask", "told"), [(Ask(USER, k=101), "k = 101"), (Ask(USER, stage="x"), "stage = 'x'")])
def test_the_impossible_is_refused(service, ask, told):
    with pytest.raises(RequestError, match=told):
        service.answer(ask)


def test_reasons_are_given_when_asked_for(service):
    explained = service.answer(Ask(USER, k=3, explain=True))
    plain = service.answer(Ask(USER, k=3))
    assert ids(explained) == ids(plain)
    assert all(place.why is None for place in plain.recommendations)
    for place in explained.recommendations:
        assert place.why.sources == place.sources and place.why.features
    assert any(place.why.watches for place in explained.recommendations)
    unranked = service.answer(Ask(USER, k=3, explain=True, stage="retrieval"))
    assert all(place.why.features == () for place in unranked.recommendations)
