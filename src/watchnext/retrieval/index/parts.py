"""An index in parts: shards side by side, each an index of its own, merged to one answer."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from watchnext.retrieval.index.protocol import BuiltIndex, Lists
from watchnext.shapes import Array, Bool, Float, Int, RowLists


@dataclass(frozen=True)
class Part:
    """An index over some of the videos: what is row i in there is `numbers[i]` outside; a range says that it is i.

    They ascend, and row 0 is nobody inside as outside.
    """

    index: BuiltIndex
    numbers: Int[Array, "videos"] | range

    @property
    def rows(self) -> Int[Array, "videos"]:
        """What its rows are called outside."""
        return np.arange(len(self.numbers)) if isinstance(self.numbers, range) else self.numbers

    @property
    def last_row(self) -> int:
        """The largest of them."""
        return int(self.numbers[-1])

    def search(
        self,
        queries: Float[Array, "batch dim"],
        k: int,
        excluded: RowLists | None = None,
        allowed: Bool[Array, "_"] | None = None,
    ) -> Lists:
        """Gives the k best of this part; rows as they are called outside."""
        inside = [self.places_of(rows) for rows in excluded] if excluded else None
        found, scores = self.index.search(queries, k, inside, None if allowed is None else self._allowed(allowed))
        return found if isinstance(self.numbers, range) else self.numbers[found].astype(np.int64), scores

    def places_of(self, rows: Int[Array, "_"]) -> Int[Array, "_"]:
        """Gives what those of the rows that are in this part are called inside."""
        places, there = self._look_up(rows)
        return places[there]

    def has(self, rows: Int[Array, "_"]) -> Bool[Array, "_"]:
        """Says of each row whether it is in this part, at most by binary search; nobody is in none."""
        return self._look_up(rows)[1] & (rows > 0)

    def _look_up(self, rows: Int[Array, "_"]) -> tuple[Int[Array, "_"], Bool[Array, "_"]]:
        if isinstance(self.numbers, range):
            return rows, (rows >= 0) & (rows <= self.last_row)
        places = np.searchsorted(self.numbers, rows.astype(self.numbers.dtype))  # of two types, it would copy all
        return places, self.numbers[np.minimum(places, len(self.numbers) - 1)] == rows

    def _allowed(self, allowed: Bool[Array, "_"]) -> Bool[Array, "videos"]:
        """The same of the rows inside; of neighbours without looking up each."""
        if self.last_row == len(self.numbers) - 1:
            return allowed[: len(self.numbers)]
        found: Array = allowed[self.rows]
        return found


class ShardedIndex:
    """Shards that are all searched, their lists merged: of exact shards, the answer of one exact index."""

    def __init__(self, parts: list[Part]) -> None:
        self.parts = parts
        self.is_exact = all(part.index.is_exact for part in parts)

    @classmethod
    def build(
        cls, vectors: Float[Array, "videos dim"], num_shards: int, build: Callable[[Array], BuiltIndex]
    ) -> "ShardedIndex":
        """Builds shards of neighbouring rows, as equal in size as can be."""
        bounds = np.linspace(1, len(vectors), num_shards + 1).astype(np.int64)
        parts = []
        for first, last in pairwise(bounds):
            rows = np.concatenate([[0], np.arange(first, last)])
            parts.append(Part(build(vectors[rows]), rows))
        return cls(parts)

    @property
    def vectors(self) -> Float[Array, "videos dim"]:
        """The vectors of all parts, gathered."""
        rows = np.concatenate([part.rows[1:] for part in self.parts])
        vectors = np.concatenate([part.index.vectors[1:] for part in self.parts])
        return np.concatenate([np.zeros_like(vectors[:1]), vectors[np.argsort(rows)]])

    def search(
        self,
        queries: Float[Array, "batch dim"],
        k: int,
        excluded: RowLists | None = None,
        allowed: Bool[Array, "videos"] | None = None,
    ) -> Lists:
        """Gives the k best rows and their dot products; see `VideoIndex.search`."""
        return merged([part.search(queries, k, excluded, allowed) for part in self.parts], k)


def merged(lists: list[Lists], k: int) -> Lists:
    """Gives the k best of several lists for each query; of equals, the smallest row."""
    rows, scores = (np.concatenate(columns, axis=1) for columns in zip(*lists, strict=True))
    order = np.lexsort((rows, -scores), axis=1)[:, :k]
    return np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)
