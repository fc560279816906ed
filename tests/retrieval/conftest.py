"""Contexts made by hand, and the generator of the small world."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from watchnext.bundle.bundle import Bundle
from watchnext.examples.contexts import UserContext, context_as_of

ContextMaker = Callable[..., UserContext]


def padded_rows(rows: Sequence[Sequence[int]], width: int) -> np.ndarray:
    return np.array([[*row, *[0] * (width - len(row))] for row in rows], dtype=np.int64).reshape(len(rows), width)


def context_of(watched, shown=None, tokens=None, categorical=None, continuous=None, moment=1_000) -> UserContext:
    batch = len(watched)
    shown = watched if shown is None else shown
    tokens = [[]] * batch if tokens is None else tokens
    length = max(len(row) for row in [*watched, *shown])
    watched_row, video_row = padded_rows(watched, length), padded_rows(shown, length)
    real = video_row > 0
    return UserContext(
        user_row=np.arange(1, batch + 1),
        moment=np.broadcast_to(np.array(moment, dtype=np.int64), batch),
        video_row=video_row,
        timestamp=np.where(real, 1, 0),
        watch_seconds=np.where(real, 1.0, np.nan),
        clicked=real,
        completed=real,
        watched_row=watched_row,
        watched_timestamp=np.where(watched_row > 0, 1, 0),
        token_row=padded_rows(tokens, max(len(row) for row in tokens)),
        categorical=np.array(categorical if categorical is not None else [[]] * batch, dtype=np.int64),
        continuous=np.array(continuous if continuous is not None else [[]] * batch, dtype=np.float64),
    )


@pytest.fixture(scope="session")
def make_context() -> ContextMaker:
    """Makes a context of lists: what each user watched, and optionally was shown, searched and is."""
    return context_of


@pytest.fixture(scope="session")
def small_bundle(small_run) -> Bundle:
    return Bundle.open(small_run.bundle)


@pytest.fixture(scope="session")
def small_context(small_bundle) -> UserContext:
    """Twenty users of the small world at the end of its log."""
    users = np.arange(1, 21)
    return context_as_of(small_bundle.dataset, users, np.full(20, small_bundle.dataset.log_end), 50, 50)
