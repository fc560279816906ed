import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from watchnext.errors import RequestError
from watchnext.simulation.log import write_log
from watchnext.simulation.sessions import Arm, Ideal, PageRequest, first_requests, play
from watchnext.simulation.settings import WorldConfig
from watchnext.simulation.world import World

START, DAY = 1_699_920_000, 86_400

HandMade = Callable[..., World]


def request_of(user: int, moment: int = START, video: tuple[int, ...] = ()) -> PageRequest:
    """Somebody who was shown some videos of the log and watched each for 3 seconds."""
    timestamp = np.full(len(video), moment - 1)
    return PageRequest(user, moment, np.array(video, dtype=np.int64), timestamp, np.full(len(video), 3.0), ())


def with_pages_of(size: int, world: World) -> World:
    return dataclasses.replace(world, config=dataclasses.replace(world.config, page_size=size))


class Fixed:
    """Shows the same pages to everybody, in turn, and remembers what it was asked."""

    def __init__(self, *pages: list[int]) -> None:
        self.pages, self.asked, self.sizes = pages, [], set()

    def page(self, request: PageRequest, k: int) -> np.ndarray:
        self.asked.append(request)
        self.sizes.add(k)
        return np.array(self.pages[(len(self.asked) - 1) % len(self.pages)], dtype=np.int64)


