import numpy as np
import pytest

from watchnext.bundle.bundle import Bundle
from watchnext.retrieval.candidates import Candidates, Wish, _ranks, without
from watchnext.serving.stages import request_context

K = 8
VIDEOS = np.arange(1, 101)  # every row of the small world
KNOWN = ("network", "co_watch", "popular")


@pytest.fixture(scope="module")
def generator(small_bundle):
    return small_bundle.generator


@pytest.fixture(scope="module")
def excluded():
    """Something else for each of twenty users."""
    random = np.random.default_rng(0)
    return [np.sort(random.permutation(VIDEOS)[: 2 * user]) for user in range(20)]


def scored_lists_of(generator, context, k, excluded) -> list[list[dict[int, float]]]:
    """The oracle: for each source and user, its k best videos that are not excluded, from its full ranking."""
    full = [
        generator.index.search(generator.network.vectors_of(context), len(VIDEOS)),
        *(source.nominate(context, len(VIDEOS)) for source in (*generator.others, *generator.beside)),
    ]
    return [
        [
            dict([(row, score) for row, score in pairs if row and row not in excluded[user]][:k])
            for user, pairs in enumerate(zip(*both, strict=True) for both in zip(rows, scores, strict=True))
        ]
        for rows, scores in full
    ]


def lists_of(generator, context, k, excluded) -> list[list[list[int]]]:
    return [[list(one) for one in source] for source in scored_lists_of(generator, context, k, excluded)]


def rows_of(found: Candidates, user: int) -> list[int]:
    return [row for row in found.video_row[user].tolist() if row]


def test_sources_are_the_network_and_the_others(generator, small_context):
    assert generator.candidates(small_context, Wish(K)).sources == (*KNOWN, "fresh", "channels")


def test_the_first_of_each_source_are_candidates_as_many_as_its_quota(generator, small_context, excluded):
    quotas = {"network": 4, "co_watch": 2, "popular": 0, "fresh": 1, "channels": 3}
    found = generator.candidates(small_context, Wish(K, excluded, quotas))
    lists = lists_of(generator, small_context, K, excluded)
    for user in range(20):
        wanted = [row for rows, quota in zip(lists, quotas.values(), strict=True) for row in rows[user][:quota]]
        assert rows_of(found, user) == list(dict.fromkeys(wanted))


@pytest.mark.parametrize("most", [1, 5, 12, 200])
def test_of_more_than_most_the_networks_last_go_that_nobody_else_nominates(generator, small_context, excluded, most):
    quotas = {"co_watch": 4, "popular": 3, "fresh": 2, "channels": 1}
    whole = generator.candidates(small_context, Wish(K, excluded, quotas))
    found = generator.candidates(small_context, Wish(K, excluded, quotas, most))
    for user in range(20):
        kept = rows_of(whole, user)
        others = whole.rank[user, :, 1:]
        within = ((others > 0) & (others <= list(quotas.values()))).any(axis=1)
        nominated = dict(zip(whole.video_row[user].tolist(), within, strict=True))
        while len(kept) > most and len(alone := [row for row in kept if not nominated[row]]) > most // 2:
            kept.remove(alone[-1])
        assert rows_of(found, user) == kept


def test_what_is_left_out_by_a_quota_still_tells_its_rank(generator, small_context):
    whole = generator.candidates(small_context, Wish(K))
    some = generator.candidates(small_context, Wish(K, quotas={"popular": 0}))
    for user in range(20):
        ranks = dict(zip(rows_of(whole, user), whole.rank[user].tolist(), strict=False))
        assert all(ranks[row] == some.rank[user, place].tolist() for place, row in enumerate(rows_of(some, user)))


def test_only_what_is_allowed_is_nominated(generator, small_context, excluded):
    allowed = np.arange(101) % 3 == 1
    found = generator.candidates(small_context, Wish(K, excluded, allowed=allowed))
    everything = lists_of(generator, small_context, len(VIDEOS), excluded)
    for user in range(20):
        wanted = [row for rows in everything for row in [one for one in rows[user] if allowed[one]][:K]]
        assert rows_of(found, user) == list(dict.fromkeys(wanted))


