import copy
import dataclasses
import math
from collections import Counter

import numpy as np
import pytest

from watchnext.errors import ArtifactError, RequestError, UnknownUserError
from watchnext.serving.recommendation import Visitor, Watch
from watchnext.serving.recommender import Recommender

pytestmark = pytest.mark.usefixtures("unchecked_types")


def ids(found):
    return [one.video_id for one in found]


@pytest.mark.parametrize("k", [1, 7, 30])
def test_k_means_k(recommender, k):
    found = recommender.recommend(3, k)
    assert len(set(ids(found))) == k


def test_k_beyond_the_candidates_of_each_source_is_met(recommender):
    assert len(recommender.recommend(3, 100, exclude_seen=False)) == 100


def test_a_list_is_sorted_by_expected_watch_time(recommender):
    expected = [one.expected_watch_seconds for one in recommender.recommend(3, 20)]
    assert expected == sorted(expected, reverse=True) and expected[-1] >= 0


def test_lists_are_watched_longer_than_what_is_popular_and_fit_their_user_best(recommender, small_run, table):
    """By the truth about the world, for those of whom the log knows ten pages and more."""
    world, moment = small_run.world, np.array(recommender.bundle.dataset.log_end)
    num_events = Counter(row["user_id"] for row in table("events"))
    users = [user for user, count in num_events.items() if count >= 40]
    lists = np.array([ids(recommender.recommend(user, 4, exclude_seen=False)) for user in users])
    popular = recommender.bundle.dataset.vocabularies["videos"].ids_of(np.arange(1, 5))
    own, of_popular, of_any = (
        world.expected_watch_seconds(np.array(users)[:, None], np.array(videos), moment).mean()
        for videos in (lists, [popular], [range(100)])
    )
    assert own > 1.25 * of_popular and own > 1.8 * of_any
    to_each = world.affinity(np.array(users)[:, None, None], lists, moment).mean(axis=2)
    assert np.diag(to_each).mean() > 1.02 * to_each.mean(), "the list of another user would do as well"


def test_a_place_names_title_channel_and_sources(recommender, table):
    one = recommender.recommend(3, 1)[0]
    video = next(row for row in table("videos") if row["video_id"] == one.video_id)
    assert one.title == video["title"]
    assert one.channel == str(video["channel_id"])
    assert one.score == one.expected_watch_seconds
    assert set(one.sources) <= {"network", "co_watch", "popular", "channels"} and one.sources


def test_the_retrieval_stage_expects_no_watch_time(recommender):
    found = recommender.recommend(3, 10, stage="retrieval")
    assert all(one.expected_watch_seconds is None and "network" in one.sources for one in found)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


def test_an_id_may_be_typed_as_text(recommender):
    assert recommender.recommend("3", 5) == recommender.recommend(3, 5)


def test_the_default_moment_is_the_end_of_the_log(recommender):
    end = recommender.bundle.dataset.log_end
    assert recommender.recommend(3, 5) == recommender.recommend(3, 5, as_of=end)
    assert recommender.recommend(3, 5) != recommender.recommend(3, 5, as_of=end - 10 * 86_400)


@pytest.mark.parametrize("stage", ["ranking", "retrieval"])
def test_seen_videos_are_never_recommended(recommender, seen_by, stage):
    for user in (3, 9, 33, 105, 123, 223):
        found = ids(recommender.recommend(user, 20, stage=stage, exclude_seen=True))
        assert len(seen_by(user)) > 20 and not seen_by(user) & set(found)


def test_seen_videos_may_come_back(recommender, seen_by):
    assert seen_by(3) & set(ids(recommender.recommend(3, 20, exclude_seen=False)))


def test_the_bundles_settings_say_whether_seen_videos_are_struck(recommender):
    assert recommender.recommend(3, 9) == recommender.recommend(3, 9, exclude_seen=True)


def test_fewer_than_k_are_left_of_a_small_catalogue(recommender, seen_by, everything):
    found = recommender.recommend(3, 100)
    assert set(ids(found)) == set(everything) - seen_by(3)


def test_who_has_seen_everything_gets_an_empty_list(recommender, everything):
    visitor = Visitor(tuple(Watch(video) for video in everything))
    assert recommender.recommend_visitor(visitor, 5) == []


@pytest.mark.parametrize("k", [0, -1, 101])
def test_an_impossible_k_is_refused(recommender, k):
    with pytest.raises(RequestError, match=f"k = {k}: between 1 and 100 was expected"):
        recommender.recommend(3, k)
    with pytest.raises(RequestError, match=f"k = {k}"):
        recommender.recommend_visitor(Visitor(), k)
    with pytest.raises(RequestError, match=f"k = {k}"):
        list(recommender.recommend_many([3], k))


