"""From checked tables to a dataset: DuckDB sorts and counts, NumPy files receive the result in chunks."""

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from watchnext.artifacts import writing
from watchnext.config import PrepareConfig, SplitConfig
from watchnext.errors import ConfigurationError, DataError
from watchnext.events.attributes import write_users, write_videos
from watchnext.events.log import EventLog
from watchnext.events.splits import split_log
from watchnext.events.tokens import TITLE_WORDS, TOKENS
from watchnext.events.vocabulary import Vocabulary, save_column
from watchnext.progress import bar
from watchnext.shapes import Array, Int, Num

_CHUNK_ROWS = 1_000_000
_PARTS_OF_A_SECOND = 1024
_LARGEST_POSITION = np.iinfo(np.int16).max
_POSITION = f"""
    CASE WHEN position >= 1 AND NOT isnan(position) THEN CAST(floor(least(position, {_LARGEST_POSITION})) AS SMALLINT)
         ELSE 0 END
"""
"""SQL: the place on a page, counted from 1; 0 where it is not known."""
_PAGE = "CASE WHEN page_id <> '' THEN 1 + CAST(hash(page_id) >> 34 AS INTEGER) ELSE 0 END"  # NULL has a hash too
"""SQL: a number that impressions of one page share; 0 where it is not known. Only pages of one user are compared."""


def compile_dataset(log: EventLog, path: Path, split: SplitConfig, prepare: PrepareConfig) -> None:
    """Writes the dataset of `log` to `path`, whole or not at all.

    Raises:
        DataError: the log is too short to split, or nothing in it counts as completed.
    """
    facts: dict[str, Any] = {
        "name": log.mapping.name,
        "rejected": log.rows("rejects"),
        "event_columns": log.mapping.event_columns,
    }
    with writing(path, "dataset", settings=prepare, facts=facts) as folder, bar("preparing", 7) as progress:
        _merge_events(log)
        progress.advance()
        facts |= _periods(log, split)
        _vocabularies(log, folder / "vocabularies", facts, prepare)
        progress.advance()
        _write_events(log, folder, facts)
        progress.advance()
        _write_searches(log, folder, facts)
        write_users(log, folder, facts)
        progress.advance()
        write_videos(log, folder, facts, prepare)
        progress.advance()
        for owner in ("video", "channel"):
            _write_timelines(log, folder / f"{owner}_timelines", owner)
            progress.advance()


def _merge_events(log: EventLog) -> None:
    """One row per (user, video, second): exact repeats, and a watch that is also an impression, become one."""
    only_watches = log.rows("impressions") == 0
    try:
        log.connection.execute(
            f"""
            CREATE TABLE merged AS
            SELECT user_id, video_id, timestamp,
                   max(watch_seconds) AS watch_seconds,
                   bool_or(clicked) AS clicked,
                   bool_or(completed) AS completed,
                   bool_or(liked) AS liked,
                   bool_or(shown) AS shown,
                   max(surface) AS surface,
                   max(position) AS position,
                   max(page) AS page
            FROM (
                SELECT user_id, video_id, timestamp, watch_seconds, liked, shown, surface, position, page,
                       coalesce(clicked, watch_seconds > 0, completed, false) AS clicked,
                       coalesce(completed, {log.mapping.completed_rule}, false) AS completed
                FROM (
                    SELECT user_id, video_id, timestamp, watch_seconds, clicked, completed,
                           coalesce(liked, false) AS liked, true AS shown, surface, {_POSITION} AS position,
                           {_PAGE} AS page
                    FROM impressions
                    UNION ALL
                    SELECT user_id, video_id, timestamp, watch_seconds, true, completed,
                           false, {only_watches}, surface, 0, 0
                    FROM watches
                ) LEFT JOIN (SELECT video_id, duration_seconds FROM videos) USING (video_id)
            )
            GROUP BY user_id, video_id, timestamp
            """
        )
    except (
        duckdb.BinderException,
        duckdb.ParserException,
        duckdb.CatalogException,
        duckdb.ConversionException,
    ) as wrong:
        raise ConfigurationError(
            f"[log] completed = {log.mapping.completed_rule!r} is not an SQL condition on watch_seconds, "
            f"duration_seconds and clicked: {str(wrong).splitlines()[0]}"
        ) from wrong
    if not log.one("SELECT count(*) FILTER (completed) FROM merged"):
        raise DataError(
            f"no watch counts as completed under the rule {log.mapping.completed_rule!r}, so there is nothing to "
            "predict. Change [log] completed, or map a 'completed' column."
        )


