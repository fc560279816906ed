from itertools import pairwise

import numpy as np
import pytest

from watchnext.simulation.settings import WorldConfig
from watchnext.simulation.visits import Visits, taste_at, visits_of_day
from watchnext.simulation.world import World

START, DAY = 1_699_920_000, 86_400
VISITS_BY_HOUR = [3, 2, 1, 1, 1, 2, 4, 6, 7, 6, 6, 7, 8, 8, 7, 7, 8, 10, 13, 15, 16, 14, 10, 6]


@pytest.fixture(scope="module")
def crowd() -> World:
    """So many users that hardly any comes twice in an hour."""
    return World.build(WorldConfig(videos=100, users=200_000, days=8))


@pytest.fixture(scope="module")
def visits(crowd: World) -> Visits:
    return visits_of_day(crowd, 5, 9_000, np.random.default_rng(0))


@pytest.fixture(scope="module")
def sessions(visits: Visits) -> list[Visits]:
    """One user's pages with less than an hour between them."""
    order = np.lexsort((visits.moment, visits.user))
    ordered = Visits(visits.user[order], visits.moment[order], visits.topic[order])
    begins = np.flatnonzero((np.diff(ordered.user) != 0) | (np.diff(ordered.moment) > 3_600)) + 1
    bounds = [0, *begins.tolist(), len(ordered)]
    return [ordered.part(slice(low, high)) for low, high in pairwise(bounds)]


def chi_square(observed: np.ndarray, shares: np.ndarray) -> float:
    expected = shares / shares.sum() * observed.sum()
    return float((np.square(observed - expected) / expected).sum())


@pytest.mark.parametrize("num_pages", [1, 2, 3, 17, 100])
@pytest.mark.parametrize("seed", range(4))
def test_a_day_has_the_wanted_number_of_pages(small_world: World, num_pages: int, seed: int) -> None:
    assert len(visits_of_day(small_world, 0, num_pages, np.random.default_rng(seed))) == num_pages


def test_pages_come_in_time_order(visits: Visits) -> None:
    assert (np.diff(visits.moment) >= 0).all()


def test_sessions_begin_within_their_day_and_may_end_after_it(visits: Visits, sessions: list[Visits]) -> None:
    begins = np.array([session.moment[0] for session in sessions]) - START
    # Two seconds are left for a search before the very first page.
    assert begins.min() >= 5 * DAY + 2 and begins.max() < 6 * DAY + 2
    last = visits.moment[-1] - START
    assert 6 * DAY < last < 6 * DAY + 2 * 3_600


