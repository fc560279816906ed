from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from watchnext.retrieval.candidates import CandidateSource
from watchnext.retrieval.trending import Trending

BEGAN, HOUR, YEAR = 1_700_000_000, 3_600, 365 * 86_400


@pytest.fixture
def lists_at(make_context):
    """Nominates as of some seconds after the beginning."""

    def nominated(trending: Trending, seconds: list[float], k: int) -> tuple[list, list]:
        moments = BEGAN + np.array(seconds, dtype=np.int64)
        rows, scores = trending.nominate(make_context(watched=[[]] * len(seconds), moment=moments), k)
        assert rows.shape == scores.shape == (len(seconds), k) and rows.dtype == np.int64
        return rows.tolist(), scores.tolist()

    return nominated


def counted(watches: list[tuple[int, int]]) -> Trending:
    """Of videos watched at seconds after the beginning."""
    trending = Trending(BEGAN)
    for row, seconds in watches:
        trending.count(row, BEGAN + seconds)
    return trending


def test_a_watch_counts_half_after_six_hours(lists_at):
    # At twelve hours: video 5 was watched twice at the beginning, 2 · 1/4; video 7 six hours later, 1/2, as is video 3.
    trending = counted([(5, 0), (5, 0), (7, 6 * HOUR), (3, 12 * HOUR)])
    rows, scores = lists_at(trending, [12 * HOUR], 4)
    assert rows == [[3, 5, 7, 0]]
    assert scores == [pytest.approx([1.0, 0.5, 0.5, 0.0])]


def test_later_all_have_halved_alike(lists_at):
    trending = counted([(5, 0), (5, 0), (7, 6 * HOUR), (3, 12 * HOUR)])
    rows, scores = lists_at(trending, [18 * HOUR, 24 * HOUR], 2)
    assert rows == [[3, 5], [3, 5]]
    np.testing.assert_allclose(scores, [[0.5, 0.25], [0.25, 0.125]], rtol=1e-5)


@pytest.mark.parametrize("began", [0, 20 * YEAR])
def test_the_order_is_that_of_halving_every_watch_one_by_one(lists_at, began):
    random = np.random.default_rng(1)
    watches = [(int(row), began + int(at)) for row, at in random.integers((1, 0), (9, 20 * HOUR), (60, 2))]
    moment = began + 20 * HOUR
    expected = {row: sum(0.5 ** ((moment - at) / (6 * HOUR)) for one, at in watches if one == row) for row in range(9)}
    rows, scores = lists_at(counted(watches), [moment], 8)
    assert rows == [sorted(range(1, 9), key=lambda row: -expected[row])]
    np.testing.assert_allclose(scores[0], [expected[row] for row in rows[0]], rtol=1e-5)


def test_events_may_come_in_any_order(lists_at):
    watches = [(1, 9 * HOUR), (2, 0), (2, 4 * HOUR), (3, 7 * HOUR), (1, -HOUR)]
    found = [lists_at(counted(one), [10 * HOUR], 3) for one in (watches, watches[::-1])]
    assert found[0][0] == found[1][0]
    np.testing.assert_allclose(found[0][1], found[1][1])


def test_nothing_is_trending_before_anything_happened(lists_at):
    assert lists_at(Trending(BEGAN), [0, HOUR], 2) == ([[0, 0]] * 2, [[0.0, 0.0]] * 2)


def test_a_question_about_the_log_hears_nothing_of_what_came_after_it(lists_at):
    assert lists_at(counted([(5, 0)]), [-1, -YEAR, 0], 1) == ([[0], [0], [5]], [[0.0], [0.0], [1.0]])


def test_an_event_far_ahead_of_the_moment_has_a_finite_score(lists_at):
    rows, scores = lists_at(counted([(5, 30 * YEAR)]), [0], 1)
    assert rows == [[5]] and np.isfinite(scores[0][0])


def test_of_equals_the_smaller_row_is_first(lists_at):
    assert lists_at(counted([(9, 0), (4, 0), (6, 0)]), [HOUR], 3)[0] == [[4, 6, 9]]


def test_the_next_request_sees_a_watch(lists_at):
    trending = counted([(5, 0)])
    assert lists_at(trending, [HOUR], 1)[0] == [[5]]
    trending.count(6, BEGAN + HOUR)
    assert lists_at(trending, [HOUR], 1)[0] == [[6]]


def test_past_twenty_thousand_videos_the_lower_half_is_forgotten(lists_at):
    trending = counted([(row, row) for row in range(1, 20_002)])
    rows, _ = lists_at(trending, [7 * HOUR], 20_001)
    assert rows == [[*range(20_001, 10_000, -1), *[0] * 10_000]]


def test_twenty_thousand_videos_are_kept(lists_at):
    trending = counted([(row, row) for row in range(1, 20_001)])
    assert lists_at(trending, [7 * HOUR], 20_000)[0][0][-1] == 1


def test_no_watch_is_lost_among_threads(lists_at, make_context):
    trending, context = Trending(BEGAN), make_context(watched=[[]], moment=BEGAN)

    def count(row: int) -> None:
        for _ in range(2_000):
            trending.count(row, BEGAN)
            trending.nominate(context, 3)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, [1, 2, 3, 1]))
    rows, scores = lists_at(trending, [0], 3)
    assert rows == [[1, 2, 3]]
    np.testing.assert_allclose(scores[0], [4_000, 2_000, 2_000], rtol=1e-5)


def test_it_is_a_candidate_source():
    assert isinstance(Trending(BEGAN), CandidateSource)
    assert Trending(BEGAN).name == "trending"