def _periods(log: EventLog, split: SplitConfig) -> dict[str, Any]:
    return asdict(split_log(log, "merged", split)) | {
        "completed_rule": log.mapping.completed_rule,
        "has_impressions": log.rows("impressions") > 0,
        "num_repeats": log.rows("impressions") + log.rows("watches") - log.rows("merged"),
    }


def _vocabularies(log: EventLog, folder: Path, facts: dict[str, Any], config: PrepareConfig) -> None:
    past = f"FROM merged WHERE timestamp < {facts['test_start']}"
    facts["user_categories"], facts["user_numbers"] = _split_by_type(log, "users", skip=("user_id",))
    facts["video_categories"], facts["video_numbers"] = _split_by_type(
        log, "videos", skip=("video_id", "channel_id", "tags", "title", "uploaded_at")
    )
    queries = {
        "videos": (
            f"{_video_counts(past, config.unwatched_videos)} ORDER BY n DESC, m DESC, id LIMIT {config.max_videos}"
        ),
        "users": (
            "SELECT id FROM (SELECT user_id AS id FROM merged UNION SELECT user_id FROM users "
            "UNION SELECT user_id FROM searches) ORDER BY id"
        ),
        "surfaces": _most_frequent("surface", past, config.max_categories),
        "search_tokens": _most_frequent(
            "token",
            f"FROM (SELECT unnest({TOKENS}) AS token FROM searches WHERE timestamp < {facts['test_start']})",
            config.max_search_tokens,
        ),
    }
    kept = "FROM videos JOIN videos_vocabulary keys ON video_id = keys.id"
    queries["channels"] = _most_frequent("channel_id", kept, config.max_videos)
    queries["tags"] = _most_frequent("tag", f"FROM (SELECT unnest(tags) AS tag {kept})", config.max_categories)
    queries["title_tokens"] = _most_frequent(
        "word", f"FROM (SELECT unnest({TITLE_WORDS}) AS word {kept})", config.max_search_tokens
    )
    for name in facts["video_categories"]:
        queries[f"videos.{name}"] = _most_frequent(f'videos."{name}"', kept, config.max_categories)
    for name in facts["user_categories"]:
        queries[f"users.{name}"] = _most_frequent(f'"{name}"', "FROM users", config.max_categories)
    for name, query in queries.items():
        _vocabulary(log, name, query).save(folder, name)
    facts["vocabularies"] = list(queries)
    titles = log.connection.sql(
        "SELECT title FROM videos_vocabulary keys LEFT JOIN videos ON video_id = keys.id ORDER BY keys.row"
    ).to_arrow_table()
    save_column(titles["title"], folder / "titles.arrow")
    facts["num_videos_left_out"] = int(
        log.one(
            "SELECT count(*) FROM (SELECT DISTINCT video_id FROM merged) ANTI JOIN videos_vocabulary ON video_id = id"
        )
    )


def _video_counts(past: str, unwatched_videos: bool) -> str:
    """Videos of the past with their completed watches and their events; and those that are only described."""
    counts = f"SELECT video_id AS id, count(*) FILTER (completed) AS n, count(*) AS m {past} GROUP BY id"
    if not unwatched_videos:
        return counts
    described = "SELECT video_id AS id, 0 AS n, 0 AS m FROM videos"
    return f"SELECT id, max(n) AS n, max(m) AS m FROM ({counts} UNION ALL {described}) GROUP BY id"


