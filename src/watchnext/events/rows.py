"""Reading rows that are asked about rather than learnt from: users to recommend to, impressions to score."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
import pyarrow as pa

from watchnext.errors import DataError
from watchnext.events.checks import checks_of, typed
from watchnext.events.log import BROKEN_LINES, unwrap_json
from watchnext.events.mapping import FORMATS
from watchnext.events.readers import ROW_NUMBER, relation
from watchnext.events.schema import TABLES
from watchnext.shapes import Array, Int

_COLUMNS = {column.name: column for column in TABLES["impressions"]}
_CODES = ("user_id", "video_id", "surface")


@dataclass(frozen=True)
class Rows:
    """A file's own columns, in its order, and the columns that were asked for, times as Unix seconds."""

    table: pa.Table
    columns: dict[str, list[object]]

    def timestamps(self) -> Int[Array, "rows"]:
        """Gives the column `timestamp` as Unix seconds."""
        return np.array(self.columns["timestamp"], dtype=np.int64)


def read_rows(path: Path, required: tuple[str, ...], optional: tuple[str, ...], layout: dict[str, str]) -> Rows:
    """Reads a Parquet, CSV or JSON-lines file whose columns are named as in the schema or as in the log's own files.

    `layout` has the expressions by which the log's files gave each column; a column of the schema's name wins.
    Values are read and checked as those of a log; since each row is asked about, the first bad one is refused.

    Raises:
        DataError: no such file, an unknown format, a required column that is absent, or a bad value or line.
    """
    form = FORMATS.get(path.suffix.lower())
    if not path.is_file():
        raise DataError(f"there is no file {path}.")
    if form is None:
        raise DataError(f"{path.name}: a file ending in {', '.join(FORMATS)} was expected.")
    with duckdb.connect() as connection, TemporaryDirectory() as scratch:
        connection.execute("SET TimeZone='UTC'")
        try:
            _load(connection, path, form, layout, Path(scratch))
            expressions = _expressions(connection, path, required, optional, layout)
            columns = _values(connection, path, expressions, required)
        except duckdb.Error as unreadable:
            raise DataError(f"{path} cannot be read as {form}: {str(unreadable).splitlines()[0]}") from unreadable
        table = connection.sql(f"SELECT * EXCLUDE {ROW_NUMBER} FROM rows ORDER BY {ROW_NUMBER}").to_arrow_table()
    return Rows(table, columns)


def _load(connection: duckdb.DuckDBPyConnection, path: Path, form: str, layout: dict[str, str], scratch: Path) -> None:
    """Puts the file into the table `rows`; codes of a CSV file stay text unless all of them are plain integers."""
    codes = {source for name in _CODES for source in (name, layout.get(name))}
    texts = tuple(name for name in _names(connection, relation(path, form, (), scratch)) if name in codes)
    connection.execute(f"CREATE TABLE rows AS {relation(path, form, texts, scratch)}")
    if form != "csv":
        return
    for row, column, reason in connection.execute(BROKEN_LINES).fetchall():
        raise DataError(f"{path.name} row {row}: {column}: {reason}")
    for name in texts:
        odd = f'CAST(TRY_CAST("{name}" AS BIGINT) AS VARCHAR) IS DISTINCT FROM "{name}"'
        if not connection.execute(f"SELECT 1 FROM rows WHERE {odd} LIMIT 1").fetchall():
            connection.execute(f'ALTER TABLE rows ALTER COLUMN "{name}" TYPE BIGINT')


def _expressions(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    required: tuple[str, ...],
    optional: tuple[str, ...],
    layout: dict[str, str],
) -> dict[str, str]:
    """The SQL of each column that the schema's name or the log's expression gives."""
    names = _names(connection, "SELECT * FROM rows")
    found = {}
    for name in (*required, *optional):
        expression = name if name in names else layout.get(name)
        quoted = f'"{expression}"' if expression in names else expression
        if quoted is not None and _binds(connection, quoted):
            found[name] = quoted
        elif name in required:
            raise DataError(f"{path.name} has no column {name}; it has: {', '.join(names)}.")
    return found


def _binds(connection: duckdb.DuckDBPyConnection, expression: str) -> bool:
    try:
        connection.execute(f"DESCRIBE SELECT {expression} FROM rows")
    except duckdb.BinderException:
        return False
    return True


def _values(
    connection: duckdb.DuckDBPyConnection, path: Path, expressions: dict[str, str], required: tuple[str, ...]
) -> dict[str, list[object]]:
    projected = ", ".join(f'({expression}) AS "{name}"' for name, expression in expressions.items())
    connection.execute(f"CREATE TABLE raw AS SELECT {projected}, {ROW_NUMBER} FROM rows")
    unwrap_json(connection)
    if connection.execute("SELECT (SELECT count(*) FROM raw) <> (SELECT count(*) FROM rows)").fetchall()[0][0]:
        raise DataError(
            f"the log's expressions make several events of one row, so rows of {path.name} cannot be told apart: "
            f"give it the columns {', '.join(expressions)} as they are."
        )
    types = {name: kind for name, kind, *_ in connection.execute("DESCRIBE raw").fetchall()}
    values = {name: typed(_COLUMNS[name], types[name])[0] for name in expressions}
    checks = [check for name in values for check in checks_of(_COLUMNS[name], values[name], name in required)]
    reason = " ".join(f"WHEN {broken} THEN ['{name}', {why}]" for name, broken, why in checks)
    bad = f"SELECT {ROW_NUMBER}, CASE {reason} END AS reason FROM raw WHERE reason IS NOT NULL ORDER BY 1 LIMIT 1"
    for row, (name, why) in connection.execute(bad).fetchall():
        raise DataError(f"{path.name} row {row}: {name}: {why}.")
    found = connection.execute(f"SELECT {', '.join(values.values())} FROM raw ORDER BY {ROW_NUMBER}").fetchall()
    return {name: [row[place] for row in found] for place, name in enumerate(values)}


def _names(connection: duckdb.DuckDBPyConnection, select: str) -> list[str]:
    described = connection.execute(f"DESCRIBE {select}").fetchall()
    return [name for name, *_ in described if name != ROW_NUMBER]