class Anything:
    """Shows uploaded videos at random."""

    def __init__(self, world: World, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.uploaded = np.flatnonzero(world.catalogue.videos["uploaded_second"] < 8 * DAY)

    def page(self, request: PageRequest, k: int) -> np.ndarray:
        unseen = np.setdiff1d(self.uploaded, request.video)
        return self.random.choice(unseen, k, replace=False)


@pytest.fixture(scope="module")
def visitors(small_world: World, small_log: Path) -> list[PageRequest]:
    """The first requests of all 300 users."""
    return first_requests(small_world, small_log, 300, seed=1)


# First requests.


def slow_latest(folder: Path, user: int, value: str) -> list[tuple[int, object]]:
    """A user's latest 500 rows, oldest first: a loop over all rows of all files."""
    rows = []
    for file in sorted(folder.iterdir()):
        for row in pq.read_table(file).to_pylist():
            if row["user_id"] == user:
                rows.append((row["timestamp"], row.get("position", 0), row[value]))
    return [(timestamp, cell) for timestamp, _, cell in sorted(rows)[-500:]]


def test_visitors_bring_their_impressions_and_searches(small_log: Path, visitors: list[PageRequest]) -> None:
    heavy = sorted(visitors, key=lambda request: -len(request.video))[:3]
    for request in [*heavy, *visitors[:3]]:
        shown = list(zip(request.timestamp.tolist(), request.video.tolist(), strict=True))
        assert shown == slow_latest(small_log / "impressions", request.user, "video_id")
        assert request.watch_seconds.tolist() == [
            seconds for _, seconds in slow_latest(small_log / "impressions", request.user, "watch_seconds")
        ]
        assert list(request.searches) == slow_latest(small_log / "searches", request.user, "query")
    assert len(heavy[0].video) > 50 and any(request.searches for request in heavy)


def test_the_visitors_together_bring_the_whole_log(visitors: list[PageRequest]) -> None:
    assert sum(len(request.video) for request in visitors) == 3_007


def test_whoever_is_not_in_the_log_brings_nothing(visitors: list[PageRequest]) -> None:
    empty = [request for request in visitors if not len(request.video)]
    assert empty
    for request in empty:
        assert (len(request.timestamp), len(request.watch_seconds), request.searches) == (0, 0, ())


def test_at_most_500_impressions_are_kept_and_they_are_the_latest(tmp_path: Path) -> None:
    config = WorldConfig(videos=200, users=2, events=1_803, days=6, page_size=3, search_share=1.0)
    write_log(config, tmp_path / "log", 2)
    requests = first_requests(World.build(config), tmp_path / "log", 2, seed=1)
    most = [len(request.video) for request in requests]
    assert max(most) == 500
    for request in requests:
        expected = slow_latest(tmp_path / "log" / "impressions", request.user, "video_id")
        assert list(zip(request.timestamp.tolist(), request.video.tolist(), strict=True)) == expected
        searches = slow_latest(tmp_path / "log" / "searches", request.user, "query")
        assert list(request.searches) == searches and len(searches) > 10


def test_every_visitor_comes_once_within_the_day_after_the_log(visitors: list[PageRequest]) -> None:
    assert sorted(request.user for request in visitors) == list(range(300))
    seconds = np.array([request.moment for request in visitors]) - (START + 8 * DAY)
    assert seconds.min() > 0 and seconds.max() <= DAY
    # Evenly over the day: standard deviation of the mean 1,440.
    assert seconds.mean() == pytest.approx(DAY / 2, abs=6_000)


def test_visitors_are_drawn_by_activity(small_world: World, small_log: Path) -> None:
    crowd = World.build(dataclasses.replace(small_world.config, users=5_000))
    drawn = [request.user for request in first_requests(crowd, small_log, 1_000, seed=3)]
    activity = np.diff(crowd.audience.activity, prepend=0.0)
    # Drawn one by one without replacement is a race of exponential clocks: who has rung by the time at which
    # 1,000 have? Each with probability 1 - exp(-activity × time), where these sum to 1,000.
    times = np.geomspace(100, 100_000, 20_000)
    time = times[np.searchsorted([(1 - np.exp(-activity * time)).sum() for time in times[::100]], 1_000) * 100]
    probability = 1 - np.exp(-activity * time)
    assert probability.sum() == pytest.approx(1_000, rel=0.05)
    chosen = np.isin(np.arange(5_000), drawn)
    for tenth in np.array_split(np.argsort(activity), 10):
        expected = probability[tenth].sum()
        assert abs(chosen[tenth].sum() - expected) < 4.5 * np.sqrt(expected) + 0.05 * expected
    assert chosen[np.argsort(activity)[-500:]].mean() > 5 * chosen[np.argsort(activity)[:2_500]].mean()


@pytest.mark.parametrize("num_visitors", [-1, 0, 301])
def test_an_impossible_number_of_visitors_is_refused(small_world: World, small_log: Path, num_visitors: int) -> None:
    with pytest.raises(RequestError, match=rf"visitors = {num_visitors}: between 1 and 300 was expected"):
        first_requests(small_world, small_log, num_visitors, seed=1)


def test_the_same_seed_brings_the_same_visitors(small_world: World, small_log: Path) -> None:
    first, again, other = (
        [(request.user, request.moment) for request in first_requests(small_world, small_log, 5, seed)]
        for seed in (7, 7, 8)
    )
    assert first == again != other


def test_nothing_in_a_visitors_past_is_later_than_the_visit(tmp_path: Path) -> None:
    config = WorldConfig(videos=600, users=300, events=100_000, days=2, topics=12, page_size=5, seed=3)
    write_log(config, tmp_path / "log", 2)
    world = World.build(config)
    for seed in range(3):
        for request in first_requests(world, tmp_path / "log", 300, seed):
            assert (request.timestamp < request.moment).all()


# The next request.


def test_the_next_request_comes_ten_minutes_later_with_the_page_in_its_past() -> None:
    searches = ((START - 5, "bababa feklimo"),)
    request = dataclasses.replace(request_of(7, START + 100, video=(4, 5)), searches=searches)
    later = request.after(np.array([9, 8]), np.array([0.0, 12.5]))
    assert (later.user, later.moment, later.searches) == (7, START + 700, searches)
    assert later.video.tolist() == [4, 5, 9, 8]
    assert later.timestamp.tolist() == [START + 99, START + 99, START + 100, START + 100]
    assert later.watch_seconds.tolist() == [3.0, 3.0, 0.0, 12.5]
    assert request.video.tolist() == [4, 5]


# Play.


def test_an_arm_is_asked_for_every_page_with_the_last_one_in_the_past(small_world: World) -> None:
    arm = Fixed([1, 2, 3], [4, 5, 6], [7, 8, 9])
    play(
        with_pages_of(3, small_world),
        "fixed",
        arm,
        [request_of(11, START + DAY, video=(50,)), request_of(12)],
        3,
        seed=5,
    )
    assert arm.sizes == {3}
    assert [request.user for request in arm.asked] == [11] * 3 + [12] * 3
    assert [request.moment - START for request in arm.asked] == [DAY, DAY + 600, DAY + 1_200, 0, 600, 1_200]
    assert [request.video.tolist() for request in arm.asked] == [
        [50], [50, 1, 2, 3], [50, 1, 2, 3, 4, 5, 6], [], [1, 2, 3], [1, 2, 3, 4, 5, 6],
    ]  # fmt: skip
    assert (arm.asked[2].timestamp - START).tolist() == [DAY - 1, *[DAY] * 3, *[DAY + 600] * 3]


def test_earnings_are_the_watch_seconds_and_clicks_that_the_arm_is_told(small_world: World) -> None:
    # Sixty visitors, three pages; a fourth page is asked for so that the arm is told of the third.
    requests = [request_of(user, START + 7 * DAY) for user in range(60)]
    pages = [best_of(small_world, rank) for rank in range(4)]
    three = play(small_world, "fixed", Fixed(*pages[:3]), requests, 3, seed=5)
    told = Fixed(*pages)
    play(small_world, "fixed", told, requests, 4, seed=5)
    watched = [request.watch_seconds for request in told.asked[3::4]]
    np.testing.assert_allclose(three.watch_seconds, [seconds.sum() for seconds in watched], rtol=1e-5)
    assert three.clicks.tolist() == [(seconds > 0).sum() for seconds in watched]
    assert three.clicks.sum() > 30


def best_of(world: World, rank: int) -> list[int]:
    """Five videos that many like."""
    old = world.catalogue.videos["uploaded_second"] < 7 * DAY
    order = np.argsort(np.where(old, -world.catalogue.videos["appeal"], np.inf), kind="stable")
    return order[5 * rank : 5 * rank + 5].tolist()


def test_expected_earnings_are_the_worlds_expectations_at_each_place_and_moment(small_world: World) -> None:
    requests = [request_of(user, START + 2 * DAY) for user in (3, 200)]
    earned = play(with_pages_of(3, small_world), "fixed", Fixed([1, 2, 3], [4, 5, 6]), requests, 2, seed=5)
    for place, user in enumerate((3, 200)):
        expected = small_world.expected_watch_seconds(
            np.full(6, user), np.arange(1, 7), START + 2 * DAY + np.array([0, 0, 0, 600, 600, 600]),
            np.array([0, 1, 2, 0, 1, 2]),
        )  # fmt: skip
        assert earned.expected_watch_seconds[place] == pytest.approx(expected.sum(), rel=1e-5)


def test_visitors_watch_as_much_as_is_expected_of_them(small_world: World, visitors: list[PageRequest]) -> None:
    earned = play(small_world, "ideal", Ideal(small_world), visitors, 2, seed=2)
    deviation = earned.watch_seconds.std() * np.sqrt(300)
    assert abs(earned.watch_seconds.sum() - earned.expected_watch_seconds.sum()) < 4 * deviation
    assert deviation < 0.1 * earned.watch_seconds.sum()


def test_arms_that_show_the_same_earn_the_same(small_world: World) -> None:
    requests = [request_of(user, START + DAY) for user in range(40)]
    first, second = (
        play(small_world, name, Fixed(best_of(small_world, 0), best_of(small_world, 1)), requests, 2, seed=4)
        for name in ("one", "another")
    )
    for column in ("watch_seconds", "expected_watch_seconds", "clicks"):
        np.testing.assert_array_equal(getattr(first, column), getattr(second, column))
    assert first.clicks.sum() > 5


def test_luck_belongs_to_the_visitor_and_the_place_whatever_came_before(small_world: World) -> None:
    # Two arms differ on the first page only; on the second, visitors react the same. The visitors' order is nothing.
    requests = [request_of(user, START + DAY) for user in range(40)]
    arms = [Fixed(best_of(small_world, rank), best_of(small_world, 2), [0]) for rank in (0, 1)]
    for arm, order in zip(arms, (requests, requests[::-1]), strict=True):
        play(small_world, "arm", arm, order, 3, seed=4)
    seen = [{request.user: request.watch_seconds for request in arm.asked[2::3]} for arm in arms]
    assert all((seen[0][user][5:] == seen[1][user][5:]).all() for user in range(40))
    assert any((seen[0][user][:5] != seen[1][user][:5]).any() for user in range(40))


def test_luck_differs_between_visitors_pages_places_and_seeds(hand_made: HandMade) -> None:
    # Ten equal videos, shown to two equal users on two pages: alike if their luck were the same.
    world = hand_made([{"appeal": 8.0, "thumbnail": 2.0}] * 10)
    arm = Fixed(list(range(10)), list(range(10)), list(range(10)))
    for seed in (1, 2):
        play(world, "fixed", arm, [request_of(0), request_of(1)], 3, seed)
    pages = [
        tuple(arm.asked[3 * session + 2].watch_seconds[10 * page : 10 * page + 10])
        for session in range(4)
        for page in range(2)
    ]
    assert len(set(pages)) == 8
    assert all(len({seconds for seconds in page if seconds > 0}) == sum(s > 0 for s in page) > 1 for page in pages)


def test_more_pages_and_places_leave_the_luck_of_the_first_page(small_world: World) -> None:
    requests = [request_of(user, START + DAY) for user in range(40)]
    one = play(small_world, "one", Fixed(best_of(small_world, 0)), requests, 1, seed=4)
    arm = Fixed(best_of(small_world, 0), best_of(small_world, 1))
    play(small_world, "two", arm, requests, 2, seed=4)
    np.testing.assert_allclose([request.watch_seconds.sum() for request in arm.asked[1::2]], one.watch_seconds)


def test_a_short_page_earns_what_it_shows(small_world: World) -> None:
    requests = [request_of(user, START + DAY) for user in range(40)]
    whole, short = (
        play(small_world, "fixed", Fixed(best_of(small_world, 0)[:shown]), requests, 1, seed=4) for shown in (5, 2)
    )
    assert (short.watch_seconds <= whole.watch_seconds).all() and (short.clicks <= whole.clicks).all()
    assert 0 < short.clicks.sum() < whole.clicks.sum()
    assert (0 < short.expected_watch_seconds).all()
    assert (short.expected_watch_seconds < whole.expected_watch_seconds).all()


def test_a_past_keeps_its_latest_500_impressions() -> None:
    request = request_of(3, video=tuple(range(495))).after(np.arange(600, 610), np.ones(10, dtype=np.float32))
    assert request.video.tolist() == [*range(5, 495), *range(600, 610)]
    assert len(request.timestamp) == len(request.watch_seconds) == 500


def test_an_empty_page_earns_nothing(small_world: World) -> None:
    earned = play(small_world, "fixed", Fixed(np.zeros(0, dtype=np.int64)), [request_of(3)], 2, seed=4)
    assert [column.tolist() for column in dataclasses.astuple(earned)] == [[0.0], [0.0], [0.0]]


# Arms.


def test_what_gives_pages_is_an_arm(small_world: World) -> None:
    assert isinstance(Ideal(small_world), Arm) and isinstance(Fixed([1]), Arm)
    assert not isinstance(small_world, Arm)


def test_the_ideal_page_is_the_best_of_what_was_not_seen(small_world: World, visitors: list[PageRequest]) -> None:
    for request in visitors[:10]:
        page = Ideal(small_world).page(request, 5)
        assert page.tolist() == small_world.best(request.user, request.moment, 5, request.video).tolist()
        assert not set(page.tolist()) & set(request.video.tolist())


def test_on_the_first_page_no_arm_is_expected_to_earn_more_than_the_ideal(
    small_world: World, visitors: list[PageRequest]
) -> None:
    ideal = play(small_world, "ideal", Ideal(small_world), visitors, 1, seed=4).expected_watch_seconds
    for seed in range(3):
        other = play(small_world, "random", Anything(small_world, seed), visitors, 1, seed=4)
        assert (ideal >= other.expected_watch_seconds).all()
        assert ideal.sum() > 3 * other.expected_watch_seconds.sum()
