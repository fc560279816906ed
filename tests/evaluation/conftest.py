"""Users without a past, and impressions made by hand."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from watchnext.examples.contexts import UserContext
from watchnext.examples.impressions import Impressions


def users_without_a_past(batch: int) -> UserContext:
    ids, flags = np.zeros((batch, 1), dtype=np.int64), np.zeros((batch, 1), dtype=bool)
    values, users = np.zeros((batch, 1)), np.arange(batch)
    return UserContext(users, users, ids, ids, values, flags, flags, ids, ids, ids, values)


def impressions_of(
    user_row: Sequence[int], video_row: Sequence[int], watch_seconds: Sequence[float], page: Sequence[int] | None = None
) -> Impressions:
    seconds, nothing = np.array(watch_seconds, dtype=np.float64), np.zeros(len(user_row), dtype=np.int64)
    outcomes = (seconds, seconds > 0, seconds > 10, np.zeros(len(user_row), dtype=bool))
    pages = nothing if page is None else np.array(page)
    return Impressions(np.array(user_row), nothing, np.array(video_row), nothing, nothing, pages, *outcomes)


@pytest.fixture(scope="session")
def make_users() -> Callable[[int], UserContext]:
    """Makes users whose rows are 0, 1, 2, ..."""
    return users_without_a_past


@pytest.fixture(scope="session")
def make_impressions() -> Callable[..., Impressions]:
    """Makes impressions; more than 10 seconds are a completed watch."""
    return impressions_of
