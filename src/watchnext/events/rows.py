"""Reading rows that are asked about rather than learnt from: users to recommend to, impressions to score."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
import pyarrow as pa

from watchnext.errors import DataError
from watchnext.events.mapping import FORMATS
from watchnext.events.readers import ROW_NUMBER, relation
from watchnext.shapes import Array, Int


@dataclass(frozen=True)
class Rows:
    """A file's own columns, in its order, and the columns that were asked for."""

    table: pa.Table
    columns: dict[str, list[object]]

    def timestamps(self) -> Int[Array, "rows"]:
        """Gives the column `timestamp` as Unix seconds."""
        return np.array(self.columns["timestamp"], dtype=np.int64)


def read_rows(path: Path, required: tuple[str, ...], optional: tuple[str, ...], layout: dict[str, str]) -> Rows:
    """Reads a Parquet, CSV or JSON-lines file whose columns are named as in the schema or as in the log's own files.

    `layout` has the expressions by which the log's files gave each column; a column of the schema's name wins.

    Raises:
        DataError: no such file, an unknown format, a required column that is absent, or a missing value in one.
    """
    form = FORMATS.get(path.suffix.lower())
    if not path.is_file():
        raise DataError(f"there is no file {path}.")
    if form is None:
        raise DataError(f"{path.name}: a file ending in {', '.join(FORMATS)} was expected.")
    with duckdb.connect() as connection, TemporaryDirectory() as scratch:
        connection.execute("SET TimeZone='UTC'")
        try:
            connection.execute(f"CREATE TABLE rows AS {relation(path, form, (), Path(scratch))}")
        except duckdb.Error as unreadable:
            raise DataError(f"{path} cannot be read as {form}: {str(unreadable).splitlines()[0]}") from unreadable
        names = [name for name, *_ in connection.execute("DESCRIBE rows").fetchall() if name != ROW_NUMBER]
        found = {name: _column(connection, name, names, layout) for name in (*required, *optional)}
        _refuse_gaps(path, {name: found[name] for name in required}, names)
        table = connection.sql(f"SELECT * EXCLUDE {ROW_NUMBER} FROM rows ORDER BY {ROW_NUMBER}").to_arrow_table()
    return Rows(table, {name: values for name, values in found.items() if values is not None})


def _column(
    connection: duckdb.DuckDBPyConnection, name: str, names: list[str], layout: dict[str, str]
) -> list[object] | None:
    """The values of a column, `None` where neither the schema's name nor the log's expression gives it."""
    expression = f'"{name}"' if name in names else layout.get(name)
    if expression is None:
        return None
    if expression in names:
        expression = f'"{expression}"'
    if name == "timestamp":
        text = f"CAST({expression} AS VARCHAR)"
        expression = (
            f"CAST(floor(coalesce(TRY_CAST({text} AS DOUBLE), epoch(TRY_CAST({text} AS TIMESTAMPTZ)))) AS BIGINT)"
        )
    try:
        found = connection.execute(f"SELECT {expression} FROM rows ORDER BY {ROW_NUMBER}").fetchnumpy()
    except duckdb.Error:
        return None
    values = next(iter(found.values()))
    return _plain(values)


def _plain(values: Array) -> list[object]:
    if isinstance(values, np.ma.MaskedArray):
        return [
            None if hidden else value
            for value, hidden in zip(values.data.tolist(), np.ma.getmaskarray(values), strict=True)
        ]
    plain: list[object] = values.tolist()
    return plain


def _refuse_gaps(path: Path, columns: dict[str, list[object] | None], names: list[str]) -> None:
    for name, values in columns.items():
        if values is None:
            raise DataError(f"{path.name} has no column {name}; it has: {', '.join(names)}.")
        if None in values:
            raise DataError(f"{path.name} row {values.index(None) + 1}: {name} is missing or not readable.")
