"""Each file format as something DuckDB can select from, with the row's number in its file."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from watchnext.errors import DataError

ROW_NUMBER = "__row"
_TFRECORD_CHUNK = 65_536


def relation(file: Path, form: str, id_columns: tuple[str, ...], scratch: Path) -> str:
    """Gives the SQL that selects all columns of `file` and its 1-based `__row`.

    `id_columns` are the file's columns that hold ids: in CSV they stay text, so that '007' is not 7.
    TFRecord files are converted to Parquet in `scratch` first.
    """
    if form == "tfrecord":
        file, form = _tfrecord_to_parquet(file, scratch), "parquet"
    name = quoted(str(file))
    if form == "parquet":
        columns = f"* EXCLUDE file_row_number, file_row_number + 1 AS {ROW_NUMBER}"
        return f"SELECT {columns} FROM read_parquet({name}, file_row_number=true)"
    if form == "csv":
        types = ", ".join(f"{quoted(column)}: 'VARCHAR'" for column in id_columns)
        options = f", types={{{types}}}" if types else ""
        scan = f"read_csv({name}, store_rejects=true, rejects_limit=0{options})"
    else:
        scan = f"read_json({name}, format='newline_delimited', ignore_errors=true)"
    return f"SELECT *, row_number() OVER () AS {ROW_NUMBER} FROM {scan}"


def quoted(text: str) -> str:
    """Gives `text` as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def _tfrecord_to_parquet(file: Path, scratch: Path) -> Path:
    """Streams `tf.Example` records into a Parquet file: lists of one value become plain values."""
    try:
        from tfrecord.reader import tfrecord_loader
    except ImportError as missing:
        raise DataError(
            f"{file.name} is a TFRecord file: install the reader with pip install 'watchnext[tfrecord]'."
        ) from missing
    target = scratch / f"{file.name}.parquet"
    writer: pq.ParquetWriter | None = None
    try:
        records = tfrecord_loader(str(file), None)
        while chunk := list(islice(_plain(records), _TFRECORD_CHUNK)):
            batch = pa.Table.from_pylist(chunk, schema=writer.schema if writer else None)
            writer = writer or pq.ParquetWriter(target, batch.schema)
            writer.write_table(batch)
    except (RuntimeError, OSError, ValueError, pa.ArrowException) as broken:
        raise DataError(f"{file} is not a whole TFRecord file of tf.Example: {broken}") from broken
    finally:
        if writer:
            writer.close()
    if writer is None:
        raise DataError(f"{file} holds no records.")
    return target


def _plain(records: Any) -> Iterator[dict[str, Any]]:
    for record in records:
        yield {name: _plain_value(value) for name, value in record.items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    values = [part.decode("utf-8", errors="replace") if isinstance(part, bytes) else part for part in value.tolist()]
    return values[0] if len(values) == 1 else values
