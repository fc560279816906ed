"""The videos of a world: topics, channels, traits, and when they were uploaded."""

from dataclasses import dataclass

import numpy as np

from watchnext.events.schema import SECONDS_OF_A_DAY
from watchnext.shapes import Array, Float, Int
from watchnext.simulation.settings import WorldConfig
from watchnext.simulation.words import LANGUAGES

VIDEO = np.dtype(
    [
        ("channel", "<i4"),
        ("uploaded_second", "<i4"),  # of the log; negative before it begins
        ("main_topic", "<i2"),
        ("second_topic", "<i2"),
        ("main_weight", "<f4"),  # of the main topic in the mixture; the second has the rest
        ("appeal", "<f4"),  # standard normal: how many want it, whatever their taste
        ("thumbnail", "<f4"),  # standard normal: draws clicks and says nothing of how much is watched
        ("quality", "<f4"),  # standard normal: how much is watched once it was clicked
        ("duration_seconds", "<f4"),
        ("language", "<i2"),
    ]
)
"""One video. What belongs to it lies side by side, so that an impression fetches one cache line, not ten."""

PLAIN, SERIES, ARTIST = 0, 1, 2
CHANNEL = np.dtype([("first", "<i4"), ("size", "<i4"), ("kind", "<i2"), ("main_topic", "<i2"), ("language", "<i2")])
"""One channel, whose videos are rows first to first + size - 1, in the order in which followers watch them."""

_VIDEOS_OF_A_CHANNEL = 40
_SEQUENCE_SIZES = (5, 200)
_SEQUENCE_SHARE = 0.15  # of the channels of such a size are series, and as many are artists
_LANGUAGE_SHARES = (0.55, 0.2, 0.15, 0.1)
_OFF_TOPIC_SHARE = 0.2
_OLDEST_DAYS = 365
_DURATION_MEDIAN_SECONDS, _DURATION_RANGE_SECONDS = 240.0, (15.0, 7200.0)


@dataclass(frozen=True)
class Catalogue:
    """All videos and channels. Rows are the ids of the log: video 0 is the first."""

    videos: Array
    channels: Array

    @classmethod
    def build(cls, config: WorldConfig, random: np.random.Generator) -> "Catalogue":
        """Draws the channels, then the videos of each."""
        channels = _channels(config, random)
        videos = np.zeros(config.videos, dtype=VIDEO)
        videos["channel"] = np.repeat(np.arange(len(channels), dtype=np.int32), channels["size"])
        _draw_topics(videos, channels, config, random)
        _draw_traits(videos, channels, random)
        _draw_uploads(videos, channels, config, random)
        return cls(videos, channels)

    def episode(self, video: Int[Array, "..."]) -> Int[Array, "..."]:
        """Gives the place of each video in its channel's order, from 1; 0 where the channel has none."""
        channel = self.channels[self.videos["channel"][video]]
        place: Array = np.where(channel["kind"] == SERIES, video - channel["first"] + 1, 0)
        return place


def topic_shares(num_topics: int) -> Float[Array, "topics"]:
    """Gives how much of the catalogue, and of people's taste, each topic has: a power law with a flat head."""
    sizes = (np.arange(num_topics) + 4.0) ** -0.8
    shares: Array = sizes / sizes.sum()
    return shares


def drawn(shares: Float[Array, "_"], count: int, random: np.random.Generator) -> Int[Array, "rows"]:
    """Draws `count` places with the given shares."""
    cumulative = np.cumsum(shares)
    places: Array = np.searchsorted(cumulative, random.random(count) * cumulative[-1], side="right")
    within: Array = np.minimum(places, len(shares) - 1)
    return within


def _channels(config: WorldConfig, random: np.random.Generator) -> Array:
    count = max(1, config.videos // _VIDEOS_OF_A_CHANNEL)
    channels = np.zeros(count, dtype=CHANNEL)
    spread = np.cumsum(random.pareto(1.5, count) + 0.3)
    ends = np.rint(spread / spread[-1] * config.videos).astype(np.int64)
    channels["first"] = np.concatenate([[0], ends[:-1]])
    channels["size"] = ends - channels["first"]
    channels["main_topic"] = drawn(topic_shares(config.num_topics), count, random)
    channels["language"] = drawn(np.array(_LANGUAGE_SHARES), count, random)
    least, most = _SEQUENCE_SIZES
    luck = random.random(count)
    fits = (channels["size"] >= least) & (channels["size"] <= most)
    channels["kind"] = np.select(
        [fits & (luck < _SEQUENCE_SHARE), fits & (luck < 2 * _SEQUENCE_SHARE)], [SERIES, ARTIST]
    )
    return channels


def _draw_topics(videos: Array, channels: Array, config: WorldConfig, random: np.random.Generator) -> None:
    channel = channels[videos["channel"]]
    anything = drawn(topic_shares(config.num_topics), 2 * len(videos), random).reshape(2, -1)
    strays = (random.random(len(videos)) < _OFF_TOPIC_SHARE) & (channel["kind"] == PLAIN)
    videos["main_topic"] = np.where(strays, anything[0], channel["main_topic"])
    videos["second_topic"] = anything[1]
    videos["main_weight"] = 0.6 + 0.4 * random.random(len(videos), dtype=np.float32)
    videos["language"] = channel["language"]


def _draw_traits(videos: Array, channels: Array, random: np.random.Generator) -> None:
    count = len(videos)
    for trait in ("appeal", "thumbnail", "quality"):
        videos[trait] = random.standard_normal(count, dtype=np.float32)
    habit = random.standard_normal(len(channels), dtype=np.float32)[videos["channel"]]
    spread = 0.6 * habit + 0.6 * random.standard_normal(count, dtype=np.float32)
    videos["duration_seconds"] = np.clip(_DURATION_MEDIAN_SECONDS * np.exp(spread), *_DURATION_RANGE_SECONDS)
    of_artists = np.flatnonzero(channels["kind"][videos["channel"]] == ARTIST)
    popular_first = np.lexsort((-videos["appeal"][of_artists], videos["channel"][of_artists]))
    videos["appeal"][of_artists] = videos["appeal"][of_artists][popular_first]


def _draw_uploads(videos: Array, channels: Array, config: WorldConfig, random: np.random.Generator) -> None:
    """New videos come evenly through the log, old ones in the year before it; series and artists are all old."""
    ordered = channels["kind"][videos["channel"]] != PLAIN
    new = (random.random(len(videos)) < config.new_share) & ~ordered
    moment = random.random(len(videos))
    days = np.where(new, moment * config.days, -moment * _OLDEST_DAYS)
    videos["uploaded_second"] = np.floor(days * SECONDS_OF_A_DAY)
    of_series = np.flatnonzero(channels["kind"][videos["channel"]] == SERIES)
    in_order = np.lexsort((videos["uploaded_second"][of_series], videos["channel"][of_series]))
    videos["uploaded_second"][of_series] = videos["uploaded_second"][of_series][in_order]


assert len(_LANGUAGE_SHARES) == len(LANGUAGES)
