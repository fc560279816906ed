"""The world and the truth about it: what anybody would click and watch, at any moment."""

from dataclasses import dataclass

import numpy as np

from watchnext.events.schema import SECONDS_OF_A_DAY
from watchnext.shapes import Array, Bool, Float, Int
from watchnext.simulation.audience import NUM_FOLLOWED, NUM_TASTES, PHONE, TV, Audience
from watchnext.simulation.catalogue import Catalogue
from watchnext.simulation.settings import WorldConfig

START_SECOND = 1_699_920_000  # a midnight (UTC) in November 2023

_OLD_POPULARITY = 0.15  # of a video whose days are over, as a share of its best
_BLOCK_VIDEOS = 1_000_000
_SHORTEST_WATCH_SECONDS = 0.1  # a click is a watch, however short: small powers would round to nothing


@dataclass(frozen=True)
class World:
    """A video site whose every probability is a function of (user, video, moment).

    Nothing depends on what a user was shown before: tastes drift, and followers move on in their series and artists,
    by a clock of their own. So any impression can be judged on its own, and a log of any size is made in parallel.
    Moments are Unix seconds. Arguments broadcast against each other.
    """

    config: WorldConfig
    catalogue: Catalogue
    audience: Audience

    @classmethod
    def build(cls, config: WorldConfig) -> "World":
        """Makes the world that the settings describe, always the same for the same settings."""
        videos, users = (np.random.default_rng([config.seed, stream]) for stream in range(2))
        catalogue = Catalogue.build(config, videos)
        return cls(config, catalogue, Audience.build(config, catalogue, users))

    @property
    def end_second(self) -> int:
        """The moment at which the log ends."""
        return START_SECOND + self.config.days * SECONDS_OF_A_DAY

    def taste_weights(self, moment: Int[Array, "..."]) -> Float[Array, "... tastes"]:
        """Gives how much each of a user's tastes counts: two stay, the third fades, the fourth grows."""
        progress = np.clip((moment - START_SECOND) / (self.config.days * SECONDS_OF_A_DAY), 0.0, 1.0)
        progress = progress.astype(np.float32)
        lasting = np.ones_like(progress)
        return np.stack([lasting, 0.7 * lasting, 0.9 * (1.0 - progress), 0.9 * progress], axis=-1)

    def affinity(
        self, user: Int[Array, "..."], video: Int[Array, "..."], moment: Int[Array, "..."]
    ) -> Float[Array, "..."]:
        """Gives how well a video's topics fit a user's tastes at the moment, from 0 to 1."""
        return self._affinity(self.audience.users[user], self.catalogue.videos[video], moment)

    def freshness(self, age_days: Float[Array, "..."]) -> Float[Array, "..."]:
        """Gives a video's popularity by days since its upload: rises to 1 at `rise_days`, decays, 0 before upload."""
        age = np.maximum(age_days, 0.0) / np.float32(self.config.rise_days)
        risen = _OLD_POPULARITY + (1.0 - _OLD_POPULARITY) * age * np.exp(1.0 - age)
        popularity: Array = np.where(age_days < 0, 0.0, risen).astype(np.float32)
        return popularity

    def popularity(
        self, appeal: Float[Array, "..."], uploaded_second: Int[Array, "..."], moment: Int[Array, "..."]
    ) -> Float[Array, "..."]:
        """Gives by how much the public wants a video at the moment, in no unit: the weight of the popular share."""
        wanted: Array = np.exp(np.float32(1.2) * appeal) * self.freshness(_age_days(uploaded_second, moment))
        return wanted

    def click_probability(
        self,
        user: Int[Array, "..."],
        video: Int[Array, "..."],
        moment: Int[Array, "..."],
        position: Int[Array, "..."] | int = 0,
    ) -> Float[Array, "..."]:
        """Gives the probability that the user clicks the video when it is shown at the place `position`, from 0.

        A video that is not yet uploaded is never clicked.
        """
        return self._clicks_and_fractions(user, video, moment, position)[0]

    def expected_watch_seconds(
        self,
        user: Int[Array, "..."],
        video: Int[Array, "..."],
        moment: Int[Array, "..."],
        position: Int[Array, "..."] | int = 0,
    ) -> Float[Array, "..."]:
        """Gives the expected watch time of an impression: click probability × duration × mean watched fraction."""
        clicks, fractions = self._clicks_and_fractions(user, video, moment, position)
        seconds: Array = clicks * fractions * self.catalogue.videos["duration_seconds"][video]
        return seconds

    def outcome(
        self,
        user: Int[Array, "..."],
        video: Int[Array, "..."],
        moment: Int[Array, "..."],
        position: Int[Array, "..."] | int,
        luck: Float[Array, "2 ..."],
    ) -> Float[Array, "..."]:
        """Gives the watch seconds of impressions, 0 where nothing was clicked, for two uniform numbers each.

        The watched fraction is a power of a uniform number, chosen so that its mean is right: E[U^a] = 1 / (1 + a).
        """
        clicks, fractions = self._clicks_and_fractions(user, video, moment, position)
        watched = (
            luck[1].astype(np.float32) ** (1.0 / fractions - 1.0) * self.catalogue.videos["duration_seconds"][video]
        )
        seconds: Array = np.where(luck[0] < clicks, np.maximum(watched, _SHORTEST_WATCH_SECONDS), 0.0)
        return seconds.astype(np.float32)

    def completed(self, video: Int[Array, "..."], watch_seconds: Float[Array, "..."]) -> Bool[Array, "..."]:
        """Says whether a watch counts as completed: half a minute of it, or half of it."""
        half = 0.5 * self.catalogue.videos["duration_seconds"][video]
        whole: Array = (watch_seconds > 0) & ((watch_seconds >= 30.0) | (watch_seconds >= half))
        return whole

    def best(self, user: int, moment: int, k: int, excluded: Int[Array, "_"] | None = None) -> Int[Array, "_"]:
        """Gives the ideal list: the k uploaded videos with the largest expected watch seconds at the first place.

        A scan of the whole catalogue, a million videos at a time: for judging, not for serving.
        """
        best, value = np.zeros(0, dtype=np.int64), np.zeros(0)
        for start in range(0, self.config.videos, _BLOCK_VIDEOS):
            video = np.arange(start, min(start + _BLOCK_VIDEOS, self.config.videos))
            video = video if excluded is None else video[~np.isin(video, excluded)]
            seconds = self.expected_watch_seconds(np.array([user]), video, np.array([moment]))
            best, value = np.concatenate([best, video]), np.concatenate([value, seconds])
            kept = np.lexsort((best, -value))[:k]
            best, value = best[kept], value[kept]
        uploaded: Array = best[value > 0]
        return uploaded

    def next_in_order(self, user: Int[Array, "rows"], moment: Int[Array, "rows"]) -> Int[Array, "rows followed"]:
        """Gives where each user is in the series and artists followed; -1 where not begun, at an end, or not any."""
        users = self.audience.users[user]
        channels = self.catalogue.channels[users["followed"]]
        place = _place(users, moment[:, None])
        active = (users["followed"] >= 0) & (place >= 0) & (place < channels["size"])
        videos: Array = np.where(active, channels["first"] + place, -1)
        return videos

    def _affinity(self, users: Array, videos: Array, moment: Array) -> Array:
        weights = self.taste_weights(moment)
        rest = 1.0 - videos["main_weight"]
        total = np.float32(0.0)
        for place in range(NUM_TASTES):
            taste = users["tastes"][..., place]
            share = (taste == videos["main_topic"]) * videos["main_weight"] + (taste == videos["second_topic"]) * rest
            total = total + weights[..., place] * share
        affinity: Array = np.minimum(total, np.float32(1.0))
        return affinity

    def _clicks_and_fractions(
        self, user: Array, video: Array, moment: Array, position: Array | int
    ) -> tuple[Array, Array]:
        users, videos = self.audience.users[user], self.catalogue.videos[video]
        affinity = self._affinity(users, videos, moment)
        freshness = self.freshness(_age_days(videos["uploaded_second"], moment))
        foreign = users["language"] != videos["language"]
        logit = (
            np.float32(-2.8)
            + np.float32(3.5) * affinity
            + np.float32(0.5) * videos["appeal"]
            + np.float32(0.6) * videos["thumbnail"]
            + np.float32(0.6) * np.log(np.maximum(freshness, np.float32(1e-9)))
            - np.float32(2.0) * foreign
            + self._wants_in_order(users, video, videos, moment)
            - np.float32(0.25) * np.log2(np.asarray(position, dtype=np.float32) + 1.0)
        )
        clicks = np.where(freshness > 0, _logistic(logit), np.float32(0.0))
        longer = np.log(videos["duration_seconds"] / np.float32(240.0))
        fraction = _logistic(
            np.float32(-0.6)
            + np.float32(2.0) * affinity
            + np.float32(0.8) * videos["quality"]
            - np.float32(0.8) * longer
            + np.float32(0.4) * (users["device"] == TV)
            - np.float32(0.3) * (users["device"] == PHONE) * longer
        )
        return clicks, fraction

    def _wants_in_order(self, users: Array, video: Array, videos: Array, moment: Array) -> Array:
        """Who follows a channel wants the one video that comes next there, and the others less than usual."""
        wish = np.float32(0.0)
        for nth in range(NUM_FOLLOWED):
            follows = users["followed"][..., nth] == videos["channel"]
            if not follows.any():
                continue
            place = _place(users, moment[..., None])[..., nth]
            is_next = video - self.catalogue.channels["first"][videos["channel"]] == place
            wish = wish + follows * np.where(is_next, np.float32(3.0), np.float32(-1.0))
        return np.asarray(wish, dtype=np.float32)


def _place(users: Array, moment: Array) -> Array:
    """How far followers have come in each followed channel, from 0; negative before they began."""
    days = ((moment - START_SECOND) / SECONDS_OF_A_DAY).astype(np.float32)
    place: Array = np.floor(users["places_a_day"] * (days - users["joined_day"])).astype(np.int32)
    return place


def _age_days(uploaded_second: Array, moment: Array) -> Array:
    return ((moment - START_SECOND - uploaded_second) / SECONDS_OF_A_DAY).astype(np.float32)


def _logistic(logit: Array) -> Array:
    probability: Array = 1.0 / (1.0 + np.exp(-logit))
    return probability
