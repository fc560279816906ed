"""Contexts and timelines written by hand."""

import numpy as np
import pytest

from watchnext.events.dataset import Segments, Timelines
from watchnext.examples.contexts import UserContext


@pytest.fixture
def context_of():
    """Gives a function from the histories of some users, newest event first, to their context at one moment."""
    return make_context


@pytest.fixture
def random_context():
    """Gives a function from a seed to the context of a few users with histories of all lengths."""
    return make_random_context


@pytest.fixture
def timelines_of():
    """Gives a function from events (owner, when, completed, watch seconds) to the timelines of `num_owners`."""
    return make_timelines


def make_context(*histories, moment=1000, length=None, watched=(), continuous=(), categorical=()):
    length = max(map(len, histories)) if length is None else length
    batch = len(histories)

    def grid(name, padding, kind):
        rows = [[event.get(name, padding) for event in history] for history in histories]
        return np.array([(row + [padding] * length)[:length] for row in rows], dtype=kind).reshape(batch, length)

    bag = np.array([(list(watched) + [0] * length)[:length]] * batch, dtype=np.int64).reshape(batch, length)
    return UserContext(
        user_row=np.arange(1, batch + 1),
        moment=np.full(batch, moment),
        video_row=grid("video", 0, np.int64),
        timestamp=grid("when", 0, np.int64),
        watch_seconds=grid("seconds", np.nan, np.float32),
        clicked=grid("clicked", False, bool),
        completed=grid("completed", False, bool),
        watched_row=bag,
        token_row=np.zeros((batch, 0), dtype=np.int64),
        categorical=np.array([list(categorical)] * batch, dtype=np.int32).reshape(batch, -1),
        continuous=np.array([list(continuous)] * batch, dtype=np.float32).reshape(batch, -1),
    )


def make_random_context(seed):
    random = np.random.default_rng(seed)
    histories = [
        [
            {
                "video": int(random.integers(0, 8)),
                "when": int(when),
                "seconds": float(random.choice([np.nan, 0.0, 7.0, 40.0])),
                "clicked": bool(random.random() < 0.5),
                "completed": bool(random.random() < 0.5),
            }
            for when in sorted(random.integers(1, 1000, length), reverse=True)
        ]
        for length in (0, 1, 5, 12, 12)
    ]
    return histories, make_context(*histories, length=12)


def make_timelines(events, num_owners):
    events = sorted(events, key=lambda event: event[:2])
    owners = np.array([event[0] for event in events], dtype=np.int64)
    known = [0.0 if np.isnan(event[3]) else event[3] for event in events]
    timed = [not np.isnan(event[3]) for event in events]
    counts = np.bincount(owners, minlength=num_owners)

    def running(values, kind):
        return np.concatenate([np.cumsum(np.array(values)[owners == owner]) for owner in range(num_owners)]).astype(
            kind
        )

    return Timelines(
        Segments(np.concatenate([[0], np.cumsum(counts)]), np.array([event[1] for event in events], dtype=np.int64)),
        running([event[2] for event in events], np.int32),
        running(known, np.float64),
        running(timed, np.int32),
    )