def test_an_unknown_user_is_refused_without_being_named(recommender):
    with pytest.raises(UnknownUserError, match=r"POST /v1/recommendations") as refused:
        recommender.recommend("somebody@example.org", 5)
    assert "somebody" not in str(refused.value)


def test_an_unknown_stage_is_refused(recommender):
    with pytest.raises(RequestError, match="stage = 'rankin': one of ranking, retrieval"):
        recommender.recommend(3, 5, stage="rankin")


def test_an_unknown_surface_is_refused(recommender):
    with pytest.raises(RequestError, match="surface does not occur"):
        recommender.recommend(3, 5, surface="kitchen")


@pytest.mark.parametrize("as_of", [-1, 1_700_000_000_000, 10**30])
def test_a_moment_that_is_no_unix_second_is_refused(recommender, as_of):
    with pytest.raises(RequestError, match=f"as_of = {as_of}: Unix seconds"):
        recommender.recommend(3, 5, as_of=as_of)


def test_a_damaged_bundle_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="holds no bundle"):
        Recommender.open(str(tmp_path))


def test_many_users_get_what_each_gets_alone(recommender):
    users = list(range(0, 240, 2))
    served = []
    for some, ranked in recommender.recommend_many(users, 5):
        for user, rows, scores, sources in zip(some, ranked.video_row, ranked.score, ranked.sources, strict=True):
            alone = recommender.recommend(user, 5)
            assert recommender.bundle.dataset.vocabularies["videos"].ids_of(rows) == ids(alone)
            assert scores == pytest.approx([one.score for one in alone], rel=1e-5)
            assert sources == [one.sources for one in alone]
            served.append(user)
    assert served == users


def test_unknown_users_are_left_out_of_many(recommender):
    assert [some for some, _ in recommender.recommend_many(["nobody", "3", 5], 5)] == [[3, 5]]


def test_a_served_score_is_the_score_of_the_same_question(recommender):
    """No skew: what was served can be computed again, by the code that computes training examples."""
    as_of = recommender.bundle.dataset.log_end - 4 * 86_400
    for surface in (None, "home"):
        for user in (0, 5, 33):
            found = recommender.recommend(user, 15, as_of=as_of, surface=surface)
            places = len(found)
            moments = np.full(places, as_of)
            surfaces = None if surface is None else [surface] * places
            again = np.concatenate(list(recommender.score([user] * places, ids(found), moments, surfaces)))
            np.testing.assert_allclose(again, [one.expected_watch_seconds for one in found], rtol=1e-5)


def test_scores_in_parts_equal_scores_at_once(recommender):
    users, videos = np.arange(2500) % 240, np.arange(2500) % 100
    moments = np.full(2500, recommender.bundle.dataset.log_end)
    parts = list(recommender.score(users.tolist(), videos.tolist(), moments))
    alone = np.concatenate(list(recommender.score([9], [9], moments[:1])))
    assert [len(part) for part in parts] == [2048, 452]
    assert parts[0][9] == pytest.approx(alone[0], rel=1e-5)


def test_unknown_users_and_videos_are_scored(recommender):
    scores = np.concatenate(list(recommender.score(["nobody", 3], [3, "nothing"], np.array([1_701_000_000] * 2))))
    assert np.isfinite(scores).all() and (scores > 0).all()


def test_a_visitor_is_asked_just_after_the_last_event(recommender):
    """An application sends the times of its own clock, which goes on after the bundle's log has ended."""
    end = recommender.bundle.dataset.log_end
    watches = [(video, end + 86_400 + video) for video in (3, 7, 11)]
    visitor = Visitor(tuple(Watch(video, when, 45.0) for video, when in watches))
    found = recommender.recommend_visitor(visitor, 10)
    assert not {3, 7, 11} & set(ids(found))
    assert found == recommender.recommend_visitor(visitor, 10, as_of=end + 86_400 + 12)
    assert {3, 7, 11} <= set(ids(recommender.recommend_visitor(visitor, 100, as_of=end)))


def test_a_visitors_later_search_sets_the_moment(recommender, table):
    later = recommender.bundle.dataset.log_end + 3600
    visitor = Visitor(searches=((later, table("searches")[0]["query"]),))
    found = recommender.recommend_visitor(visitor, 5)
    assert found == recommender.recommend_visitor(visitor, 5, as_of=later + 1)
    assert found != recommender.recommend_visitor(visitor, 5, as_of=later)


