"""Reading a log: every row is checked; good rows become tables, bad ones are kept with their reason."""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from watchnext.errors import ConfigurationError, DataError
from watchnext.events.checks import checks_of, typed
from watchnext.events.mapping import LogMapping, Source
from watchnext.events.readers import ROW_NUMBER, quoted, relation
from watchnext.events.schema import EXTENSIBLE, TABLES, Column
from watchnext.progress import bar

_STORED = {
    "user id": "BIGINT",
    "video id": "BIGINT",
    "time": "BIGINT",
    "seconds": "DOUBLE",
    "number": "DOUBLE",
    "flag": "BOOLEAN",
    "tags": "VARCHAR[]",
}
_ID_KINDS = ("user id", "video id")
_TEXT_KINDS = ("user id", "video id", "text", "tags", "category")
_SHOWN_REJECTS = 10
_DUCKDB_SHARE = 0.6  # of the memory; the rest is for what its limit does not count, and for the arrays being written
_LITERALS = ("null", "true", "false")
BROKEN_LINES = """
    SELECT DISTINCT ON (line)
           line - skip_rows - CAST(has_header AS INTEGER) AS row,
           coalesce(column_name, '(line)') AS "column",
           lower(CAST(error_type AS VARCHAR)) || ': ' || split_part(error_message, chr(10), 1) AS reason
    FROM reject_errors JOIN reject_scans USING (scan_id, file_id) ORDER BY line, column_idx
"""
"""SQL: the CSV lines that DuckDB itself could not split into columns or convert."""