def _most_frequent(column: str, source: str, limit: int) -> str:
    values = f"SELECT {column} AS value {source}"
    return (
        f"SELECT value AS id, count(*) AS n FROM ({values}) WHERE value IS NOT NULL GROUP BY value "
        f"ORDER BY n DESC, value LIMIT {limit}"
    )


def _split_by_type(log: EventLog, table: str, skip: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The categorical and the numeric columns of `table` that hold anything at all."""
    types = {name: kind for name, kind in log.columns(table).items() if name not in skip}
    filled = [name for name in types if log.one(f'SELECT count("{name}") FROM {table}')]
    return [name for name in filled if types[name] == "VARCHAR"], [name for name in filled if types[name] != "VARCHAR"]


def _vocabulary(log: EventLog, name: str, query: str) -> Vocabulary:
    """Keeps the id → row table in the database, for joins, and gives the vocabulary."""
    table = f'"{name}_vocabulary"'
    log.connection.execute(f"CREATE TABLE {table} AS SELECT id, row_number() OVER () AS row FROM ({query})")
    return Vocabulary(
        log.connection.sql(f"SELECT id FROM {table} ORDER BY row").to_arrow_table()["id"].combine_chunks()
    )


def _write_events(log: EventLog, folder: Path, facts: dict[str, Any]) -> None:
    log.connection.execute(
        """
        CREATE TABLE events AS
        SELECT users.row AS owner, timestamp, coalesce(videos.row, 0) AS video_row, watch_seconds, clicked, completed,
               liked, shown, coalesce(surfaces.row, 0) AS surface_row, position, page
        FROM merged
        JOIN users_vocabulary users ON user_id = users.id
        LEFT JOIN videos_vocabulary videos ON video_id = videos.id
        LEFT JOIN surfaces_vocabulary surfaces ON surface = surfaces.id
        ORDER BY ALL
        """
    )
    log.connection.execute("DROP TABLE merged")
    owners = log.rows("users_vocabulary") + 1
    kinds = {
        "timestamp": "<i8",
        "video_row": "<i4",
        "watch_seconds": "<f4",
        "clicked": "|b1",
        "completed": "|b1",
        "liked": "|b1",
        "shown": "|b1",
        "surface_row": "<i4",
        "position": "<i2",
        "page": "<i4",
    }
    _write_segments(log, folder / "events", "SELECT * FROM events", kinds, owners)
    watches = (
        "SELECT owner, timestamp, place AS places FROM (SELECT *, row_number() OVER () - 1 AS place FROM events) "
        "WHERE completed AND video_row > 0"
    )
    _write_segments(log, folder / "watches", watches, {"timestamp": "<i8", "places": "<i8"}, owners)
    facts["num_events"] = log.rows("events")
    facts["num_watches"] = int(log.one("SELECT count(*) FROM events WHERE completed AND video_row > 0"))
    facts["num_timed"] = int(log.one("SELECT count(*) FROM events WHERE shown AND watch_seconds IS NOT NULL"))


def _write_searches(log: EventLog, folder: Path, facts: dict[str, Any]) -> None:
    tokens = f"""
        SELECT users.row AS owner, timestamp, tokens.row AS token_row
        FROM (SELECT user_id, timestamp, unnest({TOKENS}) AS token FROM searches)
        JOIN users_vocabulary users ON user_id = users.id JOIN search_tokens_vocabulary tokens ON token = tokens.id
        ORDER BY owner, timestamp, token_row
    """
    owners = log.rows("users_vocabulary") + 1
    _write_segments(log, folder / "searches", tokens, {"timestamp": "<i8", "token_row": "<i4"}, owners)
    facts["num_searches"] = log.rows("searches")


def _write_timelines(log: EventLog, folder: Path, owner: str) -> None:
    """Sorts the events of each owner by time, then turns their columns into running sums.

    Watch times are rounded to 1/1024 of a second, so that every sum is exact, in whatever order it is taken: what one
    owner's sums are, to the last bit, must not depend on another's later events.
    """
    if owner == "channel":
        channels = (
            "(SELECT v.row AS video_row, c.row AS channel FROM videos "
            "JOIN videos_vocabulary v ON video_id = v.id JOIN channels_vocabulary c ON channel_id = c.id)"
        )
        source, key = f"events JOIN {channels} USING (video_row)", "channel"
    else:
        source, key = "events", "video_row"
    query = f"""
        SELECT {key} AS owner, timestamp, CAST(completed AS INTEGER) AS completed,
               round(coalesce(watch_seconds, 0) * {_PARTS_OF_A_SECOND}) / {_PARTS_OF_A_SECOND} AS watch_seconds,
               CAST(watch_seconds IS NOT NULL AS INTEGER) AS num_timed
        FROM {source} WHERE {key} > 0 ORDER BY owner, timestamp, watch_seconds, completed, num_timed
    """
    kinds = {"timestamp": "<i8", "completed": "<i4", "watch_seconds": "<f8", "num_timed": "<i4"}
    _write_segments(log, folder, query, kinds, log.rows(f"{owner}s_vocabulary") + 1)
    offsets = np.load(folder / "offsets.npy")
    for name in ("completed", "watch_seconds", "num_timed"):
        accumulate(np.load(folder / f"{name}.npy", mmap_mode="r+"), offsets)


def accumulate(column: Num[Array, "events"], offsets: Int[Array, "offsets"], block_rows: int = _CHUNK_ROWS) -> None:
    """Turns a column into running sums within each owner's rows, in place, about `block_rows` at a time.

    Blocks hold whole owners, so that the sums do not depend on how the rows arrived.

    >>> column = np.array([1, 2, 3, 4, 5])
    >>> accumulate(column, np.array([0, 2, 2, 5]))
    >>> column.tolist()
    [1, 3, 3, 7, 12]
    """
    first = 0
    while first < len(offsets) - 1:
        last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + block_rows, side="right")) - 1)
        starts = offsets[first:last] - offsets[first]
        sums = np.cumsum(column[offsets[first] : offsets[last]])
        before = np.concatenate([[0], sums])[starts]
        column[offsets[first] : offsets[last]] = sums - np.repeat(before, np.diff(offsets[first : last + 1]))
        first = last


def _write_segments(log: EventLog, folder: Path, query: str, kinds: dict[str, str], owners: int) -> None:
    """Streams the columns of `query`, sorted by `owner`, into array files, and counts the owners' rows."""
    folder.mkdir(parents=True)
    rows = int(log.one(f"SELECT count(*) FROM ({query})"))
    counts = np.zeros(owners + 1, dtype=np.int64)
    with ExitStack() as opened:
        files = {name: opened.enter_context((folder / f"{name}.npy").open("wb")) for name in kinds}
        for name, kind in kinds.items():
            np.lib.format.write_array_header_1_0(files[name], {"descr": kind, "fortran_order": False, "shape": (rows,)})
        for batch in log.connection.sql(query).to_arrow_reader(_CHUNK_ROWS):
            owner = _values(batch, "owner")
            first = int(owner[0])  # the smallest, as they are sorted
            part = np.bincount(owner - first)
            counts[first + 1 : first + 1 + len(part)] += part
            for name, kind in kinds.items():
                files[name].write(_values(batch, name).astype(kind).tobytes())
    np.save(folder / "offsets.npy", np.cumsum(counts))


def _values(batch: pa.RecordBatch, name: str) -> Array:
    values: Array = batch.column(name).to_numpy(zero_copy_only=False)
    return values.astype(np.float64) if values.dtype == object else values
