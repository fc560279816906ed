"""A tiny world with its log, and worlds whose every video and user is written by hand."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from watchnext.simulation.audience import USER, Audience
from watchnext.simulation.catalogue import CHANNEL, VIDEO, Catalogue
from watchnext.simulation.log import write_log
from watchnext.simulation.settings import WorldConfig
from watchnext.simulation.world import World

# 3,007 events on pages of 5: 602 pages, the last of which holds 2; eight days do not divide them.
SMALL = WorldConfig(videos=600, users=300, events=3_007, days=8, topics=12, page_size=5, seed=2)

# Made at day -4, so that a video is at its most popular when the log begins; nobody likes its topics.
PLAIN_VIDEO = {
    "channel": 0, "uploaded_second": -4 * 86_400, "main_topic": 0, "second_topic": 1, "main_weight": 1.0,
    "appeal": 0.0, "thumbnail": 0.0, "quality": 0.0, "duration_seconds": 240.0, "language": 0,
}  # fmt: skip
PLAIN_USER = {
    "tastes": (6, 7, 8, 9), "followed": (-1, -1), "joined_day": (0.0, 0.0), "places_a_day": (1.0, 1.0),
    "search_rate": 0.0, "age": 30, "gender": 0, "region": 0, "device": 1, "language": 0,
}  # fmt: skip
PLAIN_CHANNEL = {"first": 0, "size": 100, "kind": 0, "main_topic": 0, "language": 0}
NEVER = {"uploaded_second": 2_000_000_000}

Rows = Sequence[Mapping[str, Any]]
HandMade = Callable[..., World]


def table(kind: np.dtype, plain: Mapping[str, Any], rows: Rows) -> np.ndarray:
    """Gives one record a row: `plain`, but for what the row says otherwise."""
    records = np.zeros(len(rows), dtype=kind)
    for place, row in enumerate(rows):
        for name, value in {**plain, **row}.items():
            records[name][place] = value
    return records


@pytest.fixture(scope="session")
def hand_made() -> HandMade:
    """Gives `hand_made(videos, users, channels, **settings)`: who and what is told, the rest of 100 never uploaded."""

    def make(videos: Rows = ({},), users: Rows = ({},), channels: Rows = ({},), **settings: Any) -> World:
        users = [*users, *[{}] * (2 - len(users))]
        config = WorldConfig(**{"videos": 100, "users": len(users), "days": 10, "topics": 10} | settings)
        unseen = [NEVER] * (100 - len(videos))
        catalogue = Catalogue(
            table(VIDEO, PLAIN_VIDEO, [*videos, *unseen]), table(CHANNEL, PLAIN_CHANNEL, list(channels))
        )
        activity = np.arange(1, len(users) + 1) / len(users)
        return World(config, catalogue, Audience(table(USER, PLAIN_USER, users), activity))

    return make


@pytest.fixture(scope="session")
def small_world() -> World:
    """The world of `small_log`; tests must not change it."""
    return World.build(SMALL)


@pytest.fixture(scope="session")
def small_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written once; tests must not change it."""
    folder = tmp_path_factory.mktemp("simulation") / "log"
    write_log(SMALL, folder, workers=2)
    return folder
