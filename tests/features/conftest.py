"""Contexts written by hand."""

import numpy as np
import pytest

from watchnext.examples.contexts import UserContext


@pytest.fixture
def context_of():
    """Gives a function from the histories of some users, newest event first, to their context at one moment."""
    return make_context


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
