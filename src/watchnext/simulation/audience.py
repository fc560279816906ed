"""The users of a world: who they are, what they like, and how that drifts."""

from dataclasses import dataclass

import numpy as np

from watchnext.shapes import Array, Float
from watchnext.simulation.catalogue import PLAIN, Catalogue, drawn, topic_shares
from watchnext.simulation.settings import WorldConfig

NUM_TASTES, NUM_FOLLOWED = 4, 2
USER = np.dtype(
    [
        ("tastes", "<i2", (NUM_TASTES,)),  # topics: two that stay, one that fades, one that grows
        ("followed", "<i4", (NUM_FOLLOWED,)),  # channels watched in order; -1 where there is none
        ("joined_day", "<f4", (NUM_FOLLOWED,)),
        ("places_a_day", "<f4", (NUM_FOLLOWED,)),
        ("search_rate", "<f4"),  # share of the user's sessions that begin with a search
        ("age", "<i2"),
        ("gender", "<i2"),
        ("region", "<i2"),
        ("device", "<i2"),
        ("language", "<i2"),
    ]
)
"""One user."""

GENDERS = ("female", "male", "other")
REGIONS = ("north", "east", "south", "west", "coast", "islands")
DEVICES = ("phone", "desktop", "tv")
PHONE, _, TV = range(3)

_GENDER_SHARES = np.array([0.48, 0.48, 0.04])
_REGION_SHARES = np.array([0.3, 0.25, 0.15, 0.12, 0.1, 0.08])
_LANGUAGE_OF_REGION = np.array([0, 0, 1, 2, 3, 1])
_DEVICE_SHARES = np.array([0.6, 0.25, 0.15])
_CONSIDERED_TOPICS = 4
_AGE_SPREAD_YEARS = 15.0
_ACTIVITY_SPREAD = 1.3
_EARLIEST_JOIN_DAY = -10.0


@dataclass(frozen=True)
class Audience:
    """All users; rows are the ids of the log. `activity` is the cumulative share of sessions, in row order."""

    users: Array
    activity: Float[Array, "users"]

    @classmethod
    def build(cls, config: WorldConfig, catalogue: Catalogue, random: np.random.Generator) -> "Audience":
        """Draws who they are, then what somebody like that likes."""
        users = np.zeros(config.users, dtype=USER)
        count = len(users)
        users["age"] = np.clip(14 + random.gamma(3.0, 7.0, count), 14, 90)
        users["gender"] = drawn(_GENDER_SHARES, count, random)
        users["region"] = drawn(_REGION_SHARES, count, random)
        users["device"] = drawn(_DEVICE_SHARES, count, random)
        users["language"] = _LANGUAGE_OF_REGION[users["region"]]
        searches = random.random(count) < config.search_share
        users["search_rate"] = np.where(searches, 0.2 + 0.6 * random.random(count), 0.0)
        _draw_tastes(users, config.num_topics, random)
        _draw_followed(users, catalogue, config, random)
        activity = np.cumsum(np.exp(_ACTIVITY_SPREAD * random.standard_normal(count)))
        return cls(users, activity / activity[-1])


def _draw_tastes(users: Array, num_topics: int, random: np.random.Generator) -> None:
    """Of some topics considered, a user takes the one that people of the same age and gender like."""
    typical_age = random.uniform(15.0, 60.0, num_topics)
    lean = random.standard_normal((num_topics, len(GENDERS)))
    everybody = np.arange(len(users))
    for place in range(NUM_TASTES):
        considered = drawn(topic_shares(num_topics), len(users) * _CONSIDERED_TOPICS, random).reshape(len(users), -1)
        distance = (users["age"][:, None] - typical_age[considered]) / _AGE_SPREAD_YEARS
        fit = lean[considered, users["gender"][:, None]] - distance**2
        topic = considered[everybody, fit.argmax(axis=1)]
        for _ in range(place):  # a taste counts once: another topic where an earlier taste has it
            taken = (users["tastes"][:, :place] == topic[:, None]).any(axis=1)
            topic = np.where(taken, (topic + 1) % num_topics, topic)
        users["tastes"][:, place] = topic


def _draw_followed(users: Array, catalogue: Catalogue, config: WorldConfig, random: np.random.Generator) -> None:
    """Each of the two lasting tastes brings one series or artist of that topic in the user's language, if any."""
    ordered = np.flatnonzero(catalogue.channels["kind"] != PLAIN)
    key = _key(catalogue.channels["language"][ordered], catalogue.channels["main_topic"][ordered], config)
    order = np.argsort(key, kind="stable")
    for place in range(NUM_FOLLOWED):
        wanted = _key(users["language"], users["tastes"][:, place], config)
        low, high = (np.searchsorted(key[order], wanted, side=side) for side in ("left", "right"))
        chosen = low + np.floor(random.random(len(users)) * (high - low)).astype(np.int64)
        if len(ordered):
            found = ordered[order[np.minimum(chosen, len(ordered) - 1)]]
            users["followed"][:, place] = np.where(high > low, found, -1)
        else:
            users["followed"][:, place] = -1
    users["joined_day"] = random.uniform(_EARLIEST_JOIN_DAY, config.days, (len(users), NUM_FOLLOWED))
    users["places_a_day"] = random.uniform(0.5, 1.5, (len(users), NUM_FOLLOWED))


def _key(language: Array, topic: Array, config: WorldConfig) -> Array:
    return language.astype(np.int64) * config.num_topics + topic
