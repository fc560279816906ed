import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchnext.simulation import world as world_module
from watchnext.simulation.settings import WorldConfig
from watchnext.simulation.world import START_SECOND, World

START, DAY = 1_699_920_000, 86_400

# The formulas of world.py, stated a second time for the oracle: when the world is tuned, change these numbers alone.
CLICK_BASE, CLICK_AFFINITY, CLICK_APPEAL, CLICK_THUMBNAIL = -2.8, 3.5, 0.5, 0.6
CLICK_FRESHNESS, CLICK_FOREIGN, CLICK_POSITION = 0.6, -2.0, -0.25
NEXT_IN_ORDER, OUT_OF_ORDER = 3.0, -1.0
WATCHED_BASE, WATCHED_AFFINITY, WATCHED_QUALITY = -0.6, 2.0, 0.8
WATCHED_LONGER, WATCHED_ON_TV, WATCHED_LONGER_ON_PHONE = -0.8, 0.4, -0.3
FIRST_TASTE, SECOND_TASTE, FADING_TASTE, GROWING_TASTE = 1.0, 0.7, 0.9, 0.9
OLD_POPULARITY, POPULARITY_OF_APPEAL = 0.15, 1.2
PHONE, DESKTOP, TV = 0, 1, 2

HandMade = Callable[..., World]


def logistic(logit: float) -> float:
    return 1.0 / (1.0 + math.exp(-logit))


def logit(probability: np.ndarray) -> np.ndarray:
    probability = np.asarray(probability, dtype=float)
    return np.log(probability / (1.0 - probability))


def slow_freshness(age_days: float, rise_days: float) -> float:
    if age_days < 0:
        return 0.0
    age = age_days / rise_days
    return OLD_POPULARITY + (1.0 - OLD_POPULARITY) * age * math.exp(1.0 - age)


def slow_affinity(world: World, user: int, video: int, moment: int) -> float:
    person, shown = world.audience.users[user], world.catalogue.videos[video]
    progress = min(max((moment - START) / (world.config.days * DAY), 0.0), 1.0)
    weights = (FIRST_TASTE, SECOND_TASTE, FADING_TASTE * (1.0 - progress), GROWING_TASTE * progress)
    affinity, main = 0.0, float(shown["main_weight"])
    for taste, weight in zip(person["tastes"].tolist(), weights, strict=True):
        affinity += weight * main if taste == shown["main_topic"] else 0.0
        affinity += weight * (1.0 - main) if taste == shown["second_topic"] else 0.0
    return min(affinity, 1.0)


def slow_wish(world: World, user: int, video: int, moment: int) -> float:
    """+3 for what comes next in a followed channel, -1 for its other videos."""
    person, channel = world.audience.users[user], int(world.catalogue.videos[video]["channel"])
    wish = 0.0
    for nth in range(2):
        if person["followed"][nth] == channel:
            days = (moment - START) / DAY - float(person["joined_day"][nth])
            place = math.floor(float(person["places_a_day"][nth]) * days)
            is_next = video == world.catalogue.channels["first"][channel] + place
            wish += NEXT_IN_ORDER if is_next else OUT_OF_ORDER
    return wish


def slow_click(world: World, user: int, video: int, moment: int, position: int) -> float:
    person, shown = world.audience.users[user], world.catalogue.videos[video]
    freshness = slow_freshness((moment - START - int(shown["uploaded_second"])) / DAY, world.config.rise_days)
    if freshness == 0.0:
        return 0.0
    return logistic(
        CLICK_BASE
        + CLICK_AFFINITY * slow_affinity(world, user, video, moment)
        + CLICK_APPEAL * float(shown["appeal"])
        + CLICK_THUMBNAIL * float(shown["thumbnail"])
        + CLICK_FRESHNESS * math.log(freshness)
        + (CLICK_FOREIGN if person["language"] != shown["language"] else 0.0)
        + slow_wish(world, user, video, moment)
        + CLICK_POSITION * math.log2(position + 1)
    )