def test_a_source_that_is_missing_has_nominated_nobody(generator, small_context):
    def all_but_the_network(jobs):
        return {name: job() for name, job in jobs.items() if name != "network"}

    found = generator.candidates(small_context, Wish(K, gather=all_but_the_network))
    assert not found.nominated[:, :, 0].any() and found.nominated[:, :, 1:].any()
    assert found.sources[0] == "network"


def test_candidates_of_one_source_alone_leave_the_others_as_padding(generator, small_context):
    found = generator.candidates(small_context, Wish(K))
    alone = found.only("popular")
    assert [rows_of(alone, user) for user in range(20)] == [
        [row for row, by in zip(found.video_row[user], found.nominated[user, :, 2], strict=True) if by]
        for user in range(20)
    ]


def test_candidates_are_the_union_without_repeats(generator, small_context, excluded):
    found = generator.candidates(small_context, Wish(K, excluded))
    lists = lists_of(generator, small_context, K, excluded)
    for user in range(20):
        rows = rows_of(found, user)
        assert len(rows) == len(set(rows))
        assert set(rows) == {row for source in lists for row in source[user]}


def test_the_networks_own_come_first_best_first(generator, small_context, excluded):
    found = generator.candidates(small_context, Wish(K, excluded))
    nearest = generator.nearest(small_context, K, excluded)
    np.testing.assert_array_equal(found.video_row[:, :K], nearest)
    assert (np.diff(found.network_score[:, :K], axis=1) <= 0).all()


def test_each_candidate_tells_who_nominated_it(generator, small_context, excluded):
    found = generator.candidates(small_context, Wish(K, excluded))
    lists = lists_of(generator, small_context, K, excluded)
    for user in range(20):
        for place, row in enumerate(found.video_row[user].tolist()):
            assert found.nominated[user, place].tolist() == [row in source[user] for source in lists]


@pytest.mark.parametrize("strike", [True, False])
def test_each_candidate_tells_its_place_and_score_in_every_list(generator, small_context, excluded, strike):
    """Places and scores are those of what is left of the lists."""
    found = generator.candidates(small_context, Wish(K, excluded if strike else None))
    lists = scored_lists_of(generator, small_context, K, excluded if strike else [[]] * 20)
    for user in range(20):
        for place, row in enumerate(found.video_row[user].tolist()):
            ranks = [[*source[user]].index(row) + 1 if row in source[user] else 0 for source in lists]
            assert found.rank[user, place].tolist() == ranks
            scores = [source[user].get(row, np.nan) for source in lists]
            np.testing.assert_allclose(found.source_score[user, place], scores, rtol=1e-5)
    of_network = np.where(found.nominated[:, :, 0], found.network_score, np.nan)
    np.testing.assert_allclose(found.source_score[:, :, 0], of_network, rtol=1e-4, atol=1e-5)


def test_padding_is_nominated_by_nobody_and_comes_last(generator, small_context):
    found = generator.candidates(small_context, Wish(K))
    padding = found.video_row == 0
    assert padding.any()
    assert not found.nominated[padding].any() and np.isnan(found.source_score[padding]).all()
    assert found.nominated[~padding].any(axis=1).all()
    assert (np.diff(padding.astype(int), axis=1) >= 0).all()


def test_excluded_videos_are_never_candidates(generator, small_context, excluded):
    found = generator.candidates(small_context, Wish(K, excluded))
    for user in range(20):
        assert not np.isin(found.video_row[user], excluded[user]).any()


def test_long_exclusions_leave_k_of_every_source(generator, small_context):
    struck = [VIDEOS[:60]] * 20  # of the 73 that anybody completed
    found = generator.candidates(small_context, Wish(K, struck))
    assert (found.nominated[:, :, [0, 2]].sum(axis=1) == K).all()


def test_a_user_who_has_seen_everything_has_no_candidates(generator, small_context):
    found = generator.candidates(small_context, Wish(K, [VIDEOS] * 20))
    assert not found.video_row.any() and not found.nominated.any()


