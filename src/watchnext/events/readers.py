"""Each file format as something DuckDB can select from, with the row's number in its file."""

import hashlib
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from watchnext.errors import DataError

ROW_NUMBER = "__row"
_TFRECORD_CHUNK = 65_536
_ARROW_TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64()}


def relation(file: Path, form: str, text_columns: tuple[str, ...], scratch: Path) -> str:
    """Gives the SQL that selects all columns of `file` and its 1-based `__row`.

    `text_columns` are the file's columns that hold ids or words: in CSV they stay text, so that '007' is not 7.
    TFRecord files are converted to Parquet in `scratch` first.
    """
    if form == "tfrecord":
        file, form = _tfrecord_to_parquet(file, scratch), "parquet"
    name = quoted(str(file))
    if form == "parquet":
        columns = f"* EXCLUDE file_row_number, file_row_number + 1 AS {ROW_NUMBER}"
        return f"SELECT {columns} FROM read_parquet({name}, file_row_number=true)"
    if form == "csv":
        types = ", ".join(f"{quoted(column)}: 'VARCHAR'" for column in text_columns)
        options = f", types={{{types}}}" if types else ""
        scan = f"read_csv({name}, store_rejects=true, rejects_limit=0{options})"
    else:
        scan = f"read_json({name}, format='newline_delimited', ignore_errors=true)"
    return f"SELECT *, row_number() OVER () AS {ROW_NUMBER} FROM {scan}"


def quoted(text: str) -> str:
    """Gives `text` as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def _tfrecord_to_parquet(file: Path, scratch: Path) -> Path:
    """Streams `tf.Example` records into a Parquet file, once; features of one value become plain values."""
    try:
        from tfrecord.reader import tfrecord_loader
    except ImportError as missing:
        raise DataError(
            f"{file.name} is a TFRecord file: install the reader with pip install 'watchnext[tfrecord]'."
        ) from missing
    target = scratch / f"{hashlib.sha256(str(file).encode()).hexdigest()}.parquet"
    if target.exists():
        return target
    try:
        schema = _schema(tfrecord_loader(str(file), None))
        records = (_plain(record, schema) for record in tfrecord_loader(str(file), None))
        with pq.ParquetWriter(target, schema) as writer:
            while chunk := list(islice(records, _TFRECORD_CHUNK)):
                writer.write_table(pa.Table.from_pylist(chunk, schema=schema))
    except Exception as broken:  # the loader lets through whatever protobuf, struct and the allocator raise
        raise DataError(f"{file} is not a whole TFRecord file of tf.Example: {broken}") from broken
    if not schema.names:
        raise DataError(f"{file} holds no records.")
    return target


def _schema(records: Iterable[dict[str, Any]]) -> pa.Schema:
    """The features of all records, as any of them may lack some; one that ever has several values is a list."""
    kinds: dict[str, pa.DataType] = {}
    lists = set()
    for record in records:
        for name, feature in record.items():
            values = _values(feature)
            if values:
                kinds[name] = _ARROW_TYPES[type(values[0])]
            if len(values) > 1:
                lists.add(name)
    return pa.schema([(name, pa.list_(kind) if name in lists else kind) for name, kind in kinds.items()])


def _plain(record: dict[str, Any], schema: pa.Schema) -> dict[str, Any]:
    features = {name: _values(feature) for name, feature in record.items() if name in schema.names}
    return {
        name: values if pa.types.is_list(schema.field(name).type) else next(iter(values), None)
        for name, values in features.items()
    }


def _values(feature: Any) -> list[Any]:
    values = [feature] if isinstance(feature, bytes) else feature.tolist()
    return [value.decode("utf-8", errors="replace") if isinstance(value, bytes) else value for value in values]