def slow_fraction(world: World, user: int, video: int, moment: int) -> float:
    person, shown = world.audience.users[user], world.catalogue.videos[video]
    longer = math.log(float(shown["duration_seconds"]) / 240.0)
    return logistic(
        WATCHED_BASE
        + WATCHED_AFFINITY * slow_affinity(world, user, video, moment)
        + WATCHED_QUALITY * float(shown["quality"])
        + WATCHED_LONGER * longer
        + (WATCHED_ON_TV if person["device"] == TV else 0.0)
        + (WATCHED_LONGER_ON_PHONE * longer if person["device"] == PHONE else 0.0)
    )


@dataclasses.dataclass(frozen=True)
class Impressions:
    """Who was shown what, when and where: as many followers near their place as strangers."""

    user: np.ndarray
    video: np.ndarray
    moment: np.ndarray
    position: np.ndarray

    def tuples(self) -> list[tuple[int, int, int, int]]:
        columns = (self.user, self.video, self.moment, self.position)
        return list(zip(*(column.tolist() for column in columns), strict=True))


def impressions_of(world: World, count: int, seed: int = 0) -> Impressions:
    random = np.random.default_rng(seed)
    user = random.integers(0, world.config.users, 2 * count)
    video = random.integers(0, world.config.videos, 2 * count)
    moment = START + random.integers(-3 * DAY, (world.config.days + 3) * DAY, 2 * count)
    followers = np.flatnonzero((world.audience.users["followed"] >= 0).any(axis=1))
    user[:count] = random.choice(followers, count)
    next_video = world.next_in_order(user, moment).max(axis=1)
    near = np.clip(next_video + random.integers(-1, 2, 2 * count), 0, world.config.videos - 1)
    video = np.where(next_video >= 0, near, video)
    return Impressions(user, video, moment, random.integers(0, 50, 2 * count))


# Two topics only: a user's tastes repeat, and both may bring the same channel.
WORLDS = (
    WorldConfig(videos=600, users=300, events=3_000, days=8, topics=12, page_size=5, seed=2),
    WorldConfig(videos=400, users=60, days=30, topics=2, rise_days=0.7, seed=8),
)


@pytest.fixture(scope="module", params=WORLDS, ids=["twelve topics", "two topics"])
def judged(request: pytest.FixtureRequest) -> tuple[World, Impressions]:
    world = World.build(request.param)
    return world, impressions_of(world, 1_000)


def test_the_log_begins_at_a_midnight_of_november_2023() -> None:
    assert START_SECOND == START == np.datetime64("2023-11-14").astype("datetime64[s]").astype(int)


def test_the_log_ends_after_its_days(small_world: World) -> None:
    assert small_world.end_second == START + 8 * DAY


# Oracle: a slow scalar version of every formula.


def test_the_judged_impressions_hold_every_case(judged: tuple[World, Impressions]) -> None:
    world, shown = judged
    wishes = [slow_wish(world, user, video, moment) for user, video, moment, _ in shown.tuples()]
    assert wishes.count(3.0) > 100 and wishes.count(-1.0) > 200 and wishes.count(0.0) > 500
    unborn = world.catalogue.videos["uploaded_second"][shown.video] > shown.moment - START
    assert unborn.sum() > 100


def test_affinity_is_that_of_the_slow_version(judged: tuple[World, Impressions]) -> None:
    world, shown = judged
    slow = [slow_affinity(world, user, video, moment) for user, video, moment, _ in shown.tuples()]
    np.testing.assert_allclose(world.affinity(shown.user, shown.video, shown.moment), slow, atol=2e-6)


def test_click_probabilities_are_those_of_the_slow_version(judged: tuple[World, Impressions]) -> None:
    world, shown = judged
    clicks = world.click_probability(shown.user, shown.video, shown.moment, shown.position)
    np.testing.assert_allclose(clicks, [slow_click(world, *place) for place in shown.tuples()], rtol=3e-5)


def test_expected_watch_seconds_are_those_of_the_slow_version(judged: tuple[World, Impressions]) -> None:
    world, shown = judged
    seconds = world.expected_watch_seconds(shown.user, shown.video, shown.moment, shown.position)
    slow = [
        slow_click(world, user, video, moment, position)
        * slow_fraction(world, user, video, moment)
        * float(world.catalogue.videos["duration_seconds"][video])
        for user, video, moment, position in shown.tuples()
    ]
    np.testing.assert_allclose(seconds, slow, rtol=5e-5)