@dataclass(frozen=True)
class EventLog:
    """Checked tables in a DuckDB database: think of it as the user's log with our column names.

    The tables of the schema always exist, empty where the log has none, besides `rejects`
    (table, file, row, column, reason). `user_id` and `video_id` have one type each in all of them:
    BIGINT, or VARCHAR where an id is not an integer.
    """

    connection: duckdb.DuckDBPyConnection
    mapping: LogMapping

    def rows(self, table: str) -> int:
        """Gives the number of accepted rows of `table`."""
        return int(self.one(f"SELECT count(*) FROM {table}"))

    def one(self, sql: str) -> Any:
        """Gives the first value of the first row."""
        return self.connection.execute(sql).fetchall()[0][0]

    def columns(self, table: str) -> dict[str, str]:
        """Gives the name and SQL type of each column of `table`."""
        return {name: kind for name, kind, *_ in self.connection.execute(f"DESCRIBE {table}").fetchall()}

    def write_rejects(self, path: Path) -> None:
        """Writes the rejected rows to a Parquet file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.connection.execute(f"COPY rejects TO {quoted(str(path))} (FORMAT parquet)")

    def refuse_too_many_rejects(self) -> None:
        """Refuses a log whose share of rejected rows exceeds `[log] max_reject_share`.

        Raises:
            DataError: too many bad rows, with the first ten; or no event at all.
        """
        rejected = self.rows("rejects")
        accepted = sum(self.rows(table) for table in TABLES)
        if rejected > self.mapping.max_reject_share * (accepted + rejected):
            first = self.connection.execute(f"SELECT * FROM rejects LIMIT {_SHOWN_REJECTS}").fetchall()
            lines = "\n".join(
                f"  {Path(file).name or table} row {row}: {column}: {why}" for table, file, row, column, why in first
            )
            raise DataError(
                f"{rejected:,} of {accepted + rejected:,} rows were rejected, more than the "
                f"{self.mapping.max_reject_share:.1%} that [log] max_reject_share allows. The first:\n{lines}"
            )
        if self.rows("watches") + self.rows("impressions") == 0:
            raise DataError("the log holds no watches and no impressions: there is nothing to learn from.")


@contextmanager
def read_log(mapping: LogMapping, memory_gigabytes: float = 8.0) -> Iterator[EventLog]:
    """Reads and checks the whole log into a temporary database that lives as long as the block.

    Raises:
        DataError: a file cannot be read or lacks a column.
        ConfigurationError: an expression of the mapping is not valid.
    """
    with TemporaryDirectory(prefix="watchnext-") as scratch:
        connection = duckdb.connect(f"{scratch}/log.duckdb")
        try:
            connection.execute(f"SET memory_limit='{_DUCKDB_SHARE * memory_gigabytes}GB'")
            connection.execute(f"SET temp_directory={quoted(scratch)}")
            connection.execute("SET TimeZone='UTC'")
            connection.execute("SET enable_progress_bar=false")
            # DuckDB folds isnan() away by statistics of Parquet files, which leave NaN out.
            connection.execute("SET disabled_optimizers='statistics_propagation'")
            log = EventLog(connection, mapping)
            _read_all(log, Path(scratch))
            yield log
        finally:
            connection.close()


def _read_all(log: EventLog, scratch: Path) -> None:
    connection = log.connection
    connection.execute(
        'CREATE TABLE rejects ("table" VARCHAR, file VARCHAR, row BIGINT, "column" VARCHAR, reason VARCHAR)'
    )
    num_files = sum(len(source.files) for source in log.mapping.sources)
    with bar("reading the log", num_files) as progress:
        for table, columns in TABLES.items():
            declared = ", ".join(f'"{column.name}" {_STORED.get(column.kind, "VARCHAR")}' for column in columns)
            connection.execute(f"CREATE TABLE {table} ({declared})")
            for source in log.mapping.sources:
                if source.table == table:
                    for file in source.files:
                        _read_file(connection, source, file, scratch)
                        progress.advance()
    for table, key in (("users", "user_id"), ("videos", "video_id")):
        _reject_repeated_ids(connection, table, key)
    for kind in ("user_id", "video_id"):
        _unify_ids(log, kind)


def _read_file(connection: duckdb.DuckDBPyConnection, source: Source, file: Path, scratch: Path) -> None:
    columns = _all_columns(source)
    texts = {
        source.columns.get(column.name, column.name) for column in TABLES[source.table] if column.kind in _TEXT_KINDS
    }
    try:
        names = _file_columns(connection, relation(file, source.format, (), scratch))
        select = relation(file, source.format, tuple(name for name in names if name in texts), scratch)
        expressions = _expressions(source, columns, names, file)
        projected = ", ".join(f'({expression}) AS "{name}"' for name, expression in expressions.items())
        raw = f"SELECT {projected}, {ROW_NUMBER} FROM ({select}) WHERE {source.where}"
        _forget_broken_lines(connection)
        kind = "VIEW" if source.format == "parquet" else "TABLE"  # text is parsed once, typed columns need no copy
        connection.execute(f"CREATE OR REPLACE TEMP {kind} raw AS {raw}")
        unwrap_json(connection)
        _sort_good_from_bad(connection, source, file, columns, expressions)
    except duckdb.BinderException as unbound:
        raise _explained(connection, unbound, source, file, scratch) from unbound
    except (duckdb.ParserException, duckdb.CatalogException) as wrong:
        raise ConfigurationError(f"{source.name} has an expression that is not SQL: {_first_line(wrong)}") from wrong
    except (duckdb.ConversionException, duckdb.OutOfRangeException) as wrong:
        raise DataError(
            f"{source.name} {file}: an expression met a value that it cannot convert: "
            f"{_first_line(wrong)}. Use TRY_CAST for columns that hold odd values."
        ) from wrong
    except (duckdb.IOException, duckdb.InvalidInputException) as unreadable:
        raise DataError(f"{file} cannot be read as {source.format}: {_first_line(unreadable)}") from unreadable
    connection.execute(f"DROP {kind} raw")


def _all_columns(source: Source) -> tuple[Column, ...]:
    """The schema's columns and the user's further ones; how a further one is kept depends on its type."""
    known = TABLES[source.table]
    names = {column.name for column in known}
    further = (Column(name, "category") for name in source.columns if name not in names)
    return known + (tuple(further) if source.table in EXTENSIBLE else ())


def _file_columns(connection: duckdb.DuckDBPyConnection, select: str) -> tuple[str, ...]:
    described = connection.execute(f"DESCRIBE {select}").fetchall()
    return tuple(name for name, *_ in described if name != ROW_NUMBER)


def _expressions(source: Source, columns: tuple[Column, ...], names: tuple[str, ...], file: Path) -> dict[str, str]:
    """The SQL of each mapped column; a bare word is a column's name, even `user`, which SQL would answer itself."""
    found = {}
    lower_names = {name.lower() for name in names}
    for column in columns:
        expression = source.columns.get(column.name, column.name if column.name in names else None)
        bare = expression is None or (expression.isidentifier() and expression.lower() not in _LITERALS)
        wanted = expression or column.name
        if bare and wanted.lower() not in lower_names and (expression or column.required):
            nearest = difflib.get_close_matches(wanted, names, n=1)
            advice = f" The nearest is '{nearest[0]}'." if nearest else ""
            raise DataError(
                f"{source.name} needs {wanted}, but {file.name} has no column of that name; it has: "
                f"{', '.join(names)}.{advice} Map it under [{source.table}.columns]."
            )
        if expression is not None:
            found[column.name] = f'"{expression}"' if bare or expression in names else expression
    return found


