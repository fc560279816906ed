import dataclasses
from collections import Counter

import numpy as np
import pytest

from watchnext.serving.events import LiveEvent
from watchnext.serving.funnel import Funnel, Question, Ranked
from watchnext.serving.live import LiveBundle
from watchnext.serving.recommender import Recommender, recommendations

pytestmark = pytest.mark.usefixtures("unchecked_types")

USERS = np.array([3, 9, 33, 105, 123])


@pytest.fixture(scope="module")
def funnel_with(recommender):
    """Gives `funnel_with(**serving)`: the funnel of the small world's bundle with other settings."""

    def made(**serving) -> Funnel:
        bundle = recommender.bundle
        return Funnel(LiveBundle(dataclasses.replace(bundle, serving=dataclasses.replace(bundle.serving, **serving))))

    return made


def asked_of(funnel: Funnel, users: np.ndarray = USERS, k: int = 10, **changed) -> Question:
    dataset = funnel.live.bundle.dataset
    return dataclasses.replace(Question(dataset, users, dataset.log_end, k), **changed)


def pages(funnel: Funnel, question: Question) -> Ranked:
    context = funnel.context(question)
    candidates = funnel.candidates(question, context)
    if question.stage == "retrieval":
        return funnel.page(question, candidates.only("network"), None)
    inputs = funnel.inputs(question, context, candidates, funnel.live.bundle.state)
    return funnel.page(question, candidates, funnel.predictions(inputs))


def limited(rows: list[int], groups: list[tuple[np.ndarray, int]], k: int) -> list[int]:
    """Takes one after another while all limits allow, then fills up from those that were left."""
    taken: list[int] = []
    for row in rows:
        counts = [Counter(int(of[one]) for one in taken) for of, _ in groups]
        over = any(of[row] and seen[int(of[row])] >= limit for (of, limit), seen in zip(groups, counts, strict=True))
        if len(taken) < k and not over:
            taken.append(row)
    taken += [row for row in rows if row not in taken][: k - len(taken)]
    return sorted(taken, key=rows.index)


@pytest.mark.parametrize("stage", ["ranking", "retrieval"])
@pytest.mark.parametrize("k", [1, 7, 40])
def test_pages_are_the_recommenders_lists(recommender, funnel_with, stage, k):
    funnel, dataset = funnel_with(), recommender.bundle.dataset
    for row in USERS:
        (user_id,) = dataset.vocabularies["users"].ids_of(np.array([row]))
        page = pages(funnel, asked_of(funnel, np.array([row]), k, stage=stage))
        assert recommendations(funnel.live, page) == recommender.recommend(user_id, k, stage=stage)


def test_users_of_a_batch_get_what_each_gets_alone(funnel_with):
    funnel = funnel_with(max_per_channel=2)
    together = pages(funnel, asked_of(funnel))
    for place, row in enumerate(USERS):
        alone = pages(funnel, asked_of(funnel, np.array([row])))
        np.testing.assert_array_equal(together.video_row[place], alone.video_row[0])
        np.testing.assert_allclose(together.score[place], alone.score[0], rtol=1e-4)
        assert together.sources[place] == alone.sources[0]


@pytest.mark.parametrize("stage", ["ranking", "retrieval"])
@pytest.mark.parametrize(
    "limits", [{"max_per_channel": 1}, {"max_per_topic": 2}, {"max_per_channel": 2, "max_per_topic": 3}]
)
@pytest.mark.parametrize("k", [4, 10, 20])
def test_limits_hold_and_k_means_k(funnel_with, stage, limits, k):
    funnel, unlimited = funnel_with(**limits), funnel_with()
    videos = funnel.live.bundle.dataset.videos
    category = videos.categorical[:, funnel.live.bundle.dataset.video_categories.index("category")]
    columns = {"max_per_channel": videos.channel_row, "max_per_topic": category}
    groups = [(columns[name], limit) for name, limit in limits.items()]
    question = asked_of(funnel, k=k, stage=stage)
    found = pages(funnel, question)
    context = unlimited.context(question)
    candidates = unlimited.candidates(question, context)
    candidates = candidates if stage == "ranking" else candidates.only("network")
    said = None
    if stage == "ranking":
        said = unlimited.predictions(unlimited.inputs(question, context, candidates, funnel.live.bundle.state))
    everything = unlimited.page(dataclasses.replace(question, k=100), candidates, said)
    for rows, ranked in zip(found.video_row.tolist(), everything.video_row.tolist(), strict=True):
        ranked = [row for row in ranked if row]
        assert rows == limited(ranked, groups, k)
        assert len(set(rows)) == k and 0 not in rows


def test_what_the_users_blocked_does_not_come_and_k_means_k(funnel_with):
    funnel = funnel_with()
    before = pages(funnel, asked_of(funnel))
    blocked = [rows[:4] for rows in before.video_row]
    after = pages(funnel, asked_of(funnel, blocked=blocked))
    for rows, struck in zip(after.video_row, blocked, strict=True):
        assert len(set(rows.tolist()) - {0}) == 10 and not set(rows.tolist()) & set(struck.tolist())


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_blocked_by_all_by_one_and_seen_are_struck_together(funnel_with, exclude_seen):
    funnel = funnel_with()
    live = funnel.live
    best = pages(funnel, asked_of(funnel, exclude_seen=exclude_seen)).video_row
    own, everybodys = [rows[:1] for rows in best], np.unique(best[:, 1])
    for row in everybodys:
        live.apply(LiveEvent(f"b{row}", "block", 0, video_id=str(live.ids_of(np.array([row]))[0])))
    question = asked_of(funnel, blocked=own, exclude_seen=exclude_seen)
    events = live.bundle.dataset.events
    for place, rows in enumerate(pages(funnel, question).video_row):
        start, end = events.segments.offsets[USERS[place] :][:2]
        seen = set(events.video_row[start:end].tolist())
        assert len(set(rows.tolist()) - {0}) == 10
        assert not set(rows.tolist()) & (
            {*own[place].tolist(), *everybodys.tolist()} | (seen if exclude_seen else set())
        )