def test_popularity_is_that_of_the_slow_version(judged: tuple[World, Impressions]) -> None:
    world, shown = judged
    videos = world.catalogue.videos[shown.video]
    slow = [
        math.exp(POPULARITY_OF_APPEAL * float(video["appeal"]))
        * slow_freshness((moment - START - int(video["uploaded_second"])) / DAY, world.config.rise_days)
        for video, moment in zip(videos, shown.moment.tolist(), strict=True)
    ]
    popularity = world.popularity(videos["appeal"], videos["uploaded_second"], shown.moment)
    np.testing.assert_allclose(popularity, slow, rtol=3e-5)


def test_the_first_place_is_the_default(judged: tuple[World, Impressions]) -> None:
    world, shown = judged
    who = (shown.user, shown.video, shown.moment)
    np.testing.assert_array_equal(world.click_probability(*who), world.click_probability(*who, 0))
    np.testing.assert_array_equal(world.expected_watch_seconds(*who), world.expected_watch_seconds(*who, 0))


# Property: arguments broadcast, and every impression is judged by itself.


@settings(max_examples=25)
@given(
    st.lists(st.integers(0, 299), min_size=1, max_size=4),
    st.lists(st.integers(0, 599), min_size=1, max_size=4),
    st.lists(st.integers(-DAY, 10 * DAY), min_size=1, max_size=3),
    st.integers(0, 49),
)
def test_broadcast_impressions_equal_those_one_by_one(
    small_world: World, users: list[int], videos: list[int], seconds: list[int], position: int
) -> None:
    user, video, moment = np.array(users)[:, None, None], np.array(videos)[:, None], START + np.array(seconds)
    together = small_world.expected_watch_seconds(user, video, moment, position)
    assert together.shape == (len(users), len(videos), len(seconds))
    for at in np.ndindex(together.shape):
        one = small_world.expected_watch_seconds(
            np.array([users[at[0]]]), np.array([videos[at[1]]]), moment[[at[2]]], np.array([position])
        )
        np.testing.assert_allclose(together[at], one[0], rtol=1e-6)


@pytest.mark.parametrize("method", ["click_probability", "expected_watch_seconds", "affinity"])
def test_one_user_at_one_moment_meets_many_videos(small_world: World, method: str) -> None:
    videos = np.arange(600)
    one = getattr(small_world, method)(np.array([7]), videos, np.array([START + DAY]))
    many = getattr(small_world, method)(np.full(600, 7), videos, np.full(600, START + DAY))
    np.testing.assert_allclose(one, many, rtol=1e-6)


def test_a_permutation_of_the_impressions_permutes_the_answers(judged: tuple[World, Impressions]) -> None:
    world, shown = judged
    order = np.random.default_rng(0).permutation(len(shown.user))
    columns = (shown.user, shown.video, shown.moment, shown.position)
    luck = np.random.default_rng(1).random((2, len(order)), dtype=np.float32)
    for method in (world.click_probability, world.expected_watch_seconds):
        shuffled = method(*(column[order] for column in columns))
        np.testing.assert_allclose(shuffled, method(*columns)[order], rtol=1e-6)
    shuffled = world.outcome(*(column[order] for column in columns), luck[:, order])
    np.testing.assert_allclose(shuffled, world.outcome(*columns, luck)[order], rtol=1e-5)


# By hand, and effects.


def of_one(world: World, user: int = 0, video: int = 0, day: float = 0.0, position: int = 0) -> tuple[float, float]:
    """Gives the click logit and the logit of the mean watched fraction."""
    who = (np.array([user]), np.array([video]), np.array([START + int(day * DAY)]), np.array([position]))
    clicks, seconds = world.click_probability(*who), world.expected_watch_seconds(*who)
    fraction = seconds / clicks / world.catalogue.videos["duration_seconds"][[video]]
    return float(logit(clicks)[0]), float(logit(fraction)[0])