def _explained(
    connection: duckdb.DuckDBPyConnection, error: duckdb.Error, source: Source, file: Path, scratch: Path
) -> DataError:
    names = _file_columns(connection, relation(file, source.format, (), scratch))
    wrong = str(error).split('"')[1] if '"' in str(error) else ""
    nearest = difflib.get_close_matches(wrong, names, n=1)
    advice = f" Did you mean '{nearest[0]}'?" if nearest else ""
    return DataError(
        f"{source.name} cannot be read from {file.name}: {_first_line(error)} It has: {', '.join(names)}.{advice}"
    )


def _sort_good_from_bad(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    file: Path,
    columns: tuple[Column, ...],
    expressions: dict[str, str],
) -> None:
    types = {name: kind for name, kind, *_ in connection.execute("DESCRIBE raw").fetchall()}
    values, checks = [], []
    for column in columns:
        if column.name not in expressions:
            continue
        value, kind = typed(column, types[column.name])
        unknown = column.kind == "seconds" and expressions[column.name].strip().upper() == "NULL"
        values.append(f'{value} AS "{column.name}"')
        checks += checks_of(column, value, required=column.required and not unknown)
        connection.execute(f'ALTER TABLE {source.table} ADD COLUMN IF NOT EXISTS "{column.name}" {kind}')
        if column.kind in _ID_KINDS and kind == "VARCHAR":  # ids are integers until a file has text
            connection.execute(f'ALTER TABLE {source.table} ALTER COLUMN "{column.name}" TYPE VARCHAR')
    if source.format == "csv":
        row = f"{ROW_NUMBER} + (SELECT count(*) FROM broken WHERE broken.row - nth < {ROW_NUMBER})"
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE broken AS SELECT *, row_number() OVER (ORDER BY row) AS nth "
            f"FROM ({BROKEN_LINES})"
        )
        connection.execute(
            f"INSERT INTO rejects SELECT '{source.table}', {quoted(str(file))}, row, \"column\", reason FROM broken"
        )
    else:
        row = ROW_NUMBER
    reason = " ".join(f"WHEN {broken} THEN ['{name}', {why}]" for name, broken, why in checks)
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE checked AS SELECT {', '.join(values)}, {ROW_NUMBER}, "
        f"CASE {reason} ELSE NULL END AS __reason FROM raw"
    )
    names = ", ".join(f'"{column.name}"' for column in columns if column.name in expressions)
    connection.execute(f"INSERT INTO {source.table} ({names}) SELECT {names} FROM checked WHERE __reason IS NULL")
    connection.execute(
        f"INSERT INTO rejects SELECT '{source.table}', {quoted(str(file))}, {row}, __reason[1], __reason[2] "
        f"FROM checked WHERE __reason IS NOT NULL"
    )
    connection.execute("DROP TABLE checked")


def _forget_broken_lines(connection: duckdb.DuckDBPyConnection) -> None:
    for table in ("reject_errors", "reject_scans"):
        connection.execute(f"DROP TABLE IF EXISTS {table}")


def unwrap_json(connection: duckdb.DuckDBPyConnection) -> None:
    """Makes columns of mixed JSON values plain text: `x`, not `"x"`."""
    for name, kind, *_ in connection.execute("DESCRIBE raw").fetchall():
        if kind == "JSON":
            connection.execute(f'ALTER TABLE raw ALTER COLUMN "{name}" TYPE VARCHAR USING "{name}" ->> \'$\'')


def _reject_repeated_ids(connection: duckdb.DuckDBPyConnection, table: str, key: str) -> None:
    """Keeps the first row of each id."""
    repeated = f"SELECT rowid, row_number() OVER (PARTITION BY {key} ORDER BY rowid) AS nth FROM {table}"
    connection.execute(
        f"INSERT INTO rejects SELECT '{table}', '', rowid + 1, '{key}', 'this id came before' "
        f"FROM ({repeated}) WHERE nth > 1"
    )
    connection.execute(f"DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM ({repeated}) WHERE nth > 1)")


def _unify_ids(log: EventLog, key: str) -> None:
    """Makes ids integers in all tables where every one of them is written as a plain integer, and text otherwise."""
    tables = [table for table, columns in TABLES.items() if any(column.name == key for column in columns)]
    texts = [table for table in tables if log.columns(table)[key] == "VARCHAR"]
    if not texts:
        return
    odd = " UNION ALL ".join(
        f"SELECT 1 FROM {table} WHERE CAST(TRY_CAST({key} AS BIGINT) AS VARCHAR) IS DISTINCT FROM {key}"
        for table in texts
    )
    plain = log.one(f"SELECT count(*) FROM (SELECT 1 FROM ({odd}) LIMIT 1)") == 0
    for table in texts if plain else set(tables).difference(texts):
        log.connection.execute(f"ALTER TABLE {table} ALTER COLUMN {key} TYPE {'BIGINT' if plain else 'VARCHAR'}")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
