"""The index that scans every vector: the oracle, and the fastest choice for small catalogues."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from watchnext.retrieval.index.protocol import Lists, checked_queries, padded
from watchnext.retrieval.index.selection import RunningTop
from watchnext.shapes import Array, Bool, Float, Int, RowLists

_QUERIES_AT_ONCE = 1024
_SCORES_AT_ONCE = 8_000_000


class ExactIndex:
    """Blocks of a matrix product, and the best of each; row 0 is never found."""

    is_exact = True

    def __init__(self, vectors: Float[Array, "videos dim"]) -> None:
        self.vectors = vectors

    def search(
        self,
        queries: Float[Array, "batch dim"],
        k: int,
        excluded: RowLists | None = None,
        allowed: Bool[Array, "videos"] | None = None,
    ) -> Lists:
        """Gives the k best rows and their dot products; see `VideoIndex.search`."""
        queries = checked_queries(queries, k, self.vectors.shape[1])
        columns = None if allowed is None else np.flatnonzero(allowed[1:]) + 1
        rows = np.zeros((len(queries), k), dtype=np.int64)
        scores = np.zeros((len(queries), k), dtype=np.float32)
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            part = slice(start, start + _QUERIES_AT_ONCE)
            struck = _Struck.of(excluded[part] if excluded else [], columns)
            rows[part], scores[part] = self._search_block(queries[part], k, struck, columns)
        return rows, scores

    def save(self, folder: Path) -> None:
        """Writes the vectors."""
        np.save(folder / "vectors.npy", self.vectors)

    @classmethod
    def open(cls, folder: Path) -> "ExactIndex":
        """Maps the vectors."""
        return cls(open_vectors(folder))

    def _search_block(
        self, queries: Float[Array, "batch dim"], k: int, struck: "_Struck", columns: Int[Array, "columns"] | None
    ) -> Lists:
        """Some queries against all vectors, or against those of the rows `columns`."""
        count = len(self.vectors) if columns is None else len(columns)
        wanted = min(k, count)
        top = RunningTop(len(queries), max(wanted, 1))
        block = max(1, _SCORES_AT_ONCE // len(queries))
        for first in range(0, count, block):
            part = slice(first, first + block)
            vectors = self.vectors[part] if columns is None else self.vectors[columns[part]]
            scores = (torch.from_numpy(queries) @ torch.from_numpy(vectors).T).numpy()
            if columns is None and first == 0:
                scores[:, 0] = -np.inf
            struck.strike(scores, first)
            top.offer(scores, first)
        places, best = top.best()
        return padded(places if columns is None or not count else columns[places], best, k)


def fill_short_lists(
    lists: Lists,
    vectors: Float[Array, "videos dim"],
    queries: Float[Array, "batch dim"],
    excluded: RowLists | None,
    allowed: Bool[Array, "videos"] | None,
) -> None:
    """Replaces the lists in which an approximate search found too few by those of the exact scan."""
    rows, scores = lists
    k = rows.shape[1]
    last = max(min(k, len(vectors) - 1), 1) - 1
    short = np.flatnonzero(np.isneginf(scores[:, last]))
    if len(short):
        struck = [excluded[place] for place in short] if excluded else None
        rows[short], scores[short] = ExactIndex(vectors).search(queries[short], k, struck, allowed)


@dataclass(frozen=True)
class _Struck:
    """Pairs of a query and a place that it must not find, in the order of the places."""

    query: Int[Array, "pairs"]
    place: Int[Array, "pairs"]

    @classmethod
    def of(cls, excluded: RowLists, columns: Int[Array, "columns"] | None) -> "_Struck":
        query = np.repeat(np.arange(len(excluded)), [len(rows) for rows in excluded])
        place = np.concatenate([*excluded, np.zeros(0, dtype=np.int64)]).astype(np.int64)
        if columns is not None:
            row, place = place, np.searchsorted(columns, place)
            there = np.append(columns, -1)[place] == row
            query, place = query[there], place[there]
        order = np.argsort(place, kind="stable")
        return cls(query[order], place[order])

    def strike(self, scores: Float[Array, "batch block"], first: int) -> None:
        low, high = np.searchsorted(self.place, (first, first + scores.shape[1]))
        scores[self.query[low:high], self.place[low:high] - first] = -np.inf


def open_vectors(folder: Path) -> Float[Array, "videos dim"]:
    """Maps `vectors.npy` copy-on-write: PyTorch wants writable memory, the file stays as it is."""
    vectors: Array = np.load(folder / "vectors.npy", mmap_mode="c")
    return vectors