def difference(hand_made: HandMade, video: dict[str, Any] | None = None, user: dict[str, Any] | None = None) -> Any:
    """Gives what a change of the plain video, or of its plain viewer, adds to both logits."""
    world = hand_made([{}, video or {}], [{}, user or {}])
    return pytest.approx(
        np.subtract(of_one(world, int(user is not None), int(video is not None)), of_one(world)), abs=1e-4
    )


def test_a_plain_video_at_its_best_and_a_stranger_have_the_base_logits(hand_made: HandMade) -> None:
    assert of_one(hand_made()) == pytest.approx((CLICK_BASE, WATCHED_BASE), abs=1e-4)


def test_a_thumbnail_draws_clicks_but_not_the_watched_fraction(hand_made: HandMade) -> None:
    assert (CLICK_THUMBNAIL, 0.0) == difference(hand_made, {"thumbnail": 1.0})
    assert CLICK_THUMBNAIL > 0


def test_quality_keeps_viewers_but_draws_no_clicks(hand_made: HandMade) -> None:
    assert (0.0, WATCHED_QUALITY) == difference(hand_made, {"quality": 1.0})
    assert WATCHED_QUALITY > 0


def test_appeal_draws_clicks_but_not_the_watched_fraction(hand_made: HandMade) -> None:
    assert (2 * CLICK_APPEAL, 0.0) == difference(hand_made, {"appeal": 2.0})
    assert CLICK_APPEAL > 0


def test_a_foreign_language_is_clicked_less(hand_made: HandMade) -> None:
    assert (CLICK_FOREIGN, 0.0) == difference(hand_made, {"language": 2})
    assert (CLICK_FOREIGN, 0.0) == difference(hand_made, user={"language": 2})
    assert CLICK_FOREIGN < 0


def test_a_longer_video_is_watched_to_a_smaller_part(hand_made: HandMade) -> None:
    assert (0.0, WATCHED_LONGER) == difference(hand_made, {"duration_seconds": 240.0 * math.e})
    assert WATCHED_LONGER < 0


def test_on_a_tv_more_is_watched(hand_made: HandMade) -> None:
    assert (0.0, WATCHED_ON_TV) == difference(hand_made, user={"device": TV})
    assert WATCHED_ON_TV > 0


@pytest.mark.parametrize("times", [math.e, 1.0 / math.e])
def test_on_a_phone_long_videos_are_watched_to_a_still_smaller_part_and_short_ones_to_a_larger(
    hand_made: HandMade, times: float
) -> None:
    video, phone = {"duration_seconds": 240.0 * times}, {"device": PHONE}
    on_desktop, on_phone = (of_one(hand_made([video], [user]))[1] for user in ({}, phone))
    assert on_phone - on_desktop == pytest.approx(WATCHED_LONGER_ON_PHONE * math.log(times), abs=1e-4)
    assert WATCHED_LONGER_ON_PHONE < 0


# log2(position + 1): 0, 1, 2, 3 and 5.
@pytest.mark.parametrize(("position", "steps"), [(0, 0), (1, 1), (3, 2), (7, 3), (31, 5)])
def test_a_later_place_is_clicked_less_and_watched_as_much(hand_made: HandMade, position: int, steps: int) -> None:
    click, fraction = of_one(hand_made(), position=position)
    assert click == pytest.approx(CLICK_BASE + steps * CLICK_POSITION, abs=1e-4)
    assert fraction == pytest.approx(WATCHED_BASE, abs=1e-4)
    assert CLICK_POSITION < 0


def test_a_video_of_the_first_taste_gains_the_whole_affinity(hand_made: HandMade) -> None:
    assert (CLICK_AFFINITY, WATCHED_AFFINITY) == difference(hand_made, {"main_topic": 6})


