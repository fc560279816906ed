"""A few events written as dictionaries, as the records of a dataset would hold them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from watchnext.artifacts import Artifact
from watchnext.events.dataset import Dataset, SearchTokens, Segments, Timelines, UserEvents, UserTable, VideoTable

NUM_USERS = 6
NOT_SO = {"clicked": False, "completed": False, "liked": False}
NOTHING_KNOWN = {"seconds": np.nan, **NOT_SO, "shown": True, "surface": 1, "position": 0}


@dataclass(frozen=True)
class Records:
    events: UserEvents
    searches: SearchTokens
    users: UserTable


@pytest.fixture
def records_of():
    """Gives a function from events (and searches) to records; user u has the attributes [u, u + 10] and [u / 2]."""
    return make_records


@pytest.fixture
def dataset_of():
    """Gives a function from records, and whether there are impressions, to a dataset that has them and nothing else."""
    return make_dataset


@pytest.fixture
def random_log():
    """Gives a function from a seed to a list of events and one of searches, with many events in the same second."""
    return make_random_log


def make_records(events, searches=()):
    events = sorted(({**NOTHING_KNOWN, **event} for event in events), key=lambda event: (event["user"], event["when"]))
    searches = sorted(searches, key=lambda search: (search["user"], search["when"]))
    places = [place for place, event in enumerate(events) if event["completed"] and event["video"] > 0]
    users = np.arange(NUM_USERS)
    return Records(
        UserEvents(
            segments_of(events),
            column(events, "video", np.int32),
            column(events, "seconds", np.float32),
            column(events, "clicked", bool),
            column(events, "completed", bool),
            column(events, "liked", bool),
            column(events, "shown", bool),
            column(events, "surface", np.int32),
            column(events, "position", np.int16),
            segments_of([events[place] for place in places]),
            np.array(places, dtype=np.int64),
        ),
        SearchTokens(segments_of(searches), column(searches, "token", np.int32)),
        UserTable(np.stack([users, users + 10], axis=1), (users[:, None] / 2).astype(np.float32)),
    )


def make_dataset(records, has_impressions=True):
    none = Segments(np.array([0, 0]), np.zeros(0, dtype=np.int64))
    timelines = Timelines(none, np.zeros(0, np.int32), np.zeros(0), np.zeros(0, np.int32))
    numbers = dict.fromkeys(("channel_row", "uploaded_at", "num_completed"), np.zeros(1, np.int64))
    lists = dict.fromkeys(("categorical", "tag_rows", "title_rows"), np.zeros((1, 0), np.int64))
    return Dataset(
        Artifact(Path("nowhere"), "dataset", "", {}, {}, {"has_impressions": has_impressions}),
        records.events,
        np.zeros(len(records.events.video_row), np.int32),
        records.searches,
        records.users,
        VideoTable(**numbers, **lists, continuous=np.zeros((1, 0))),
        timelines,
        timelines,
        {},
        pa.array([], pa.string()),
    )


def make_random_log(seed):
    random = np.random.default_rng(seed)
    events = [
        {
            "user": int(random.integers(1, NUM_USERS - 1)),  # the last user has no events
            "when": int(random.integers(0, 40)),
            "video": int(random.integers(0, 9)),
            "seconds": float(random.choice([np.nan, 0.0, 5.0, 60.0])),
            "clicked": bool(random.random() < 0.5),
            "completed": bool(random.random() < 0.4),
            "liked": bool(random.random() < 0.2),
            "shown": bool(random.random() < 0.8),
            "surface": int(random.integers(0, 3)),
            "position": int(random.integers(0, 5)),
        }
        for _ in range(120)
    ]
    searches = [
        {"user": int(random.integers(1, NUM_USERS - 1)), "when": int(random.integers(0, 40)), "token": token}
        for token in range(1, 50)
    ]
    order = sorted(range(len(events)), key=lambda place: (events[place]["user"], events[place]["when"]))
    return [events[place] for place in order], sorted(searches, key=lambda search: (search["user"], search["when"]))


def segments_of(rows):
    counts = np.bincount([row["user"] for row in rows], minlength=NUM_USERS) if rows else np.zeros(NUM_USERS, int)
    return Segments(np.concatenate([[0], np.cumsum(counts)]), column(rows, "when", np.int64))


def column(rows, name, kind):
    return np.array([row[name] for row in rows], dtype=kind)