@pytest.mark.parametrize("stage", ["ranking", "retrieval"])
def test_of_what_is_allowed_k_come_or_all_that_are_left(funnel_with, stage):
    funnel = funnel_with()
    allowed = np.random.default_rng(0).random(funnel.live.bundle.dataset.num_videos) < 0.3
    allowed[0] = False
    for k in (5, 60):
        found = pages(funnel, asked_of(funnel, k=k, stage=stage, allowed=allowed, exclude_seen=False))
        for rows in found.video_row:
            listed = rows[rows > 0]
            assert allowed[listed].all() and len(set(listed.tolist())) == min(k, allowed.sum())


def test_where_nothing_is_allowed_pages_are_empty(funnel_with):
    funnel = funnel_with()
    nothing = np.zeros(funnel.live.bundle.dataset.num_videos, dtype=bool)
    found = pages(funnel, asked_of(funnel, allowed=nothing))
    assert not found.video_row.any() and not np.isfinite(found.score).any()
    assert found.sources == [[]] * len(USERS)


def test_lists_of_different_lengths_are_padded_with_row_0(funnel_with):
    funnel = funnel_with()
    left = np.arange(1, funnel.live.bundle.dataset.num_videos)
    blocked = [left[place:] for place in range(len(USERS))]
    found = pages(funnel, asked_of(funnel, blocked=blocked, exclude_seen=False))
    assert [(rows > 0).sum() for rows in found.video_row] == [0, 1, 2, 3, 4]
    assert (np.isnan(found.expected_watch_seconds) == (found.video_row == 0)).all()
    assert [len(names) for names in found.sources] == [0, 1, 2, 3, 4]


def popular_pages(funnel: Funnel, question: Question) -> Ranked:
    candidates = funnel.popular(question, funnel.context(question))
    assert candidates.sources == ("popular",)
    return funnel.page(question, candidates, None)


@pytest.mark.parametrize("share", [None, 0.3, 0.0])
@pytest.mark.parametrize("k", [5, 60])
def test_what_is_popular_comes_in_its_order_but_for_what_must_not(funnel_with, share, k):
    funnel = funnel_with()
    num_videos = funnel.live.bundle.dataset.num_videos
    allowed = None if share is None else np.random.default_rng(0).random(num_videos) < share
    blocked = [np.array([1, 2, row]) for row in USERS]
    question = asked_of(funnel, k=k, allowed=allowed, blocked=blocked, exclude_seen=False)
    popular, _ = funnel.live.generator.popular.nominate(funnel.context(question), num_videos)
    for rows, ranked, struck in zip(popular_pages(funnel, question).video_row, popular, blocked, strict=True):
        left = [row for row in ranked.tolist() if row and row not in struck and (allowed is None or allowed[row])]
        assert rows[rows > 0].tolist() == left[:k]


def test_what_is_popular_may_be_asked_without_striking_anything(funnel_with):
    funnel = funnel_with()
    found = popular_pages(funnel, asked_of(funnel, k=3, exclude_seen=False))
    assert (found.video_row == found.video_row[0]).all() and (found.video_row > 0).all()


def test_uploads_are_struck_before_they_came(funnel_with):
    funnel = funnel_with()
    end = funnel.live.bundle.dataset.log_end
    funnel.live.apply(LiveEvent("u", "upload", end, video_id="new", upload={"uploaded_at": end - 100}))
    row = int(funnel.live.rows_of(["new"])[0])
    for moment, comes in ((end - 1, False), (end, True)):
        question = asked_of(funnel, k=100, moment=moment, exclude_seen=False)
        rows = funnel.candidates(question, funnel.context(question)).video_row
        assert (rows == row).any(axis=1).tolist() == [comes] * len(USERS)


def test_a_source_without_quota_nominates_nobody(funnel_with):
    none = dict.fromkeys(("co_watch_quota", "popular_quota", "fresh_quota", "channels_quota", "trending_quota"), 0)
    funnel = funnel_with(**none)
    question = asked_of(funnel, k=5)
    found = funnel.candidates(question, funnel.context(question))
    assert found.video_row.shape[1] == funnel.serving.num_candidates
    assert set(found.sources) == {"network", "co_watch", "popular", "fresh", "channels", "trending"}


@pytest.mark.parametrize("stage", ["ranking", "retrieval"])
def test_so_many_are_ranked_and_the_network_alone_brings_as_many(funnel_with, stage):
    funnel = funnel_with(co_watch_quota=5, popular_quota=2, fresh_quota=2, channels_quota=1)
    question = asked_of(funnel, k=5, stage=stage)
    found = funnel.candidates(question, funnel.context(question))
    counts = (found.video_row > 0).sum(axis=1), found.nominated[:, :, 0].sum(axis=1)
    assert (counts[stage == "retrieval"] == funnel.serving.num_candidates).all()


def test_a_recommender_serves_what_its_settings_say(recommender):
    serving = dataclasses.replace(recommender.bundle.serving, max_per_channel=1)
    limited_one = Recommender(dataclasses.replace(recommender.bundle, serving=serving))
    channels = [one.channel for one in limited_one.recommend(3, 2)]
    assert len(set(channels)) == 2
