import dataclasses

import numpy as np
import pytest

from watchnext.simulation.audience import DEVICES, GENDERS, REGIONS, Audience
from watchnext.simulation.catalogue import Catalogue, topic_shares
from watchnext.simulation.settings import WorldConfig

CONFIG = WorldConfig(videos=2_000, users=20_000, days=20, topics=15, search_share=0.3, seed=4)


def built(seed: int = 1, **settings: float) -> tuple[Catalogue, Audience]:
    config = dataclasses.replace(CONFIG, **settings)
    catalogue = Catalogue.build(config, np.random.default_rng(seed))
    return catalogue, Audience.build(config, catalogue, np.random.default_rng(seed + 1_000))


@pytest.fixture(scope="module")
def large() -> tuple[Catalogue, Audience]:
    return built()


@pytest.fixture(scope="module")
def users(large: tuple[Catalogue, Audience]) -> np.ndarray:
    return large[1].users


def chi_square(observed: np.ndarray, shares: np.ndarray) -> float:
    expected = shares / shares.sum() * observed.sum()
    return float((np.square(observed - expected) / expected).sum())


# A right one exceeds these bounds once in some 60,000 seeds.
@pytest.mark.parametrize(
    ("column", "shares", "bound"),
    [
        ("gender", {"female": 0.48, "male": 0.48, "other": 0.04}, 22),
        ("region", {"north": 0.3, "east": 0.25, "south": 0.15, "west": 0.12, "coast": 0.1, "islands": 0.08}, 30),
        ("device", {"phone": 0.6, "desktop": 0.25, "tv": 0.15}, 22),
    ],
)
def test_users_are_drawn_with_the_stated_shares(
    users: np.ndarray, column: str, shares: dict[str, float], bound: float
) -> None:
    assert {"gender": GENDERS, "region": REGIONS, "device": DEVICES}[column] == tuple(shares)
    assert chi_square(np.bincount(users[column]), np.array([*shares.values()])) < bound


def test_ages_begin_at_14_and_are_about_34(users: np.ndarray) -> None:
    # 14 + gamma(3, 7), cut to whole years: 14 + 21 - 0.5 in the mean, standard deviation 12.1.
    assert users["age"].min() >= 14 and users["age"].max() <= 90
    assert users["age"].mean() == pytest.approx(34.5, abs=0.4)
    assert users["age"].std() == pytest.approx(12.1, abs=0.4)


def test_the_language_is_that_of_the_region(users: np.ndarray) -> None:
    of_region = {"north": 0, "east": 0, "south": 1, "west": 2, "coast": 3, "islands": 1}
    assert [of_region[REGIONS[region]] for region in users["region"]] == users["language"].tolist()


def test_a_stated_share_of_the_users_search_at_all(users: np.ndarray) -> None:
    rate = users["search_rate"]
    assert (rate > 0).mean() == pytest.approx(0.3, abs=0.016)  # five standard deviations
    assert rate[rate > 0].min() >= 0.2 and rate.max() <= 0.8
    assert rate[rate > 0].mean() == pytest.approx(0.5, abs=0.012)


@pytest.mark.parametrize(("share", "searchers"), [(0.0, 0), (1.0, 50)])
def test_nobody_or_everybody_searches(share: float, searchers: int) -> None:
    assert (built(users=50, search_share=share)[1].users["search_rate"] > 0).sum() == searchers


@pytest.mark.parametrize("topics", [4, 5, 15])
def test_a_user_has_four_different_tastes(topics: int) -> None:
    tastes = built(users=2_000, topics=topics)[1].users["tastes"]
    assert tastes.min() == 0 and tastes.max() == topics - 1
    assert (np.diff(np.sort(tastes, axis=1), axis=1) > 0).all()


@pytest.mark.parametrize("topics", [1, 2, 3])
def test_with_fewer_topics_a_user_has_all_of_them(topics: int) -> None:
    tastes = built(users=200, topics=topics)[1].users["tastes"]
    assert all(set(of_user) == set(range(topics)) for of_user in tastes.tolist())


