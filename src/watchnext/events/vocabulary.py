"""Ids outside, dense rows inside."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from watchnext.shapes import Array, Int

UNKNOWN_ROW = 0
"""The row of everything that is not in a vocabulary, and of padding: the zero vector."""

_FEW = 64
_PLAIN_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_LARGEST_ID = np.iinfo(np.int64).max


class Vocabulary:
    """The ids of one space, most frequent first: row 1 is the most frequent, row 0 is 'not in here'.

    Ids are strings or integers, mapped from disk; looking up one id is a binary search.

    >>> import pyarrow as pa
    >>> films = Vocabulary(pa.array(["heat", "alien"]))
    >>> films.rows_of(["alien", "heat", "never seen"]).tolist()
    [2, 1, 0]
    >>> films.ids_of(np.array([1, 2]))
    ['heat', 'alien']
    """

    def __init__(self, ids: pa.Array, order: Array | None = None) -> None:
        self._ids = ids
        self._order = np.asarray(pc.sort_indices(ids)) if order is None else order

    def __len__(self) -> int:
        """The number of rows, row 0 included."""
        return len(self._ids) + 1

    @property
    def id_type(self) -> pa.DataType:
        """How ids are written in files: integers or strings."""
        return self._ids.type

    def rows_of(self, ids: Iterable[Any]) -> Int[Array, "rows"]:
        """Gives the row of each id, 0 for unknown ones (and for ids of another type)."""
        wanted = list(ids)
        if len(wanted) <= _FEW:
            return np.array([self._row_of(one) for one in wanted], dtype=np.int64)
        return self._rows_of_many(pa.array([self.as_written(one) for one in wanted], self._ids.type))

    def ids_of(self, rows: Int[Array, "rows"]) -> list[Any]:
        """Gives the id of each row; `None` for row 0."""
        return list(self.column_of(rows).to_pylist())

    def column_of(self, rows: Int[Array, "rows"]) -> pa.Array:
        """Gives the same as a column, which takes a twentieth of the time."""
        return self._ids.take(pa.array(rows - 1, pa.int64(), mask=rows == UNKNOWN_ROW))

    def rows_in(self, other: "Vocabulary") -> Int[Array, "rows"]:
        """Gives, for every row of this vocabulary, the row of the same id in another one, 0 where it is not there.

        >>> today, yesterday = Vocabulary(pa.array(["heat", "alien"])), Vocabulary(pa.array(["alien"]))
        >>> today.rows_in(yesterday).tolist()
        [0, 0, 1]
        """
        ids, others = self._ids, other._ids
        if ids.type != others.type:  # a log whose ids were all integers may have other ones now
            ids, others = ids.cast(pa.string()), others.cast(pa.string())
        places = np.asarray(pc.fill_null(pc.index_in(ids, value_set=others), -1)).astype(np.int64)
        return np.append(UNKNOWN_ROW, places + 1)

    def save(self, folder: Path, name: str) -> None:
        """Writes the ids and their sorted order."""
        folder.mkdir(parents=True, exist_ok=True)
        save_column(self._ids, folder / f"{name}.arrow")
        np.save(folder / f"{name}.order.npy", self._order)

    @classmethod
    def load(cls, folder: Path, name: str) -> "Vocabulary":
        """Maps what `save` wrote."""
        ids = load_column(folder / f"{name}.arrow")
        return cls(ids, np.load(folder / f"{name}.order.npy", mmap_mode="r"))

    def as_written(self, one: Any) -> Any:
        """Gives an id as the vocabulary writes it, None if it cannot: a command line says '12' where the log says 12.

        >>> import pyarrow as pa
        >>> films = Vocabulary(pa.array([7, 12]))
        >>> films.as_written("12"), films.as_written("heat")
        (12, None)
        """
        if one is None:
            return None
        text = str(one)
        if not pa.types.is_integer(self._ids.type):
            return text
        plain = _PLAIN_INTEGER.fullmatch(text)  # as a log's ids are told to be integers: '007' is not 7
        return int(text) if plain and abs(int(text)) <= _LARGEST_ID else None

    def _row_of(self, one: Any) -> int:
        wanted = self.as_written(one)
        if wanted is None:
            return UNKNOWN_ROW
        low, high = 0, len(self._order)
        while low < high:
            middle = (low + high) // 2
            if self._ids[int(self._order[middle])].as_py() < wanted:
                low = middle + 1
            else:
                high = middle
        found = low < len(self._order) and self._ids[int(self._order[low])].as_py() == wanted
        return int(self._order[low]) + 1 if found else UNKNOWN_ROW

    def _rows_of_many(self, wanted: pa.Array) -> Int[Array, "rows"]:
        places = pc.index_in(wanted, value_set=self._ids, skip_nulls=True)
        return np.asarray(pc.fill_null(places, -1)).astype(np.int64) + 1


def save_column(column: pa.Array | pa.ChunkedArray, path: Path) -> None:
    """Writes one column as an Arrow file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    table = pa.table({"column": whole})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=max(len(table), 1))


def load_column(path: Path) -> pa.Array:
    """Maps the column that `save_column` wrote."""
    column = pa.ipc.open_file(pa.memory_map(str(path))).read_all()["column"]
    return column.chunk(0) if column.num_chunks == 1 else pa.array([], column.type)
