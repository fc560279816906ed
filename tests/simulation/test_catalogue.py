import numpy as np
import pytest

from watchnext.simulation.catalogue import Catalogue, drawn, topic_shares
from watchnext.simulation.settings import WorldConfig

PLAIN, SERIES, ARTIST = 0, 1, 2


def built(seed: int = 1, **settings: float) -> Catalogue:
    return Catalogue.build(WorldConfig(**settings), np.random.default_rng(seed))


@pytest.fixture(scope="module")
def large() -> Catalogue:
    """40,000 videos on 1,000 channels."""
    return built(videos=40_000, topics=25, days=20, new_share=0.3)


def chi_square(observed: np.ndarray, shares: np.ndarray) -> float:
    expected = shares / shares.sum() * observed.sum()
    return float((np.square(observed - expected) / expected).sum())


def of_kind(catalogue: Catalogue, kind: int) -> list[np.ndarray]:
    """For each channel of a kind its videos, in row order."""
    return [
        catalogue.videos[channel["first"] : channel["first"] + channel["size"]]
        for channel in catalogue.channels[catalogue.channels["kind"] == kind]
    ]


class Always(np.random.Generator):
    """Draws the same uniform number every time."""

    def __init__(self, number: float) -> None:
        super().__init__(np.random.PCG64(0))
        self.number = number

    def random(self, size: int) -> np.ndarray:  # type: ignore[override]
        return np.full(size, self.number)


def test_topic_shares_are_a_power_law_that_begins_at_four() -> None:
    # 4^-0.8 = 0.32988 and 5^-0.8 = 0.27595; their sum is 0.60583.
    np.testing.assert_allclose(topic_shares(2), [0.5445, 0.4555], atol=1e-4)


@pytest.mark.parametrize("num_topics", [1, 10, 20_000])
def test_topic_shares_fall_and_are_the_whole(num_topics: int) -> None:
    shares = topic_shares(num_topics)
    assert len(shares) == num_topics
    assert shares.sum() == pytest.approx(1.0) and (np.diff(shares) < 0).all()


def test_places_are_drawn_with_their_shares() -> None:
    # 3 degrees of freedom: a right one exceeds 25 once in 60,000 seeds.
    shares = np.array([4.0, 3.0, 2.0, 1.0])
    observed = np.bincount(drawn(shares, 50_000, np.random.default_rng(0)), minlength=4)
    assert chi_square(observed, shares) < 25


@pytest.mark.parametrize(("number", "place"), [(0.0, 1), (1.0 - 2**-53, 2), (1.0, 2)])
def test_at_the_ends_of_the_luck_a_place_with_a_share_is_drawn(number: float, place: int) -> None:
    assert drawn(np.array([0.0, 0.3, 0.6]), 2, Always(number)).tolist() == [place, place]


@pytest.mark.parametrize(("videos", "num_channels"), [(100, 2), (119, 2), (120, 3), (2_000, 50)])
def test_there_is_a_channel_for_every_forty_videos(videos: int, num_channels: int) -> None:
    assert len(built(videos=videos).channels) == num_channels


@pytest.mark.parametrize("seed", range(5))
def test_channels_share_out_all_videos_in_row_order(seed: int) -> None:
    catalogue = built(seed, videos=1_000)
    row = np.arange(1_000)
    channel = catalogue.channels[catalogue.videos["channel"]]
    assert ((channel["first"] <= row) & (row < channel["first"] + channel["size"])).all()
    assert catalogue.channels["size"].sum() == 1_000


def test_series_and_artists_have_5_to_200_videos() -> None:
    channels = np.concatenate([built(seed, videos=500).channels for seed in range(150)])
    small, large = channels["size"] < 5, channels["size"] > 200
    assert small.sum() > 40 and large.sum() > 40  # of either, one in three would be an exception
    assert (channels["kind"][small | large] == PLAIN).all()
    ordered = channels["size"][channels["kind"] != PLAIN]
    assert ordered.min() == 5 and ordered.max() > 150


def test_of_the_channels_of_such_a_size_15_in_100_are_series_and_as_many_artists(large: Catalogue) -> None:
    fits = large.channels[(large.channels["size"] >= 5) & (large.channels["size"] <= 200)]
    counts = np.bincount(fits["kind"], minlength=3)
    assert chi_square(counts, np.array([0.7, 0.15, 0.15])) < 22  # 2 degrees of freedom: once in 60,000 seeds


def test_series_are_uploaded_in_the_order_of_their_episodes(large: Catalogue) -> None:
    assert len(of_kind(large, SERIES)) > 50
    for videos in of_kind(large, SERIES):
        assert (np.diff(videos["uploaded_second"]) >= 0).all() and np.ptp(videos["uploaded_second"]) > 0


def test_episodes_count_from_1_in_series_and_are_0_elsewhere(large: Catalogue) -> None:
    episode = large.episode(np.arange(40_000))
    for channel in large.channels:
        rows = np.arange(channel["first"], channel["first"] + channel["size"])
        expected = range(1, len(rows) + 1) if channel["kind"] == SERIES else [0] * len(rows)
        assert episode[rows].tolist() == list(expected)


