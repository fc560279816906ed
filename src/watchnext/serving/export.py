"""The loop closes: answers and what came of them, as a log that `prepare` reads."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa

from watchnext.artifacts import writing_file
from watchnext.events.readers import quoted
from watchnext.events.schema import TABLES
from watchnext.serving.answer_log import ANSWER_FILES
from watchnext.serving.answered import PLACES
from watchnext.serving.events import LiveEvent
from watchnext.serving.export_tables import (
    EXPLAINED,
    IMPRESSIONS,
    KEYS,
    LATEST_UPLOADS,
    LOG_TOML,
    REMEMBERED,
    SEARCHES,
    SHOWN,
)
from watchnext.serving.stores.protocol import EventStore

_EVENTS_AT_ONCE = 10_000
_DUCKDB_GIGABYTES = 2
_EVENTS = pa.schema(
    [
        ("sequence", pa.int64()),
        ("kind", pa.string()),
        ("timestamp", pa.int64()),
        ("user_id", pa.string()),
        ("video_id", pa.string()),
        ("watch_seconds", pa.float64()),
        ("completed", pa.bool_()),
        ("clicked", pa.bool_()),
        ("liked", pa.bool_()),
        ("position", pa.int32()),
        ("surface", pa.string()),
        ("page_id", pa.string()),
        ("query", pa.string()),
        ("upload", pa.string()),
    ]
)


@dataclass(frozen=True)
class Exported:
    """How much an export holds; `num_watched` of the impressions, beside watches that no impression explains."""

    num_impressions: int
    num_watched: int
    num_unexplained_watches: int
    num_searches: int
    num_videos: int
    num_forgotten: int


def export(store: EventStore, answers: Path, to: Path) -> Exported:
    """Writes impressions, searches, videos and forgotten users as Parquet files into `to`, and their log.toml.

    What was shown is an answer's place or an impression that a client sent, and nothing came of it unless a watch
    says so: one of its page, or else the first within a day and before the video was shown to the user again. What
    forgotten users did up to that moment is left out, and visitors without an id always are. Ids are integers if all
    of them are. Events that are accepted meanwhile wait for the next export.
    """
    with _database() as connection:
        _load_forgotten(connection, store)
        _load_journal(connection, store)
        _load_places(connection, answers)
        for statement in (REMEMBERED, SHOWN, EXPLAINED, LATEST_UPLOADS):
            connection.execute(statement)
        columns = _upload_columns(connection)
        tables = {
            "impressions": IMPRESSIONS,
            "searches": SEARCHES,
            "videos": f"SELECT video_id, {', '.join(columns.values())} FROM uploads ORDER BY video_id",
            "forgotten": "SELECT user_id, forgotten_at FROM forgotten ORDER BY user_id",
        }
        for table, select in tables.items():
            connection.execute(f'CREATE TABLE "{table}_out" AS {select}')
        _write(connection, list(tables), to)
        further = [name for name in columns if name not in {column.name for column in TABLES["videos"]}]
        with writing_file(to / "log.toml") as aside:
            aside.write_text(LOG_TOML + _further(further), encoding="utf-8")
        return _counts(connection)


@contextmanager
def _database() -> Iterator[duckdb.DuckDBPyConnection]:
    with TemporaryDirectory(prefix="watchnext-") as scratch:
        connection = duckdb.connect(f"{scratch}/export.duckdb")
        try:
            connection.execute(f"SET memory_limit='{_DUCKDB_GIGABYTES}GB'")
            connection.execute(f"SET temp_directory={quoted(scratch)}")
            connection.execute("SET enable_progress_bar=false")
            yield connection
        finally:
            connection.close()


def _load_forgotten(connection: duckdb.DuckDBPyConnection, store: EventStore) -> None:
    forgotten = store.forgotten()
    columns = {"user_id": pa.array(forgotten, pa.string()), "forgotten_at": pa.array(forgotten.values(), pa.int64())}
    _insert(connection, "forgotten", pa.table(columns))


def _load_journal(connection: duckdb.DuckDBPyConnection, store: EventStore) -> None:
    """Copies the journal up to its end of now, some events at a time."""
    _insert(connection, "journal", _EVENTS.empty_table())
    end, done = store.last_sequence(), 0
    while done < end and (page := store.since(done, _EVENTS_AT_ONCE)):
        rows = [_row(sequence, event) for sequence, event in page if sequence <= end]
        _insert(connection, "journal", pa.Table.from_pylist(rows, schema=_EVENTS))
        done = page[-1][0]


def _row(sequence: int, event: LiveEvent) -> dict[str, Any]:
    upload = None if event.upload is None else json.dumps(event.upload)
    return vars(event) | {"sequence": sequence, "upload": upload}


def _load_places(connection: duckdb.DuckDBPyConnection, answers: Path) -> None:
    if any(answers.glob(ANSWER_FILES)):
        files = quoted(str(answers / ANSWER_FILES))
        connection.execute(f"CREATE VIEW places AS SELECT * FROM read_parquet({files})")
    else:
        _insert(connection, "places", PLACES.empty_table())


def _insert(connection: duckdb.DuckDBPyConnection, table: str, rows: pa.Table) -> None:
    connection.register("arrived", rows)
    connection.execute(f"CREATE TABLE IF NOT EXISTS {table} AS FROM arrived LIMIT 0")
    connection.execute(f"INSERT INTO {table} FROM arrived")
    connection.unregister("arrived")


def _upload_columns(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """The SQL of each column that uploads have; one that is no plain name cannot be a column of a log."""
    columns, taken = {"uploaded_at": "timestamp AS uploaded_at"}, {"video_id"}
    for key, types in connection.execute(KEYS).fetchall():
        if not key.isidentifier() or key.lower() in taken:
            continue
        taken.add(key.lower())
        value = f"upload[{quoted(key)}]"
        if set(types) <= {"BIGINT", "UBIGINT"}:
            value = f"TRY_CAST({value} AS BIGINT)"
        elif set(types) <= {"BIGINT", "UBIGINT", "DOUBLE"}:
            value = f"CAST({value} AS DOUBLE)"
        elif types == ["ARRAY"]:
            value = f"CAST({value} AS VARCHAR[])"
        else:
            value = f"{value} ->> '$'"
        columns[key] = f'coalesce({value}, timestamp) AS "{key}"' if key == "uploaded_at" else f'{value} AS "{key}"'
    return columns


def _write(connection: duckdb.DuckDBPyConnection, tables: list[str], to: Path) -> None:
    """Writes the tables, their ids as integers where every one of the kind is written as a plain integer."""
    for key, holders in (
        ("user_id", ("impressions", "searches", "forgotten")),
        ("video_id", ("impressions", "videos")),
    ):
        ids = " UNION ALL ".join(f'SELECT {key} AS id FROM "{table}_out"' for table in holders)
        odd = f"SELECT 1 FROM ({ids}) WHERE CAST(TRY_CAST(id AS BIGINT) AS VARCHAR) IS DISTINCT FROM id LIMIT 1"
        if not connection.execute(odd).fetchall():
            for table in holders:
                connection.execute(f'ALTER TABLE "{table}_out" ALTER COLUMN {key} TYPE BIGINT')
    for table in tables:
        with writing_file(to / f"{table}.parquet") as aside:
            connection.execute(f'COPY "{table}_out" TO {quoted(str(aside))} (FORMAT parquet)')


def _further(names: list[str]) -> str:
    entries = "\n".join(f"{text} = {text}" for text in (json.dumps(name, ensure_ascii=False) for name in names))
    return f"[videos.columns]\n{entries}\n" if names else ""


def _counts(connection: duckdb.DuckDBPyConnection) -> Exported:
    return Exported(
        *connection.execute(
            """
            SELECT count(*) FILTER (shown), count(*) FILTER (shown AND clicked), count(*) FILTER (NOT shown),
                   (SELECT count(*) FROM searches_out), (SELECT count(*) FROM videos_out),
                   (SELECT count(*) FROM forgotten_out)
            FROM impressions_out
            """
        ).fetchall()[0]
    )
