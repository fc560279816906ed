"""What is known of users and videos themselves, as arrays by row."""

from pathlib import Path
from typing import Any

import numpy as np

from watchnext.artifacts import save_arrays
from watchnext.config import PrepareConfig
from watchnext.events.log import EventLog
from watchnext.events.tokens import TITLE_WORDS
from watchnext.shapes import Array

_LARGEST_NUMBER = float(np.finfo(np.float32).max)


def write_users(log: EventLog, folder: Path, facts: dict[str, Any]) -> None:
    """Writes the categorical and numeric columns of every user; row 0 is an unknown user."""
    rows = log.rows("users_vocabulary") + 1
    source = "FROM users JOIN users_vocabulary keys ON user_id = keys.id"
    categorical = _categories(log, "users", facts["user_categories"], source, rows)
    continuous = _numbers(log, "users", facts["user_numbers"], source, rows)
    save_arrays(folder / "users", {"categorical": categorical, "continuous": continuous})


def write_videos(log: EventLog, folder: Path, facts: dict[str, Any], config: PrepareConfig) -> None:
    """Writes channel, categories, numbers, tags, title, upload time and completed watches of every video."""
    rows = log.rows("videos_vocabulary") + 1
    source = "FROM videos JOIN videos_vocabulary keys ON video_id = keys.id"
    channels = _column(
        log,
        f"SELECT keys.row, c.row AS value {source} JOIN channels_vocabulary c ON channel_id = c.id",
        rows,
        np.int32,
    )
    uploaded = _column(
        log, f"SELECT keys.row, uploaded_at AS value {source} WHERE uploaded_at IS NOT NULL", rows, np.int64
    )
    completed = _column(
        log,
        "SELECT video_row AS row, count(*) AS value FROM events "
        f"WHERE completed AND timestamp < {facts['test_start']} GROUP BY video_row",
        rows,
        np.int32,
    )
    completed[0] = 0
    save_arrays(
        folder / "videos",
        {
            "channel_row": channels,
            "categorical": _categories(log, "videos", facts["video_categories"], source, rows),
            "continuous": _numbers(log, "videos", facts["video_numbers"], source, rows),
            "tag_rows": _lists(log, "tags", "tags", source, rows, config.max_tags),
            "title_rows": _lists(log, TITLE_WORDS, "title_tokens", source, rows, config.max_title_words),
            "uploaded_at": uploaded,
            "num_completed": completed,
        },
    )


def _lists(log: EventLog, values: str, vocabulary: str, source: str, rows: int, most: int) -> Array:
    """The first of a video's listed values as rows of their vocabulary, padded with row 0 to the longest list."""
    listed = log.connection.execute(
        f"SELECT video, nth - 1 AS nth, v.row AS value FROM (SELECT video, unnest(listed) AS value, "
        f"generate_subscripts(listed, 1) AS nth FROM (SELECT keys.row AS video, {values} AS listed {source})) "
        f"JOIN {vocabulary}_vocabulary v ON value = v.id WHERE nth <= {most}"
    ).fetchnumpy()
    width = max(1, int(listed["nth"].max(initial=-1)) + 1)
    table = np.zeros((rows, width), dtype=_rows_type(log, vocabulary))
    table[listed["video"], listed["nth"]] = listed["value"]
    return table


def _categories(log: EventLog, table: str, names: list[str], source: str, rows: int) -> Array:
    types = (_rows_type(log, f"{table}.{name}") for name in names)
    columns = np.zeros((rows, len(names)), dtype=np.result_type(np.int8, *types))
    for place, name in enumerate(names):
        query = (
            f'SELECT keys.row, v.row AS value {source} JOIN "{table}.{name}_vocabulary" v ON {table}."{name}" = v.id'
        )
        columns[:, place] = _column(log, query, rows, np.int32)
    return columns


def _numbers(log: EventLog, table: str, names: list[str], source: str, rows: int) -> Array:
    """Numbers as float32; what does not fit into one, infinity first of all, is unknown."""
    columns = np.full((rows, len(names)), np.nan, dtype=np.float32)
    for place, name in enumerate(names):
        values = log.connection.execute(
            f'SELECT keys.row, {table}."{name}" AS value {source} WHERE abs({table}."{name}") <= {_LARGEST_NUMBER}'
        ).fetchnumpy()
        columns[values["row"], place] = values["value"]
    return columns


def _rows_type(log: EventLog, vocabulary: str) -> np.dtype[Any]:
    """The smallest signed integers that hold every row: tables of all videos lie in memory."""
    return np.min_scalar_type(-1 - log.rows(f'"{vocabulary}_vocabulary"'))


def _column(log: EventLog, query: str, rows: int, kind: type[np.generic]) -> Array:
    column = np.zeros(rows, dtype=kind)
    values = log.connection.execute(query).fetchnumpy()
    column[values["row"]] = values["value"]
    return column
