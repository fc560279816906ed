import dataclasses

import numpy as np
import pytest

from watchnext.events.dataset import EVENT_COLUMNS, Segments
from watchnext.examples.contexts import context_as_of
from watchnext.serving.explain import contributions, explained, pulls
from watchnext.serving.funnel import Funnel, Question
from watchnext.serving.live import LiveBundle
from watchnext.serving.live_records import past_of
from watchnext.serving.recommendation import Visitor, VisitorRecords, Watch
from watchnext.serving.recommender import recommendations

USERS = ("3", "9", "33", "105")


@pytest.fixture(scope="module")
def funnel(recommender) -> Funnel:
    return Funnel(LiveBundle(recommender.bundle))


def question_of(funnel: Funnel, records: VisitorRecords, k: int = 8, **changed) -> Question:
    moment = funnel.live.bundle.dataset.log_end
    return dataclasses.replace(Question(records, np.array([1]), moment, k), **changed)


def asked_by(funnel: Funnel, user: str, **changed) -> Question:
    return question_of(funnel, past_of(funnel.live, user, [], None).records, **changed)


def never_met(records: VisitorRecords, row: int) -> VisitorRecords:
    """The records rebuilt event by event without those of a video."""
    events = records.events
    places = [place for place, one in enumerate(events.video_row.tolist()) if one != row]
    columns = {name: getattr(events, name)[places] for name in EVENT_COLUMNS}
    times = events.segments.timestamp[places]
    watched = [place for place in range(len(places)) if columns["completed"][place] and columns["video_row"][place]]
    kept = dataclasses.replace(
        events,
        segments=Segments(np.array([0, 0, len(times)]), times),
        watches=Segments(np.array([0, 0, len(watched)]), times[watched]),
        watch_places=np.array(watched, dtype=np.int64),
        **columns,
    )
    return dataclasses.replace(records, events=kept)


def match(funnel: Funnel, records: VisitorRecords, moment: int, row: int) -> float:
    generator = funnel.live.bundle.generator
    config = generator.network.config
    context = context_as_of(records, np.array([1]), np.array([moment]), config.history_length, config.num_search_tokens)
    return float(generator.network.vectors_of(context)[0] @ generator.network.video_vectors[row])


@pytest.mark.parametrize("user", USERS)
def test_a_pull_is_the_share_of_the_match_that_is_gone_without_the_watch(funnel, user):
    asked = asked_by(funnel, user)
    (user_vector,) = funnel.live.bundle.generator.network.vectors_of(funnel.context(asked))
    ranked = np.argsort(-funnel.live.bundle.generator.network.video_vectors[1:] @ user_vector) + 1
    found = np.concatenate([ranked[:5], ranked[-5:]])
    watched = set(asked.records.events.video_row[asked.records.events.watch_places].tolist())
    assert len(watched) >= 3
    some = 0
    for row, told in zip(found.tolist(), pulls(funnel, asked, found), strict=True):
        whole = match(funnel, asked.records, asked.moment, row)
        expected = {
            one: (whole - match(funnel, never_met(asked.records, one), asked.moment, row)) / abs(whole)
            for one in watched
        }
        best = sorted((pull for pull in expected.values() if pull > 0), reverse=True)[:3]
        assert [one.pull for one in told] == pytest.approx(best, rel=1e-3, abs=1e-5)
        assert all(one.pull == pytest.approx(expected[one.video_row], rel=1e-3, abs=1e-5) for one in told)
        some += len(told)
    assert some


def test_who_watched_nothing_was_pulled_by_nothing(funnel):
    dataset = funnel.live.bundle.dataset
    records = VisitorRecords.of(Visitor(), dataset, dataset.log_end)
    assert pulls(funnel, question_of(funnel, records), np.array([1, 2])) == [[], []]


def test_of_no_videos_nothing_is_told(funnel):
    assert pulls(funnel, asked_by(funnel, "3"), np.zeros(0, dtype=np.int64)) == []


def test_what_was_watched_later_does_not_pull(funnel):
    dataset = funnel.live.bundle.dataset
    first, later = Watch(1, 1_000), [Watch(video, 3_000 + video) for video in range(10, 70)]
    rows = np.arange(1, dataset.num_videos)
    told = [
        pulls(funnel, question_of(funnel, VisitorRecords.of(Visitor(history), dataset, 9_000), moment=2_000), rows)
        for history in ((first,), (first, *later))
    ]
    assert told[0] == told[1] and any(told[0])


def test_repeated_watches_are_left_out_together(funnel):
    dataset = funnel.live.bundle.dataset
    videos = [5, 6, 5, 7, 5]
    records = VisitorRecords.of(Visitor(tuple(Watch(video) for video in videos)), dataset, dataset.log_end)
    rows = np.arange(1, dataset.num_videos)
    for told in pulls(funnel, question_of(funnel, records), rows):
        assert len({one.video_row for one in told}) == len(told) <= 3


@pytest.fixture(scope="module")
def ranked(funnel):
    """A user's candidates and what the ranker reads of them."""
    asked = asked_by(funnel, "3")
    context = funnel.context(asked)
    candidates = funnel.candidates(asked, context)
    return funnel.inputs(asked, context, candidates, funnel.live.bundle.state)