def test_artists_go_from_their_most_popular_video_to_their_least(large: Catalogue) -> None:
    assert len(of_kind(large, ARTIST)) > 50
    for videos in of_kind(large, ARTIST):
        assert (np.diff(videos["appeal"]) < 0).all()


@pytest.mark.parametrize("kind", [PLAIN, SERIES])
def test_the_others_do_not_order_their_videos_by_appeal(large: Catalogue, kind: int) -> None:
    steps = np.concatenate([np.diff(videos["appeal"]) for videos in of_kind(large, kind)])
    assert abs((steps < 0).mean() - 0.5) < 0.02


@pytest.mark.parametrize("kind", [SERIES, ARTIST])
def test_series_and_artists_keep_to_their_topic_and_are_older_than_the_log(large: Catalogue, kind: int) -> None:
    for channel, videos in zip(large.channels[large.channels["kind"] == kind], of_kind(large, kind), strict=True):
        assert (videos["main_topic"] == channel["main_topic"]).all()
        assert (videos["uploaded_second"] < 0).all()


def test_one_in_five_videos_of_a_plain_channel_is_about_anything(large: Catalogue) -> None:
    channel = large.channels[large.videos["channel"]]
    plain = channel["kind"] == PLAIN
    # Anything is the channel's own topic now and then, as often as that topic has a share.
    own = topic_shares(25)[channel["main_topic"]][plain].mean()
    strays = (large.videos["main_topic"] != channel["main_topic"])[plain].mean()
    assert strays == pytest.approx(0.2 * (1 - own), abs=0.012)  # four standard deviations


def test_second_topics_follow_the_topic_shares(large: Catalogue) -> None:
    # 24 degrees of freedom: a right one exceeds 67 once in 100,000 seeds.
    assert chi_square(np.bincount(large.videos["second_topic"], minlength=25), topic_shares(25)) < 67


def test_the_main_topic_weighs_six_to_ten_tenths(large: Catalogue) -> None:
    weight = large.videos["main_weight"]
    assert 0.6 <= weight.min() < 0.601 and 0.999 < weight.max() <= 1.0
    assert weight.mean() == pytest.approx(0.8, abs=0.003)


def test_a_video_speaks_its_channels_language(large: Catalogue) -> None:
    assert (large.videos["language"] == large.channels["language"][large.videos["channel"]]).all()
    # 3 degrees of freedom, and the shares as the module states them.
    assert chi_square(np.bincount(large.channels["language"]), np.array([0.55, 0.2, 0.15, 0.1])) < 25


def test_traits_are_standard_normal_and_know_nothing_of_each_other(large: Catalogue) -> None:
    traits = np.stack([large.videos[name] for name in ("appeal", "thumbnail", "quality")]).astype(float)
    np.testing.assert_allclose(traits.mean(axis=1), 0.0, atol=0.025)  # five standard deviations
    np.testing.assert_allclose(np.cov(traits), np.eye(3), atol=0.035)


def test_durations_are_spread_about_four_minutes_and_alike_within_a_channel(large: Catalogue) -> None:
    duration = large.videos["duration_seconds"]
    assert duration.min() >= 15.0 and duration.max() <= 7200.0
    # Of the variance of the logarithm 0.36 lies between channels and 0.36 within; large channels weigh more.
    spread = np.log(duration.astype(float) / 240.0)
    within = np.concatenate(
        [part - part.mean() for part in np.split(spread, large.channels["first"][1:]) if len(part) > 20]
    )
    assert spread.mean() == pytest.approx(0.0, abs=0.2)
    assert within.var() == pytest.approx(0.36, abs=0.04)
    assert spread.var() > 1.5 * within.var()


def test_new_videos_come_evenly_through_the_log_and_old_ones_in_the_year_before(large: Catalogue) -> None:
    plain = large.channels["kind"][large.videos["channel"]] == PLAIN
    days = large.videos["uploaded_second"] / 86_400
    assert (days[plain] >= 0).mean() == pytest.approx(0.3, abs=0.015)  # five standard deviations
    new, old = days[plain & (days >= 0)], days[days < 0]
    assert new.max() < 20 and new.mean() == pytest.approx(10.0, abs=0.4)
    assert -365 <= old.min() < -364 and old.mean() == pytest.approx(-182.5, abs=4.0)


def test_without_a_new_share_nothing_is_uploaded_while_the_log_runs() -> None:
    assert (built(videos=1_000, new_share=0.0).videos["uploaded_second"] < 0).all()


def test_topics_and_languages_stay_within_their_number() -> None:
    videos = built(videos=100, topics=1).videos
    assert set(videos["main_topic"]) == set(videos["second_topic"]) == {0}


def test_the_same_draws_make_the_same_catalogue() -> None:
    first, again, other = (built(seed, videos=300) for seed in (5, 5, 6))
    assert (first.videos == again.videos).all() and (first.channels == again.channels).all()
    assert (first.videos != other.videos).any()
