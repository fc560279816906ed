import dataclasses
import math
from typing import Any

import pytest

from watchnext.config import from_mapping
from watchnext.errors import ConfigurationError
from watchnext.simulation.settings import WorldConfig

RANGES: list[tuple[str, float, float]] = [
    ("videos", 100, 100_000_000),
    ("users", 2, 100_000_000),
    ("events", 1, 10_000_000_000),
    ("days", 1, 3650),
    ("topics", 0, 20_000),
    ("page_size", 1, 50),
    ("popular_share", 0.0, 1.0),
    ("personal_share", 0.0, 1.0),
    ("random_share", 0.0, 1.0),
    ("new_share", 0.0, 0.9),
    ("rise_days", 0.1, 365.0),
    ("search_share", 0.0, 1.0),
    ("seed", 0, 2**63 - 1),
]
# What the others must be so that the value of one is the only thing that could be refused.
BESIDE: dict[str, dict[str, float]] = {
    "events": {"days": 1, "page_size": 1},
    "topics": {"videos": 100_000_000},
}
SHARES = ("popular_share", "personal_share", "random_share")


def built(key: str, value: float) -> Any:
    beside = BESIDE.get(key, {})
    if key in SHARES:
        first, second = (share for share in SHARES if share != key)
        beside = {first: 1.0 - value if 0.0 <= value <= 1.0 else 0.0, second: 0.0}
    return getattr(from_mapping(WorldConfig, {**beside, key: value}, "world"), key)


def above(value: float) -> float:
    return value + 1 if isinstance(value, int) else math.nextafter(value, math.inf)


def below(value: float) -> float:
    return value - 1 if isinstance(value, int) else math.nextafter(value, -math.inf)


@pytest.mark.parametrize(("key", "least", "most"), RANGES)
def test_the_least_value_is_taken_and_less_is_refused(key: str, least: float, most: float) -> None:
    assert built(key, least) == least
    with pytest.raises(ConfigurationError, match=rf"\[world\] {key} = .*: between {least} and {most} was expected"):
        built(key, below(least))


@pytest.mark.parametrize(("key", "least", "most"), RANGES)
def test_the_largest_value_is_taken_and_more_is_refused(key: str, least: float, most: float) -> None:
    assert built(key, most) == most
    with pytest.raises(ConfigurationError, match=rf"\[world\] {key} = .*: between {least} and {most} was expected"):
        built(key, above(most))


def test_every_number_has_a_range_in_this_file() -> None:
    assert [spec.name for spec in dataclasses.fields(WorldConfig)] == [key for key, _, _ in RANGES]


def test_every_setting_is_explained() -> None:
    assert all(spec.metadata["doc"] for spec in dataclasses.fields(WorldConfig))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ConfigurationError, match=r"\[world\] rise_days = "):
        WorldConfig(rise_days=value)


@pytest.mark.parametrize(
    ("shares", "total"),
    [((0.4, 0.5, 0.2), "1.1"), ((0.4, 0.5, 0.0), "0.9"), ((0.0, 0.0, 0.0), "0"), ((0.4, 0.5, 0.100002), "1")],
)
def test_shares_that_are_not_the_whole_are_refused(shares: tuple[float, float, float], total: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"random_share = {total}: 1 was expected"):
        WorldConfig(**dict(zip(SHARES, shares, strict=True)))


def test_shares_that_are_the_whole_but_for_rounding_are_taken() -> None:
    assert 0.7 + 0.2 + 0.1 != 1.0
    assert WorldConfig(popular_share=0.7, personal_share=0.2, random_share=0.1).random_share == 0.1


def test_a_topic_for_every_ten_videos_is_taken_and_more_are_refused() -> None:
    assert WorldConfig(videos=2_009, topics=200).num_topics == 200
    with pytest.raises(ConfigurationError, match=r"topics = 201: at most a tenth of the 2,009 videos was expected"):
        WorldConfig(videos=2_009, topics=201)


def test_a_page_a_day_is_taken_and_less_is_refused() -> None:
    assert WorldConfig(events=300, days=30, page_size=10).events == 300
    with pytest.raises(ConfigurationError, match="events = 299: at least 300 was expected, one page of 10 for each"):
        WorldConfig(events=299, days=30, page_size=10)


# One of every hundred videos, but ten at least and two thousand at most.
@pytest.mark.parametrize(
    ("videos", "num_topics"), [(100, 10), (1_099, 10), (1_100, 11), (2_000, 20), (199_999, 1_999), (10**8, 2_000)]
)
def test_without_topics_there_is_one_for_every_hundred_videos(videos: int, num_topics: int) -> None:
    assert WorldConfig(videos=videos).num_topics == num_topics


def test_given_topics_win() -> None:
    assert WorldConfig(videos=2_000, topics=7).num_topics == 7


def test_changed_settings_survive_a_round_trip() -> None:
    changed = WorldConfig(videos=500, seed=2**63 - 1, popular_share=0.0, personal_share=0.25, random_share=0.75)
    assert from_mapping(WorldConfig, dataclasses.asdict(changed), "world") == changed != WorldConfig()


def test_a_page_fits_into_what_is_certainly_there_when_the_log_begins() -> None:
    # 170 videos, half of them new: 85 old ones expected, give or take sqrt(170 / 4) = 6.52; 85 - 6 * 6.52 = 45.9
    assert WorldConfig(videos=170, new_share=0.5, page_size=45).page_size == 45
    with pytest.raises(ConfigurationError, match=r"page_size = 46: at most 45 was expected"):
        WorldConfig(videos=170, new_share=0.5, page_size=46)
    with pytest.raises(ConfigurationError, match=r"page_size = 10: at most 0 was expected"):
        WorldConfig(videos=100, new_share=0.9)