def test_affinities_of_two_topics_are_mixed_and_never_more_than_one(hand_made: HandMade) -> None:
    # Main topic with weight 0.75, second with 0.25; tastes 6 and 7 count 1 and 0.7, taste 8 counts 0.9 at the start.
    videos = [
        {"main_topic": 6, "second_topic": 7, "main_weight": 0.75},  # 0.75 + 0.25 * 0.7
        {"main_topic": 0, "second_topic": 7, "main_weight": 0.75},  # 0.25 * 0.7
        {"main_topic": 8, "second_topic": 8, "main_weight": 0.75},  # 0.9
        {"main_topic": 0, "second_topic": 1, "main_weight": 0.75},  # nothing
    ]
    world = hand_made(videos, [{}, {"tastes": (6, 6, 6, 6)}])
    start = np.array([START])
    expected = [0.925, 0.175, 0.9, 0.0]
    np.testing.assert_allclose(world.affinity(np.array([0]), np.arange(4), start), expected, rtol=1e-6)
    np.testing.assert_allclose(world.affinity(np.array([1]), np.arange(4), start), [1.0, 0.0, 0.0, 0.0], rtol=1e-6)


# Ten days; the clock stands still before the log and after it.
@pytest.mark.parametrize(("day", "progress"), [(-5.0, 0.0), (0.0, 0.0), (2.5, 0.25), (10.0, 1.0), (12.0, 1.0)])
def test_two_tastes_stay_the_third_fades_and_the_fourth_grows(hand_made: HandMade, day: float, progress: float) -> None:
    weights = hand_made().taste_weights(np.array([START + int(day * DAY)]))
    expected = [FIRST_TASTE, SECOND_TASTE, FADING_TASTE * (1 - progress), GROWING_TASTE * progress]
    np.testing.assert_allclose(weights, [expected], atol=1e-6)


def test_a_fading_taste_is_clicked_less_day_by_day_and_a_growing_one_more(hand_made: HandMade) -> None:
    # Videos so old that their freshness no longer changes.
    old = {"uploaded_second": -300 * DAY}
    world = hand_made([{"main_topic": 8, **old}, {"main_topic": 9, **old}, {"main_topic": 6, **old}])
    days = START + np.arange(11) * DAY
    fading, growing, lasting = (world.click_probability(np.array([0]), np.array([row]), days) for row in range(3))
    assert (np.diff(fading) < 0).all() and (np.diff(growing) > 0).all()
    np.testing.assert_allclose(lasting, lasting[0], rtol=1e-4)


@pytest.mark.parametrize("rise_days", [0.5, 4.0, 30.0])
def test_freshness_rises_to_1_exactly_at_rise_days(hand_made: HandMade, rise_days: float) -> None:
    freshness = hand_made(rise_days=rise_days).freshness
    assert freshness(np.array([rise_days]))[0] == pytest.approx(1.0, abs=1e-6)
    rising, falling = (freshness(rise_days * np.linspace(*span, 50)) for span in ((0.0, 1.0), (1.0, 12.0)))
    assert (np.diff(rising) > 0).all() and (np.diff(falling) < 0).all()


def test_freshness_is_0_before_the_upload_and_a_share_at_it_and_long_after(hand_made: HandMade) -> None:
    # At the upload itself, and after a year, what a video keeps; twice rise_days: 2 / e of the rest more.
    keeps = OLD_POPULARITY
    expected = [0.0, 0.0, keeps, keeps + (1 - keeps) * 2 / math.e, keeps]
    age_days = np.array([-100.0, -1e-5, 0.0, 8.0, 365.0])
    np.testing.assert_allclose(hand_made(rise_days=4.0).freshness(age_days), expected, atol=1e-6)


def test_a_video_is_clicked_from_the_second_of_its_upload_and_never_before(hand_made: HandMade) -> None:
    world = hand_made([{"uploaded_second": 5 * DAY, "main_topic": 6, "appeal": 5.0}])
    moments = START + 5 * DAY + np.array([-4 * DAY, -1, 0, 1])
    clicks = world.click_probability(np.array([0]), np.array([0]), moments)
    seconds = world.expected_watch_seconds(np.array([0]), np.array([0]), moments)
    assert (clicks > 0).tolist() == (seconds > 0).tolist() == [False, False, True, True]
    luck = np.stack([np.zeros(4), np.ones(4)])
    assert (world.outcome(np.array([0]), np.array([0]), moments, 0, luck) > 0).tolist() == [False, False, True, True]