def test_no_users_have_no_candidates(generator, small_context):
    found = generator.candidates(small_context.part(slice(0, 0)), Wish(K, []))
    assert len(found.video_row) == len(found.network_score) == len(found.rank) == len(found.source_score) == 0


def test_network_score_is_the_dot_product_whoever_nominated(generator, small_context):
    found = generator.candidates(small_context, Wish(K))
    vectors = generator.network.vectors_of(small_context)
    for user in range(20):
        expected = [float(vectors[user] @ generator.network.video_vectors[row]) for row in found.video_row[user]]
        np.testing.assert_allclose(found.network_score[user], expected, rtol=1e-4, atol=1e-5)


def test_describe_says_of_shown_videos_what_candidates_say(generator, small_context):
    found = generator.candidates(small_context, Wish(K))
    described = generator.describe(small_context, found.video_row, Wish(K))
    assert described.sources == KNOWN
    np.testing.assert_array_equal(described.video_row, found.video_row)
    np.testing.assert_allclose(described.network_score, found.network_score, rtol=1e-5)
    np.testing.assert_array_equal(described.rank, found.rank[:, :, : len(KNOWN)])
    np.testing.assert_array_equal(described.source_score, found.source_score[:, :, : len(KNOWN)])


def test_describe_tells_that_nobody_nominated_a_shown_video(generator, small_context):
    everything = np.broadcast_to(np.arange(101), (20, 101))
    described = generator.describe(small_context, everything, Wish(K))
    lists = lists_of(generator, small_context, K, [[]] * 20)
    assert not described.nominated[:, 0].any()
    assert described.nominated.sum() == sum(len(rows) for source in lists[: len(KNOWN)] for rows in source)


def test_candidates_of_a_batch_are_those_of_single_users(generator, small_context, excluded):
    together = generator.candidates(small_context, Wish(K, excluded))
    for user in range(0, 20, 6):
        alone = generator.candidates(small_context.part(slice(user, user + 1)), Wish(K, excluded[user : user + 1]))
        assert rows_of(alone, 0) == rows_of(together, user)


def test_without_strikes_moves_up_and_pads():
    rows = np.array([[4, 2, 9, 1], [5, 6, 0, 0]])
    kept = without(rows, [np.array([2, 1]), np.array([5])], 3)
    assert kept.tolist() == [[4, 9, 0], [6, 0, 0]]


def test_a_list_may_name_any_rows_in_any_order():
    """Against looking each one up, with lists that end in padding."""
    random = np.random.default_rng(0)
    lists = np.stack([random.permutation(50)[:9] for _ in range(30)])
    lists[:, 7:] *= random.random((30, 2)) < 0.5
    rows = random.integers(0, 50, (30, 40))
    expected = [
        [listed.index(row) + 1 if row and row in listed else 0 for row in wanted]
        for listed, wanted in zip(lists.tolist(), rows.tolist(), strict=True)
    ]
    assert _ranks(lists, rows).tolist() == expected


def test_without_cuts_to_k():
    assert without(np.array([[4, 2, 9, 1]]), [np.array([4])], 2).tolist() == [[2, 9]]


def test_drawn_candidates_are_nominations_and_more_often_those_of_several_sources(small_run):
    bundle = Bundle.open(small_run.bundle)
    moments = np.full(1, bundle.dataset.log_end)
    context = request_context(bundle.dataset, np.array([4]), moments, bundle.generator, bundle.features)
    candidates = bundle.generator.candidates(context, Wish(10))
    drawn = bundle.generator.draw(context, Wish(10), 6_000, np.random.default_rng(0))[0]
    times = np.bincount(drawn, minlength=101)[candidates.video_row[0]]
    expected = 6_000 * candidates.nominated[0, :, : len(KNOWN)].sum(axis=1) / 30
    assert times.sum() + (drawn == 0).sum() == 6_000
    assert np.allclose(times, expected, atol=5 * np.sqrt(expected.max()))