def test_sessions_begin_at_the_hours_that_people_have_time(sessions: list[Visits]) -> None:
    hours = [int(session.moment[0] - 2 - START) % DAY // 3_600 for session in sessions]
    observed = np.bincount(hours, minlength=24)
    # 23 degrees of freedom: a right one exceeds 65 once in 100,000 seeds.
    assert chi_square(observed, np.array(VISITS_BY_HOUR)) < 65 < chi_square(observed, np.ones(24))


def test_a_session_has_three_pages_on_average_and_often_one(sessions: list[Visits]) -> None:
    # Geometric: mean 3, standard deviation 2.45; a third of 3,000 sessions has one page.
    sizes = np.array([len(session) for session in sessions])
    assert sizes.mean() == pytest.approx(3.0, abs=0.2)
    assert (sizes == 1).mean() == pytest.approx(1 / 3, abs=0.04)


def test_between_the_pages_of_a_session_lie_four_minutes_on_average(sessions: list[Visits]) -> None:
    # One second more than an exponential of mean 240, rounded up: 241.5, with standard deviation 240.
    pauses = np.concatenate([np.diff(session.moment) for session in sessions])
    assert pauses.min() >= 2
    assert pauses.mean() == pytest.approx(241.5, abs=15)
    assert pauses.std() == pytest.approx(240, abs=30)


def test_users_come_as_often_as_they_are_active(small_world: World) -> None:
    visits = visits_of_day(small_world, 0, 30_000, np.random.default_rng(0))
    observed = np.bincount(visits.user, minlength=300)
    expected = 30_000 * np.diff(small_world.audience.activity, prepend=0.0)
    # Pages come in sessions: the variance is E[n²] / E[n] = 15 / 3 times that of single pages.
    assert (np.abs(observed - expected) <= 4.5 * np.sqrt(5 * expected) + 10).all()
    assert expected.max() > 20 * np.median(expected)


def test_only_the_first_page_of_a_session_answers_a_search(sessions: list[Visits]) -> None:
    later = np.concatenate([session.topic[1:] for session in sessions])
    # Some fifteen of 3,000 sessions follow another of the same user within an hour and are taken for one.
    assert len(later) > 5_000 and (later >= 0).sum() < 15
    assert sum(session.topic[0] >= 0 for session in sessions) > 500


def test_sessions_begin_with_a_search_at_the_rate_of_their_user(crowd: World, sessions: list[Visits]) -> None:
    rate = crowd.audience.users["search_rate"][[session.user[0] for session in sessions]].astype(float)
    searched = np.array([session.topic[0] >= 0 for session in sessions])
    assert not searched[rate == 0].any()
    deviation = np.sqrt((rate * (1 - rate)).sum())
    assert abs(searched.sum() - rate.sum()) < 4.5 * deviation
    often, seldom = searched[rate > 0.5].mean(), searched[(rate > 0) & (rate <= 0.5)].mean()
    assert often == pytest.approx(0.65, abs=0.08) and seldom == pytest.approx(0.35, abs=0.08)


def test_searches_are_for_the_users_tastes_of_a_week_later(crowd: World) -> None:
    # On the first of eight days; a week later the third taste is almost gone and the fourth has almost come.
    visits = visits_of_day(crowd, 0, 9_000, np.random.default_rng(2))
    user, topic = visits.user[visits.searched], visits.topic[visits.searched]
    is_taste = crowd.audience.users["tastes"][user] == topic[:, None]
    assert is_taste.any(axis=1).all()
    progress = (visits.moment[visits.searched] + 7 * DAY - START) / (8 * DAY)
    weights = np.stack([np.ones(len(user)), np.full(len(user), 0.7), 0.9 - 0.9 * progress, 0.9 * progress], axis=1)
    weights = np.maximum(weights, 0.0) / np.maximum(weights, 0.0).sum(axis=1, keepdims=True)
    # 3 degrees of freedom: a right one exceeds 25 once in 60,000 seeds; the tastes of the day itself by far.
    assert chi_square(is_taste.sum(axis=0), weights.sum(axis=0)) < 25


def test_a_search_is_made_two_seconds_before_its_page_and_not_before_the_day(visits: Visits) -> None:
    moments = visits.search_moment(visits.searched)
    assert (moments == visits.moment[visits.searched] - 2).all()
    assert moments.min() >= START + 5 * DAY


def test_searched_are_the_places_of_pages_with_a_topic() -> None:
    visits = Visits(np.array([4, 5, 6]), np.array([10, 20, 30]), np.array([0, -1, 7]))
    assert visits.searched.tolist() == [0, 2]
    assert visits.search_moment(np.array([2, 0])).tolist() == [28, 8]


def test_a_part_has_all_columns_of_its_pages() -> None:
    part = Visits(np.array([4, 5, 6]), np.array([10, 20, 30]), np.array([0, -1, 7])).part(slice(1, 9))
    assert (part.user.tolist(), part.moment.tolist(), part.topic.tolist()) == ([5, 6], [20, 30], [-1, 7])
    assert len(part) == 2


# Weights 1, 0.7, 0.9 (1 - progress) and 0.9 progress, of a log of eight days.
@pytest.mark.parametrize(
    ("day", "shares"),
    [(0, [1.0, 0.7, 0.9, 0.0]), (2, [1.0, 0.7, 0.675, 0.225]), (8, [1.0, 0.7, 0.0, 0.9]), (20, [1.0, 0.7, 0.0, 0.9])],
)
def test_tastes_are_drawn_by_how_much_they_count(small_world: World, day: int, shares: list[float]) -> None:
    user, moment = np.full(20_000, 11), np.full(20_000, START + day * DAY)
    topics = taste_at(small_world, user, moment, np.random.default_rng(0))
    tastes = small_world.audience.users["tastes"][11]
    observed = np.array([(topics == taste).sum() for taste in tastes])
    assert observed.sum() == 20_000
    possible = np.array(shares) > 0
    assert not observed[~possible].any()
    assert chi_square(observed[possible], np.array(shares)[possible]) < 25  # 3 degrees of freedom


def test_everybody_gets_a_taste_of_their_own(small_world: World) -> None:
    user = np.arange(300)
    topics = taste_at(small_world, user, START + user * 2_000, np.random.default_rng(0))
    assert (small_world.audience.users["tastes"] == topics[:, None]).any(axis=1).all()


def test_the_same_draws_make_the_same_visits(small_world: World) -> None:
    first, again, other = (visits_of_day(small_world, 1, 50, np.random.default_rng(seed)) for seed in (3, 3, 4))
    for column in ("user", "moment", "topic"):
        assert (getattr(first, column) == getattr(again, column)).all()
        assert (getattr(first, column) != getattr(other, column)).any()