def test_a_fresher_video_is_clicked_more(hand_made: HandMade) -> None:
    # Four days old, and one day: freshness 1 and 0.15 + 0.85 * 0.25 * e^0.75 = 0.59986.
    world = hand_made([{}, {"uploaded_second": -DAY}])
    young = slow_freshness(1.0, 4.0)
    assert of_one(world, video=1)[0] - of_one(world)[0] == pytest.approx(CLICK_FRESHNESS * math.log(young), abs=1e-4)
    assert of_one(world, video=1)[1] == pytest.approx(of_one(world)[1], abs=1e-4)


# A channel of five videos, rows 2 to 6, that the user began on day 1 and watches two a day of.
FOLLOWED = {
    "channels": [{"first": 0, "size": 2}, {"first": 2, "size": 5, "kind": 1}, {"first": 7, "size": 93}],
    "videos": [{"channel": 0}] * 2 + [{"channel": 1}] * 5 + [{"channel": 2}] * 3,
    "users": [{"followed": (-1, 1), "joined_day": (0.0, 1.0), "places_a_day": (1.0, 2.0)}],
}


@pytest.mark.parametrize(
    ("day", "next_video"), [(0.0, -1), (0.99, -1), (1.0, 2), (1.4, 2), (1.5, 3), (3.4, 6), (3.5, -1), (9.0, -1)]
)
def test_a_followers_next_video_moves_on_by_one_from_the_first_to_the_last(
    hand_made: HandMade, day: float, next_video: int
) -> None:
    world = hand_made(**FOLLOWED)
    moment = np.array([START + round(day * DAY)])
    assert world.next_in_order(np.array([0]), moment).tolist() == [[-1, next_video]]
    assert world.next_in_order(np.array([1]), moment).tolist() == [[-1, -1]]


@pytest.mark.parametrize("kind", [1, 2])
def test_a_follower_wants_what_comes_next_and_the_other_videos_of_the_channel_less(
    hand_made: HandMade, kind: int
) -> None:
    channels = [dict(channel, kind=kind) if "kind" in channel else channel for channel in FOLLOWED["channels"]]
    world = hand_made(**{**FOLLOWED, "channels": channels})
    follower, stranger = (
        logit(world.click_probability(np.array([user]), np.arange(10), np.array([START + 2 * DAY]))) for user in (0, 1)
    )
    # Day 2: two videos are done, the third of the channel, row 4, comes next.
    expected = [0, 0, OUT_OF_ORDER, OUT_OF_ORDER, NEXT_IN_ORDER, OUT_OF_ORDER, OUT_OF_ORDER, 0, 0, 0]
    np.testing.assert_allclose(follower - stranger, expected, atol=1e-4)
    assert OUT_OF_ORDER < 0 < NEXT_IN_ORDER


@pytest.mark.parametrize("day", [0.5, 7.0])
def test_before_the_beginning_and_after_the_end_a_follower_wants_none_of_the_channel(
    hand_made: HandMade, day: float
) -> None:
    world = hand_made(**FOLLOWED)
    moment = np.array([START + int(day * DAY)])
    follower, stranger = (logit(world.click_probability(np.array([user]), np.arange(2, 7), moment)) for user in (0, 1))
    np.testing.assert_allclose(follower - stranger, [OUT_OF_ORDER] * 5, atol=1e-4)


def test_both_followed_channels_go_on_side_by_side(hand_made: HandMade) -> None:
    both = {**FOLLOWED, "users": [{"followed": (1, 1), "joined_day": (0.0, 1.0), "places_a_day": (0.5, 1.0)}]}
    world = hand_made(**both)
    assert world.next_in_order(np.array([0, 0]), START + np.array([2, 4]) * DAY).tolist() == [[3, 3], [4, 5]]


