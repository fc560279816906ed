"""The recommender of the small world, and what its log tells of one user."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from watchnext.serving.recommender import Recommender


@pytest.fixture(scope="session")
def recommender(small_run) -> Recommender:
    return Recommender.open(small_run.bundle)


@pytest.fixture(scope="session")
def table(small_run) -> Callable[[str], list[dict[str, Any]]]:
    """Gives `table(name)`: the rows of one of the small world's files."""
    return lambda name: pq.read_table(small_run.log_folder / f"{name}.parquet").to_pylist()


@pytest.fixture(scope="session")
def told(table) -> Callable[[int], dict[str, Any]]:
    """Gives `told(user)`: all that the log knows of a user, as the body of a POST request."""

    def tell(user: int) -> dict[str, Any]:
        events = sorted(
            (row for row in table("events") if row["user_id"] == user),
            key=lambda row: row["timestamp"],
        )
        columns = ("video_id", "timestamp", "watch_seconds", "completed")
        known = next(row for row in table("users") if row["user_id"] == user)
        return {
            "history": [{name: row[name] for name in columns} for row in events],
            "searches": [
                {"query": row["query"], "timestamp": row["timestamp"]}
                for row in table("searches")
                if row["user_id"] == user
            ],
            "attributes": {name: value for name, value in known.items() if name != "user_id"},
        }

    return tell


@pytest.fixture(scope="session")
def seen_by(table) -> Callable[[int], set[int]]:
    """Gives `seen_by(user)`: the videos that the log showed the user."""
    return lambda user: {row["video_id"] for row in table("events") if row["user_id"] == user}


@pytest.fixture(scope="session")
def everything(recommender) -> list[int]:
    """Every video of the catalogue."""
    return recommender.bundle.dataset.vocabularies["videos"].ids_of(np.arange(1, recommender.bundle.dataset.num_videos))
