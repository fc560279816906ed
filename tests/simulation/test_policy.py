import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from watchnext.simulation.policy import LoggingPolicy, Shelves
from watchnext.simulation.settings import WorldConfig
from watchnext.simulation.visits import Visits, visits_of_day
from watchnext.simulation.world import World

START, DAY = 1_699_920_000, 86_400
CONTINUE_SHARE = 0.2

HandMade = Callable[..., World]
POPULAR = {"popular_share": 1.0, "personal_share": 0.0, "random_share": 0.0}
PERSONAL = {"popular_share": 0.0, "personal_share": 1.0, "random_share": 0.0}
RANDOM = {"popular_share": 0.0, "personal_share": 0.0, "random_share": 1.0}


def policy_of(world: World, day: int) -> LoggingPolicy:
    return LoggingPolicy.of_day(world, Shelves.of(world), day)


def pages_of(world: World, day: int, user: int, num_pages: int = 300, topic: int = -1, seed: int = 0) -> np.ndarray:
    """Shows one user many pages at noon."""
    visits = Visits(*(np.full(num_pages, value) for value in (user, START + day * DAY + DAY // 2, topic)))
    return policy_of(world, day).pages(visits, np.random.default_rng(seed))


def with_settings(world: World, **settings: float) -> World:
    return dataclasses.replace(world, config=dataclasses.replace(world.config, **settings))


def chi_square_excess(observed: np.ndarray, shares: np.ndarray) -> float:
    """Gives how many standard deviations chi-square lies above its mean; rare videos are counted together."""
    expected = shares * observed.sum()
    often = expected >= 10
    observed = np.append(observed[often], observed[~often].sum())
    expected = np.append(expected[often], expected[~often].sum())
    observed, expected = observed[expected > 0], expected[expected > 0]
    freedom = len(expected) - 1
    return float(((np.square(observed - expected) / expected).sum() - freedom) / np.sqrt(2 * freedom))


# Oracle: the share of every video in what one user is shown at one place of a page.


def weights_of(world: World, day: int) -> np.ndarray:
    videos = world.catalogue.videos
    midnight = np.array([START + day * DAY])
    return world.popularity(videos["appeal"], videos["uploaded_second"], midnight).astype(float)


def by_weight(world: World, day: int, language: int, topic: int | None = None) -> np.ndarray:
    """The shares within a shelf; where it is empty within its language, and where that is empty among all."""
    videos, weights = world.catalogue.videos, weights_of(world, day)
    spoken = videos["language"] == language
    shelf = spoken & (videos["main_topic"] == topic) if topic is not None else spoken
    stretches = [np.where(allowed, weights, 0.0) for allowed in (shelf, spoken, True)]
    chosen = next(stretch for stretch in stretches if stretch.any())
    return chosen / chosen.sum()


def at_random(world: World, day: int) -> np.ndarray:
    """Every uploaded video alike; what would fall on the others falls by weight."""
    weights = weights_of(world, day)
    uploaded = weights > 0
    return uploaded / len(weights) + (~uploaded).mean() * weights / weights.sum()


def of_taste(world: World, day: int, user: int, moment: int) -> np.ndarray:
    person, progress = world.audience.users[user], (moment - START) / (world.config.days * DAY)
    tastes = np.array([1.0, 0.7, 0.9 * (1 - progress), 0.9 * progress])
    shares = [by_weight(world, day, person["language"], taste) for taste in person["tastes"]]
    return np.average(shares, axis=0, weights=tastes)


def of_person(world: World, day: int, user: int, moment: int) -> np.ndarray:
    taste = of_taste(world, day, user, moment)
    shares = (1 - CONTINUE_SHARE) * taste
    for next_video in world.next_in_order(np.array([user]), np.array([moment]))[0]:
        continued = np.eye(len(taste))[next_video] if next_video >= 0 else taste
        shares = shares + CONTINUE_SHARE / 2 * continued
    return shares


def shown_shares(world: World, day: int, user: int) -> np.ndarray:
    config = world.config
    return (
        config.popular_share * by_weight(world, day, world.audience.users["language"][user])
        + config.personal_share * of_person(world, day, user, START + day * DAY + DAY // 2)
        + config.random_share * at_random(world, day)
    )


@pytest.fixture(scope="module")
def single(small_world: World) -> World:
    """The small world with one place on a page, so that nothing is drawn again for having come before."""
    return with_settings(small_world, page_size=1)


@pytest.fixture(scope="module")
def viewers(single: World) -> dict[str, int]:
    """One user who is in the middle of a series or artist, and one who is not."""
    following = (single.next_in_order(np.arange(300), np.full(300, START + 3 * DAY + DAY // 2)) >= 0).any(axis=1)
    return {"follower": int(np.flatnonzero(following)[0]), "stranger": int(np.flatnonzero(~following)[0])}


@pytest.mark.parametrize("viewer", ["follower", "stranger"])
@pytest.mark.parametrize(
    "shares",
    [POPULAR, PERSONAL, RANDOM, {"popular_share": 0.4, "personal_share": 0.5, "random_share": 0.1}],
    ids=["popular", "personal", "random", "mixture"],
)
def test_videos_are_shown_with_the_stated_shares(
    single: World, viewers: dict[str, int], viewer: str, shares: dict[str, float]
) -> None:
    world, user = with_settings(single, **shares), viewers[viewer]
    observed = np.bincount(pages_of(world, 3, user, 40_000).ravel(), minlength=600)
    expected = shown_shares(world, 3, user)
    assert expected.sum() == pytest.approx(1.0)
    assert not observed[expected == 0].any()
    # A right one exceeds 5 standard deviations once in some 100,000 seeds.
    assert chi_square_excess(observed, expected) < 5
    uniform = np.full(600, 1 / 600)
    assert chi_square_excess(observed, uniform) > 100


def test_a_follower_gets_a_tenth_of_the_personal_share_from_each_followed_channel(
    single: World, viewers: dict[str, int]
) -> None:
    world, user = with_settings(single, **PERSONAL), viewers["follower"]
    coming = world.next_in_order(np.array([user]), np.array([START + 3 * DAY + DAY // 2]))[0]
    shown = pages_of(world, 3, user, 20_000)
    taste = of_taste(world, 3, user, START + 3 * DAY + DAY // 2)
    for video in coming[coming >= 0]:
        # A fifth goes on with one of two channels; the video may also lie on the shelf of a taste.
        others = 1.0 - 0.1 * (coming >= 0).sum()
        assert (shown == video).mean() == pytest.approx(0.1 + others * taste[video], abs=0.012)


@pytest.mark.parametrize("shares", [POPULAR, PERSONAL, RANDOM], ids=["popular", "personal", "random"])
def test_a_search_is_answered_by_weight_from_the_topics_shelf_in_the_users_language(
    single: World, viewers: dict[str, int], shares: dict[str, float]
) -> None:
    world, user = with_settings(single, **shares), viewers["follower"]
    language = int(world.audience.users["language"][user])
    videos, uploaded = world.catalogue.videos, weights_of(world, 3) > 0
    shelf = np.bincount(videos["main_topic"][uploaded & (videos["language"] == language)], minlength=12)
    topic = int(shelf.argmax())
    assert shelf[topic] > 5
    observed = np.bincount(pages_of(world, 3, user, 5_000, topic).ravel(), minlength=600)
    expected = by_weight(world, 3, language, topic)
    assert set(np.flatnonzero(observed)) <= set(np.flatnonzero(expected))
    assert chi_square_excess(observed, expected) < 5


SHOP = [
    {"language": 0, "main_topic": 0},
    {"language": 0, "main_topic": 0},
    {"language": 0, "main_topic": 0, "uploaded_second": 5 * DAY},
    {"language": 0, "main_topic": 1},
    {"language": 1, "main_topic": 2},
    {"language": 2, "main_topic": 3, "uploaded_second": 5 * DAY},
]
# Only the users' languages differ; the fourth has no video at all.
SHOPPERS = [{"language": language, "tastes": (0, 1, 2, 3)} for language in range(4)]


@pytest.mark.parametrize(
    ("day", "user", "topic", "shown"),
    [
        (1, 0, 0, {0, 1}),  # the shelf
        (1, 0, 1, {3}),
        (1, 0, 7, {0, 1, 3}),  # no such shelf: the language
        (1, 0, 2, {0, 1, 3}),  # the shelf of another language is no shelf
        (1, 2, 3, {0, 1, 3, 4}),  # nothing in the language was uploaded: everything
        (1, 3, 0, {0, 1, 3, 4}),  # nothing in the language at all: everything
        (4, 0, 0, {0, 1}),  # uploaded at the end of day 4, not yet at its midnight
        (5, 0, 0, {0, 1, 2}),
        (5, 2, 3, {5}),
        (5, 2, 0, {5}),
    ],
)
def test_the_language_stands_in_for_an_empty_shelf_and_everything_for_an_empty_language(
    hand_made: HandMade, day: int, user: int, topic: int, shown: set[int]
) -> None:
    world = hand_made(SHOP, SHOPPERS, page_size=1)
    assert set(pages_of(world, day, user, topic=topic).ravel().tolist()) == shown


@pytest.mark.parametrize(("user", "shown"), [(0, {0, 1, 3}), (1, {4}), (2, {0, 1, 3, 4}), (3, {0, 1, 3, 4})])
def test_popular_is_what_is_popular_in_the_language(hand_made: HandMade, user: int, shown: set[int]) -> None:
    world = hand_made(SHOP, SHOPPERS, page_size=1, **POPULAR)
    assert set(pages_of(world, 1, user).ravel().tolist()) == shown


def test_random_knows_no_language(hand_made: HandMade) -> None:
    world = hand_made(SHOP, SHOPPERS, page_size=1, **RANDOM)
    assert set(pages_of(world, 1, 1).ravel().tolist()) == {0, 1, 3, 4}


def test_an_upload_is_first_shown_on_the_day_after(hand_made: HandMade) -> None:
    # Uploaded a second after the midnight of day 5.
    world = hand_made([{}, {"uploaded_second": 5 * DAY + 1}], page_size=1, **RANDOM)
    assert set(pages_of(world, 5, 0).ravel().tolist()) == {0}
    assert set(pages_of(world, 6, 0).ravel().tolist()) == {0, 1}


@pytest.mark.parametrize("day", [0, 4, 7])
def test_no_page_shows_a_video_twice_and_none_before_its_upload(small_world: World, day: int) -> None:
    random = np.random.default_rng(day)
    pages = policy_of(small_world, day).pages(visits_of_day(small_world, day, 2_000, random), random)
    assert pages.shape == (2_000, 5)
    assert (np.diff(np.sort(pages, axis=1), axis=1) > 0).all()
    uploaded = small_world.catalogue.videos["uploaded_second"] <= day * DAY
    assert uploaded[pages].all() and not uploaded.all()


def test_pages_as_large_as_the_catalogue_show_everything_once(hand_made: HandMade) -> None:
    # Popularities of 1 to some hundred thousand: the last free places are hard to fill.
    world = hand_made([{"appeal": 2.0 * row} for row in range(6)], page_size=6)
    pages = pages_of(world, 0, 0, num_pages=50)
    assert (np.sort(pages, axis=1) == np.arange(6)).all()


def test_what_comes_first_stays_and_its_repetitions_are_drawn_from_everything(hand_made: HandMade) -> None:
    # The one video in the user's language fills both places; the second is drawn again.
    world = hand_made([{}, *[{"language": 1}] * 4], page_size=2, **POPULAR)
    pages = pages_of(world, 0, 0)
    assert (pages[:, 0] == 0).all()
    assert set(pages[:, 1].tolist()) == {1, 2, 3, 4}


class Highest(np.random.Generator):
    """Draws numbers that rounding may make of the largest uniform one."""

    def random(self, size: int) -> np.ndarray:  # type: ignore[override]
        return np.ones(size)


@pytest.mark.parametrize("shares", [POPULAR, PERSONAL, RANDOM], ids=["popular", "personal", "random"])
def test_rounding_does_not_reach_past_the_last_uploaded_video(hand_made: HandMade, shares: dict[str, float]) -> None:
    world = hand_made([{}, {}, {}, {"uploaded_second": 9 * DAY}], page_size=1, **shares)
    visits = Visits(np.zeros(20, dtype=int), np.full(20, START), np.full(20, -1))
    pages = policy_of(world, 0).pages(visits, Highest(np.random.PCG64(0)))
    assert set(pages.ravel().tolist()) <= {0, 1, 2}


# Shelves.


def test_every_shelf_holds_the_videos_of_its_language_and_topic(small_world: World) -> None:
    shelves, videos = Shelves.of(small_world), small_world.catalogue.videos
    assert sorted(shelves.order.tolist()) == list(range(600))
    assert len(shelves.bounds) == 4 * 12 + 1 and shelves.bounds[[0, -1]].tolist() == [0, 600]
    for language in range(4):
        for topic in range(12):
            low, high = shelves.bounds[12 * language + topic : 12 * language + topic + 2]
            rows = np.flatnonzero((videos["language"] == language) & (videos["main_topic"] == topic))
            assert shelves.order[low:high].tolist() == rows.tolist()


def test_shelves_hold_the_traits_of_their_videos(small_world: World) -> None:
    shelves, videos = Shelves.of(small_world), small_world.catalogue.videos
    for trait in ("appeal", "uploaded_second"):
        assert (getattr(shelves, trait) == videos[trait][shelves.order]).all()


def test_the_same_draws_make_the_same_pages(small_world: World) -> None:
    first, again, other = (pages_of(small_world, 2, 9, seed=seed) for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()


def test_with_the_fewest_videos_and_the_longest_pages_no_page_repeats() -> None:
    world = World.build(WorldConfig(videos=100, users=20, days=2, page_size=50, new_share=0.0))
    pages = pages_of(world, 1, 3, num_pages=40)
    assert (np.diff(np.sort(pages, axis=1), axis=1) > 0).all()