def test_in_a_built_world_the_next_video_is_the_episode_after_the_last(small_world: World) -> None:
    moments = START + np.arange(0, 8 * DAY, DAY // 4)
    steps, channels = [], small_world.catalogue.channels
    for user in np.flatnonzero(small_world.audience.users["followed"][:, 0] >= 0):
        videos = small_world.next_in_order(np.full(len(moments), user), moments)[:, 0]
        going = videos[videos >= 0]
        steps.append(np.diff(going))
        channel = channels[small_world.audience.users["followed"][user, 0]]
        assert ((going >= channel["first"]) & (going < channel["first"] + channel["size"])).all()
    # At most 1.5 a day: a quarter of a day moves on by nothing or by one.
    assert set(np.concatenate(steps)) == {0, 1}


# Outcomes.


def test_the_first_luck_decides_the_click_and_the_second_how_long(hand_made: HandMade) -> None:
    # A quality that makes the mean watched fraction 1/3: the watched fraction is luck squared.
    quality = (math.log(0.5) - WATCHED_BASE) / WATCHED_QUALITY
    world = hand_made([{"quality": quality}])
    click = logistic(CLICK_BASE)
    luck = np.array([[0.0, click - 1e-4, click + 1e-4, 0.9], [0.5, 1.0, 1.0, 0.5]])
    seconds = world.outcome(np.array([0]), np.array([0]), np.array([START]), 0, luck)
    np.testing.assert_allclose(seconds, [60.0, 240.0, 0.0, 0.0], rtol=1e-3)


def test_equal_luck_is_no_click(hand_made: HandMade) -> None:
    who = (np.zeros(1, dtype=int), np.zeros(1, dtype=int), np.array([START]), 0)
    world = hand_made()
    click = world.click_probability(*who)
    assert world.outcome(*who, np.stack([click, np.ones(1)]))[0] == 0.0


def test_outcomes_have_the_stated_click_rate_and_mean_watch_time() -> None:
    world = World.build(WORLDS[0])
    shown = impressions_of(world, 500, seed=3)
    draws = 4_000
    who = [column[::10, None] for column in (shown.user, shown.video, shown.moment, shown.position % 8)]
    luck = np.random.default_rng(5).random((2, 100, draws), dtype=np.float32)
    seconds = world.outcome(*who, luck)
    clicks = world.click_probability(*who)[:, 0].astype(float)
    expected = world.expected_watch_seconds(*who)[:, 0].astype(float)
    duration = world.catalogue.videos["duration_seconds"][who[1][:, 0]]
    assert (clicks == 0).any() and not seconds[clicks == 0].any() and (seconds <= duration[:, None]).all()
    # Often enough to be normal; and of mean fractions below a tenth some watches are too short for a float.
    often = (clicks > 0.02) & (expected > 0.1 * clicks * duration)
    assert often.sum() > 40 and clicks[often].max() > 0.5
    # At most a hundred tests at once: 4.5 standard deviations, exceeded by a right one once in 1,500 seeds.
    rate_error = (seconds > 0).mean(axis=1) - clicks
    assert (np.abs(rate_error) <= 4.5 * np.sqrt(clicks * (1 - clicks) / draws))[often].all()
    mean_error = seconds.mean(axis=1) - expected
    assert (np.abs(mean_error) <= 4.5 * seconds.std(axis=1) / math.sqrt(draws))[often].all()


def test_the_watched_fraction_has_the_stated_mean(hand_made: HandMade) -> None:
    world = hand_made([{"quality": quality} for quality in (-2.0, 0.0, 2.0)])
    luck = np.stack([np.zeros(100_000), np.random.default_rng(0).random(100_000)])
    for row, quality in enumerate((-2.0, 0.0, 2.0)):
        fraction = world.outcome(np.array([0]), np.array([row]), np.array([START]), 0, luck) / 240.0
        assert fraction.max() <= 1.0
        expected = logistic(WATCHED_BASE + WATCHED_QUALITY * quality)
        assert fraction.mean() == pytest.approx(expected, abs=0.006)  # five standard deviations


def test_a_click_is_a_watch_even_of_a_long_and_bad_video(hand_made: HandMade) -> None:
    world = hand_made([{"quality": -2.5, "duration_seconds": 7_200.0}])
    luck = np.stack([np.zeros(1_000), np.random.default_rng(0).random(1_000)])
    assert (world.outcome(np.array([0]), np.array([0]), np.array([START]), 0, luck) > 0).all()


# Half a minute, or half of 40 seconds; of a longer video than a minute half a minute is less.
@pytest.mark.parametrize(
    ("duration", "seconds", "completed"),
    [(240, 29.9, False), (240, 30.0, True), (40, 19.9, False), (40, 20.0, True), (61, 30.2, True), (15, 0.0, False)],
)
def test_half_a_minute_or_half_of_it_completes_a_watch(
    hand_made: HandMade, duration: float, seconds: float, completed: bool
) -> None:
    world = hand_made([{"duration_seconds": duration}])
    assert world.completed(np.array([0]), np.array([seconds])).tolist() == [completed]


# The ideal list.


def brute_force(world: World, user: int, moment: int, k: int, excluded: list[int]) -> list[int]:
    rows = np.arange(world.config.videos)
    values = world.expected_watch_seconds(np.full(len(rows), user), rows, np.full(len(rows), moment)).tolist()
    allowed = [row for row in rows.tolist() if values[row] > 0 and row not in excluded]
    return sorted(allowed, key=lambda row: (-values[row], row))[:k]


@pytest.mark.parametrize("block", [37, 599, 600, 1_000_000])
@pytest.mark.parametrize(("user", "day"), [(0, 0.0), (123, 3.3), (299, 8.0)])
def test_the_best_are_those_of_a_brute_force_sort(
    small_world: World, monkeypatch: pytest.MonkeyPatch, block: int, user: int, day: float
) -> None:
    monkeypatch.setattr(world_module, "_BLOCK_VIDEOS", block)
    moment = START + int(day * DAY)
    for k, excluded in ((1, []), (10, []), (10, brute_force(small_world, user, moment, 15, [])[::2]), (600, [0, 599])):
        best = small_world.best(user, moment, k, np.array(excluded, dtype=np.int64))
        assert best.tolist() == brute_force(small_world, user, moment, k, excluded)


def test_without_exclusions_the_best_are_the_same(small_world: World) -> None:
    assert small_world.best(3, START, 7).tolist() == brute_force(small_world, 3, START, 7, [])


def test_what_is_not_uploaded_is_never_best(small_world: World) -> None:
    best = small_world.best(5, START, 600)
    uploaded = small_world.catalogue.videos["uploaded_second"] <= 0
    assert 0 < len(best) == uploaded.sum() < 600 and uploaded[best].all()


@pytest.mark.parametrize("block", [3, 100])
def test_equally_good_videos_come_by_row(hand_made: HandMade, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(world_module, "_BLOCK_VIDEOS", block)
    world = hand_made([{}, {"appeal": -1.0}, {}, {}, {}, {"appeal": 1.0}, {}])
    assert world.best(0, START, 4).tolist() == [5, 0, 2, 3]
    assert world.best(0, START, 100).tolist() == [5, 0, 2, 3, 4, 6, 1]


def test_where_everything_is_excluded_nothing_is_best(small_world: World) -> None:
    assert small_world.best(0, START, 5, np.arange(600)).tolist() == []


# Building.


def same(first: World, second: World) -> dict[str, bool]:
    return {
        "videos": np.array_equal(first.catalogue.videos, second.catalogue.videos),
        "channels": np.array_equal(first.catalogue.channels, second.catalogue.channels),
        "users": np.array_equal(first.audience.users, second.audience.users),
        "activity": np.array_equal(first.audience.activity, second.audience.activity),
    }


def test_the_same_settings_make_the_same_world(small_world: World) -> None:
    assert all(same(small_world, World.build(WORLDS[0])).values())


def test_another_seed_makes_another_world(small_world: World) -> None:
    assert not any(same(small_world, World.build(dataclasses.replace(WORLDS[0], seed=3))).values())


@pytest.mark.parametrize("change", [{"events": 9_999}, {"page_size": 3}, {"rise_days": 9.0}])
def test_what_the_site_does_leaves_videos_and_users(small_world: World, change: dict[str, Any]) -> None:
    assert all(same(small_world, World.build(dataclasses.replace(WORLDS[0], **change))).values())


def test_other_users_leave_the_videos(small_world: World) -> None:
    other = same(small_world, World.build(dataclasses.replace(WORLDS[0], users=200)))
    assert other == {"videos": True, "channels": True, "users": False, "activity": False}
