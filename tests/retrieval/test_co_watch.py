import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchnext.examples.next_watch import NextWatches
from watchnext.retrieval import co_watch
from watchnext.retrieval.candidates import CandidateSource
from watchnext.retrieval.co_watch import CoWatch


def watches_of(users: list[list[int]]) -> NextWatches:
    """Watches of users 1, 2, ... in the order given."""
    user_row = np.repeat(np.arange(1, len(users) + 1), [len(rows) for rows in users])
    video_row = np.array([row for rows in users for row in rows], dtype=np.int64)
    return NextWatches(user_row, np.arange(len(video_row)), video_row)


def similarities(source: CoWatch) -> dict[tuple[int, int], float]:
    rows = np.repeat(np.arange(len(source.offsets) - 1), np.diff(source.offsets))
    pairs = zip(rows.tolist(), source.neighbour_row.tolist(), strict=True)
    return dict(zip(pairs, source.similarity.tolist(), strict=True))


def oracle(users: list[list[int]], num_videos: int) -> dict[tuple[int, int], float]:
    """Cosines of sets of watchers, pair by pair."""
    watchers = {row: {user for user, rows in enumerate(users) if row in rows} for row in range(1, num_videos)}
    found = {}
    for one, ours in watchers.items():
        for other, theirs in watchers.items():
            if one != other and ours & theirs:
                found[one, other] = len(ours & theirs) / np.sqrt(len(ours) * len(theirs))
    return found


THREE_USERS = [[1, 2], [1, 2, 3], [1]]


@pytest.fixture
def three_users() -> CoWatch:
    return CoWatch.fit(watches_of(THREE_USERS), 5, 10)


def test_similarity_is_the_cosine_worked_by_hand(three_users):
    # Watchers: video 1 three, video 2 two, video 3 one, video 4 none.
    # 1 and 2 share two: 2/√(3·2) = 0.8165; 1 and 3 one: 1/√3 = 0.5774; 2 and 3 one: 1/√2 = 0.7071.
    expected = {(1, 2): 0.8165, (1, 3): 0.5774, (2, 3): 0.7071}
    expected |= {(other, one): value for (one, other), value in expected.items()}
    assert similarities(three_users) == pytest.approx(expected, abs=1e-4)


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(1, 7), max_size=6), min_size=1, max_size=8))
def test_similarities_are_those_of_counting_every_pair(users):
    assert similarities(CoWatch.fit(watches_of(users), 8, 10)) == pytest.approx(oracle(users, 8), rel=1e-5)


def test_a_video_watched_again_by_the_same_user_counts_once(three_users):
    again = CoWatch.fit(watches_of([[1, 2, 1, 1], [1, 2, 3, 3], [1]]), 5, 10)
    assert similarities(again) == pytest.approx(similarities(three_users))


def test_only_the_nearest_neighbours_are_kept():
    source = CoWatch.fit(watches_of(THREE_USERS), 5, 1)
    assert set(similarities(source)) == {(1, 2), (2, 1), (3, 2)}


def test_blocks_of_videos_do_not_matter(monkeypatch, three_users):
    monkeypatch.setattr(co_watch, "_BLOCK_ROWS", 2)
    assert similarities(CoWatch.fit(watches_of(THREE_USERS), 5, 10)) == similarities(three_users)


def test_no_watches_make_no_neighbours(make_context):
    source = CoWatch.fit(watches_of([[]]), 5, 10)
    assert similarities(source) == {}
    assert source.nominate(make_context(watched=[[1, 2]]), 2)[0].tolist() == [[0, 0]]


def test_neighbours_of_all_watches_are_summed_best_first_and_padded(three_users, make_context):
    rows, scores = three_users.nominate(make_context(watched=[[2, 3], [3], [4], []]), 3)
    # Of 2 and 3: video 1 has 0.8165 + 0.5774 = 1.3939; 2 and 3 are each other's neighbours with 0.7071.
    assert rows.tolist() == [[1, 2, 3], [2, 1, 0], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(scores, [[1.3939, 0.7071, 0.7071], [0.7071, 0.5774, 0], [0, 0, 0], [0, 0, 0]], atol=1e-4)


@pytest.mark.parametrize("k", [1, 3, 9])
def test_what_is_related_to_watches_is_what_their_watchers_are_nominated(three_users, make_context, k):
    context = make_context(watched=[[2, 3], [3], [4], [], [1] * 50 + [3]])
    for one, other in zip(three_users.nominate(context, k), three_users.related(context.watched_row, k), strict=True):
        np.testing.assert_array_equal(one, other)
    assert three_users.related(np.array([[2, 3]]), 1)[0].tolist() == [[1]]


def test_nothing_is_related_to_no_watches(three_users):
    rows, scores = three_users.related(np.zeros((2, 0), dtype=np.int64), 3)
    assert rows.tolist() == [[0, 0, 0]] * 2 and not scores.any()


def test_the_list_ends_after_k(three_users, make_context):
    assert three_users.nominate(make_context(watched=[[2, 3]]), 1)[0].tolist() == [[1]]


def test_only_the_last_fifty_watches_nominate(three_users, make_context):
    newest_fifty_of_no_use = [[4] * 50 + [3], [4] * 49 + [3, 2]]
    rows, _ = three_users.nominate(make_context(watched=newest_fifty_of_no_use), 1)
    assert rows.tolist() == [[0], [2]]


def test_an_opened_source_nominates_the_same(three_users, make_context, tmp_path):
    three_users.save(tmp_path)
    context = make_context(watched=[[2, 3], [1]])
    for one, other in zip(CoWatch.open(tmp_path).nominate(context, 4), three_users.nominate(context, 4), strict=True):
        np.testing.assert_array_equal(one, other)


def test_it_is_a_candidate_source(three_users):
    assert isinstance(three_users, CandidateSource)
    assert three_users.name == "co_watch"