def usual(quantiles, column: int) -> float:
    """The smallest knot that half of the training examples do not exceed."""
    for knot, level in zip(quantiles.knots[column], quantiles.levels[column], strict=True):
        if level >= 0.5:
            return float(knot) if np.isfinite(knot) else np.nan
    raise AssertionError


def told_of(funnel, ranked, places) -> list[dict[str, float]]:
    bundle = funnel.live.bundle
    told = contributions(bundle.ranker.network, bundle.features, ranked, places, funnel)
    return [{one.name: one.seconds for one in ones} for ones in told]


def test_a_group_adds_what_is_lost_when_it_is_put_back_to_what_is_usual(funnel, ranked, monkeypatch):
    monkeypatch.setattr("watchnext.serving.explain._MOST_REASONS", 1_000)
    bundle, network = funnel.live.bundle, funnel.live.bundle.ranker.network
    places = np.array([4, 0, 7])
    told = told_of(funnel, ranked, places)
    names = [bundle.features.names[place] for place in bundle.features.places]
    query_names = [bundle.features.query_names[place] for place in bundle.features.query_places]
    groups = {name.split(".")[0] for name in (*names, *query_names)}
    rest = {"which video", "which channel", "tags and categories", "last watches"}
    assert set(told[0]) == groups | rest
    seconds = funnel.predictions(ranked).expected_watch_seconds[0]
    assert {name.split(".")[0] for name in names} & {name.split(".")[0] for name in query_names} == set()
    changed = {}
    for group in ("user_channel", "video"):
        values = ranked.values.copy()
        for column, name in enumerate(names):
            if name.split(".")[0] == group:
                values[..., column] = usual(network.quantiles, column)
        changed[group] = dataclasses.replace(ranked, values=values)
    query_values = ranked.query_values.copy()
    for column, name in enumerate(query_names):
        if name.startswith("everything."):
            query_values[..., column] = usual(network.query_quantiles, column)
    changed["everything"] = dataclasses.replace(ranked, query_values=query_values)
    changed["which video"] = dataclasses.replace(ranked, video_row=np.zeros_like(ranked.video_row))
    changed["which channel"] = dataclasses.replace(ranked, channel_row=np.zeros_like(ranked.channel_row))
    nothing = {name: np.zeros_like(getattr(ranked, name)) for name in ("tag_rows", "video_ids")}
    changed["tags and categories"] = dataclasses.replace(ranked, **nothing)
    changed["last watches"] = dataclasses.replace(ranked, last_watched=np.zeros_like(ranked.last_watched))
    for group, inputs in changed.items():
        without = funnel.predictions(inputs).expected_watch_seconds[0]
        for one, place in zip(told, places, strict=True):
            assert one[group] == pytest.approx(float(seconds[place] - without[place]), abs=1e-3), group


def test_the_three_that_move_most_are_told_most_first(funnel, ranked, monkeypatch):
    places = np.arange(5)
    three = told_of(funnel, ranked, places)
    monkeypatch.setattr("watchnext.serving.explain._MOST_REASONS", 1_000)
    for some, every in zip(three, told_of(funnel, ranked, places), strict=True):
        ordered = sorted(every.items(), key=lambda one: -abs(one[1]))
        assert list(some.items()) == ordered[:3] and ordered[0][1] != 0


def test_of_no_candidates_nothing_is_told(funnel, ranked):
    assert told_of(funnel, ranked, np.zeros(0, dtype=np.int64)) == []


@pytest.mark.parametrize("with_ranker", [True, False])
def test_every_place_of_a_page_is_told_why_it_is_there(funnel, table, with_ranker):
    asked = asked_by(funnel, "3")
    context = funnel.context(asked)
    candidates = funnel.candidates(asked, context)
    inputs = funnel.inputs(asked, context, candidates, funnel.live.bundle.state) if with_ranker else None
    page = funnel.page(asked, candidates, funnel.predictions(inputs) if inputs is not None else None)
    places = recommendations(funnel.live, page)
    told = explained(funnel, asked, candidates, inputs, page, places)
    assert [dataclasses.replace(one, why=None) for one in told] == places
    rows = page.video_row[0]
    watches, titles = pulls(funnel, asked, rows), {one["video_id"]: one["title"] for one in table("videos")}
    order = candidates.video_row[0].tolist()
    of = np.array([order.index(row) for row in rows.tolist()])
    bundle = funnel.live.bundle
    features = contributions(bundle.ranker.network, bundle.features, inputs, of, funnel) if with_ranker else [[]] * 8
    for one, by, adds in zip(told, watches, features, strict=True):
        assert one.why.sources == one.sources and list(one.why.features) == adds
        ids = funnel.live.ids_of(np.array([pull.video_row for pull in by], dtype=np.int64))
        assert [(pull.video_id, pull.pull) for pull in one.why.watches] == [
            (video_id, pull.pull) for video_id, pull in zip(ids, by, strict=True)
        ]
        assert all(pull.title == titles[pull.video_id] for pull in one.why.watches)
    assert any(one.why.watches for one in told)