def test_popular_topics_are_liked_by_more_users(users: np.ndarray) -> None:
    liked = np.bincount(users["tastes"][:, 0], minlength=15)
    assert np.corrcoef(liked, topic_shares(15))[0, 1] > 0.5


def test_users_of_the_same_age_like_the_same(users: np.ndarray) -> None:
    taste, age = users["tastes"][:, 0], users["age"].astype(float)
    within = np.concatenate([age[taste == topic] - age[taste == topic].mean() for topic in np.unique(taste)])
    assert within.var() < 0.8 * age.var()


def test_women_and_men_like_different_topics(users: np.ndarray) -> None:
    women, men = (np.bincount(users["tastes"][users["gender"] == gender, 0], minlength=15) for gender in (0, 1))
    assert chi_square(women[men > 0], men[men > 0].astype(float)) > 1_000  # 14 degrees of freedom


def test_a_lasting_taste_brings_a_series_or_artist_of_its_topic_and_language_wherever_there_is_one(
    large: tuple[Catalogue, Audience],
) -> None:
    catalogue, audience = large
    options: dict[tuple[int, int], set[int]] = {}
    for row, channel in enumerate(catalogue.channels):
        if channel["kind"] != 0:
            options.setdefault((channel["main_topic"], channel["language"]), set()).add(row)
    followed: dict[tuple[int, int], set[int]] = {}
    for user in audience.users:
        for place in range(2):
            wanted = (user["tastes"][place], user["language"])
            followed.setdefault(wanted, set()).add(int(user["followed"][place]))
    assert len(options) > 5 and max(map(len, options.values())) > 1
    for wanted, channels in followed.items():
        assert channels == options.get(wanted, {-1})


def test_one_of_several_channels_is_as_likely_as_another(large: tuple[Catalogue, Audience]) -> None:
    catalogue, audience = large
    fans = np.bincount(audience.users["followed"][audience.users["followed"] >= 0], minlength=len(catalogue.channels))
    ordered = catalogue.channels["kind"] != 0
    for topic, language in {
        (row["main_topic"], row["language"]) for row in catalogue.channels[ordered][["main_topic", "language"]]
    }:
        same = ordered & (catalogue.channels["main_topic"] == topic) & (catalogue.channels["language"] == language)
        expected = fans[same].mean()
        assert (np.abs(fans[same] - expected) <= 5 * np.sqrt(expected)).all()


def test_where_there_is_no_series_and_no_artist_nobody_follows() -> None:
    # Two channels of more than 5 videos each: one draw in two has neither a series nor an artist.
    seeds = [seed for seed in range(6) if not built(seed, videos=100, users=20, topics=4)[0].channels["kind"].any()]
    assert seeds
    for seed in seeds:
        assert (built(seed, videos=100, users=20, topics=4)[1].users["followed"] == -1).all()


def test_followers_begin_from_ten_days_before_the_log_to_its_end_at_half_to_one_and_a_half_a_day(
    users: np.ndarray,
) -> None:
    joined, pace = users["joined_day"], users["places_a_day"]
    assert -10 <= joined.min() < -9.9 and 19.9 < joined.max() <= 20
    assert 0.5 <= pace.min() < 0.501 and 1.499 < pace.max() <= 1.5
    assert joined.mean() == pytest.approx(5.0, abs=0.25) and pace.mean() == pytest.approx(1.0, abs=0.01)


def test_activity_is_the_cumulative_share_of_a_few_heavy_and_many_light_users(
    large: tuple[Catalogue, Audience],
) -> None:
    activity = large[1].activity
    shares = np.diff(activity, prepend=0.0)
    assert activity[-1] == 1.0 and (shares > 0).all()
    assert np.log(shares).std() == pytest.approx(1.3, abs=0.04)  # five standard deviations


def test_the_same_draws_make_the_same_audience() -> None:
    first, again, other = (built(seed, users=100)[1] for seed in (5, 5, 6))
    assert (first.users == again.users).all() and (first.activity == again.activity).all()
    assert (first.users != other.users).any() and (first.activity != other.activity).any()