def softmax_by_hand(recommender, user, as_of=None):
    """The probability of every video by id, one dot product and one exponential at a time."""
    dataset, model = recommender.bundle.dataset, recommender.bundle.generator.network
    row = dataset.vocabularies["users"].rows_of([user])
    vector = recommender.user_vectors(row, as_of=as_of)[0].astype(np.float64)
    catalogue = dataset.vocabularies["videos"].ids_of(np.arange(1, dataset.num_videos))
    weights = {
        video: math.exp(
            float(vector @ model.video_vectors[place]) / model.config.temperature / model.calibration.temperature
        )
        for place, video in enumerate(catalogue, start=1)
    }
    spread = model.calibration.spread
    total = sum(weights.values())
    return {video: (1 - spread) * weight / total + spread / len(weights) for video, weight in weights.items()}


@pytest.mark.parametrize("days_before_the_end", [None, 6])
def test_probabilities_are_the_softmax_over_the_catalogue(recommender, everything, days_before_the_end):
    end = recommender.bundle.dataset.log_end
    as_of = None if days_before_the_end is None else end - days_before_the_end * 86_400
    for user in (0, 3, 33):
        expected = softmax_by_hand(recommender, user, as_of)
        found = recommender.probabilities(user, everything, as_of=as_of)
        assert found.sum() == pytest.approx(1.0, abs=1e-5)
        assert found == pytest.approx([expected[video] for video in everything], rel=1e-4)
        assert found.max() > 1.2 * found.min()


def test_a_temperature_flattens_the_probabilities(recommender, everything):
    """A temperature of one, as the small world's, hides whether it is divided by."""
    bundle = recommender.bundle
    model = copy.copy(bundle.generator.network.user_tower)
    model.config = dataclasses.replace(model.config, temperature=0.25)
    generator = copy.copy(bundle.generator)
    generator.network = dataclasses.replace(bundle.generator.network, user_tower=model)
    sharper = Recommender(dataclasses.replace(bundle, generator=generator))
    found = sharper.probabilities(3, everything)
    expected = softmax_by_hand(sharper, 3)
    assert found == pytest.approx([expected[video] for video in everything], rel=1e-4)
    usual = recommender.probabilities(3, everything)
    assert found == pytest.approx(usual**4 / (usual**4).sum(), rel=1e-3)


def test_probabilities_come_in_the_order_asked_and_are_nan_for_what_is_not_in_the_catalogue(recommender):
    alone = [recommender.probabilities(3, [video])[0] for video in (7, 5)]
    found = recommender.probabilities(3, [7, "nothing", "5", 7, 10_000])
    assert np.isnan(found).tolist() == [False, True, False, False, True]
    assert found[[0, 2, 3]].tolist() == [alone[0], alone[1], alone[0]]
    assert recommender.probabilities(3, []).shape == (0,)


def test_what_was_seen_may_be_watched_next(recommender, seen_by):
    assert (recommender.probabilities(3, sorted(seen_by(3))) > 0).all()


def test_probabilities_and_user_vectors_are_those_of_the_moment(recommender, everything):
    """By default of the log's end; nothing later is looked at, and something earlier is."""
    end = recommender.bundle.dataset.log_end
    row = recommender.bundle.dataset.vocabularies["users"].rows_of([3])
    for asked in (
        lambda **when: recommender.probabilities(3, everything, **when),
        lambda **when: recommender.user_vectors(row, **when)[0],
    ):
        usual = asked()
        np.testing.assert_array_equal(usual, asked(as_of=end))
        assert not np.allclose(usual, asked(as_of=end - 10 * 86_400), rtol=1e-3)


def test_vectors_of_many_users_are_those_of_each(recommender):
    rows = np.array([5, 1, 9])
    together = recommender.user_vectors(rows)
    alone = np.concatenate([recommender.user_vectors(np.array([row])) for row in rows])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)
    assert not np.allclose(together[0], together[1])


def test_probabilities_of_an_unknown_user_are_refused(recommender):
    with pytest.raises(UnknownUserError, match="this user is not in the bundle's log"):
        recommender.probabilities("somebody@example.org", [3])


def test_probabilities_and_vectors_at_an_impossible_moment_are_refused(recommender):
    with pytest.raises(RequestError, match="as_of = -1: Unix seconds"):
        recommender.probabilities(3, [3], as_of=-1)
    with pytest.raises(RequestError, match="as_of = -1: Unix seconds"):
        recommender.user_vectors(np.array([1]), as_of=-1)
