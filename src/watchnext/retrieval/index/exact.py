"""The index that scans every vector: the oracle, and the fastest choice for small catalogues."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, no_type_check

import numpy as np
import torch
from numba import njit

from watchnext.layers.tensors import tensor_on
from watchnext.native import even_parts, fetch_ahead, side_by_side
from watchnext.retrieval.index.packed import PackedVectors, Vectors
from watchnext.retrieval.index.protocol import Lists, checked_queries, padded
from watchnext.retrieval.index.rounded import UpperBounds, rounded_products_are_fast
from watchnext.retrieval.index.selection import RunningTop, TopOnDevice
from watchnext.shapes import Array, Bool, Float, Int, RowLists, Tensor

_CPU = torch.device("cpu")
_QUERIES_AT_ONCE = 1024
_SCORES_AT_ONCE = {"cpu": 8_000_000, "cuda": 250_000_000}
_QUERIES_WORTH_ROUNDING = 64
_QUERIES_WORTH_PICKING = 4
_BOUNDS_KEPT = 2  # times k


class ExactIndex:
    """Blocks of a matrix product, and the best of each; row 0 is never found.

    The vectors may be packed: those that they stand for are scanned. On the CPU many queries at once are first bounded
    by products of rounded numbers. On another device the vectors lie there, and of videos with equal scores any may be
    found.
    """

    is_exact = True

    def __init__(self, vectors: Vectors, device: torch.device = _CPU) -> None:
        self.vectors = vectors
        self._device = device
        self._lying = None if isinstance(vectors, PackedVectors) else torch.from_numpy(vectors).to(device)

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
            struck = Struck.from_lists(excluded[part] if excluded else [], columns)
            rows[part], scores[part] = self._search_block(queries[part], k, struck, columns)
        return rows, scores

    def save(self, folder: Path) -> None:
        """Writes the vectors."""
        np.save(folder / "vectors.npy", self.vectors[:])

    @classmethod
    def open(cls, folder: Path) -> "ExactIndex":
        """Maps the vectors."""
        return cls(open_vectors(folder))

    def _search_block(
        self, queries: Float[Array, "batch dim"], k: int, struck: "Struck", columns: Int[Array, "columns"] | None
    ) -> Lists:
        """Some queries against all vectors, or against those of the rows `columns`."""
        count = len(self.vectors) if columns is None else len(columns)
        wanted = max(min(k, count), 1)
        search = self._by_products
        if self._device == _CPU:
            if columns is not None and len(queries) <= _QUERIES_WORTH_PICKING:
                search = self._by_picking
            elif self._lying is not None and len(queries) >= _QUERIES_WORTH_ROUNDING and count > _BOUNDS_KEPT * wanted:
                search = self._by_bounds if rounded_products_are_fast() else search
        return padded(*search(queries, wanted, struck, columns), k)

    def _by_products(
        self, queries: Float[Array, "batch dim"], k: int, struck: "Struck", columns: Int[Array, "columns"] | None
    ) -> Lists:
        users = torch.from_numpy(queries).to(self._device)
        return self._scan(lambda part: users @ self._of(part).T, len(queries), k, struck, columns)

    def _of(self, part: Any) -> Float[Tensor, "_ dim"]:
        """The vectors of a slice of rows, or of some rows."""
        if self._lying is not None:
            return self._lying[part]
        return torch.from_numpy(self.vectors[part]).to(self._device)

    def _by_picking(
        self, queries: Float[Array, "batch dim"], k: int, struck: "Struck", columns: Int[Array, "columns"] | None
    ) -> Lists:
        """Reads vectors where they lie, which is faster for one query than to copy them together."""
        return self._scan(
            lambda part: torch.from_numpy(np.stack([exact_scores(one, self.vectors, part.numpy()) for one in queries])),
            len(queries),
            k,
            struck,
            columns,
        )

    def _by_bounds(
        self, queries: Float[Array, "batch dim"], k: int, struck: "Struck", columns: Int[Array, "columns"] | None
    ) -> Lists:
        """Scores those with the highest bounds; where others might be as good, scores all."""
        bounds = UpperBounds(torch.from_numpy(queries))
        rows, highest = self._scan(lambda part: bounds(self._of(part)), len(queries), _BOUNDS_KEPT * k, struck, columns)
        scores = np.where(np.isneginf(highest), highest, 0.0).astype(np.float32)
        side_by_side(_score_lists, even_parts(len(rows), rows.size), (queries, self.vectors, rows, scores))
        order = np.lexsort((rows, -scores), axis=1)[:, :k]
        rows, scores = np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)
        unsure = np.flatnonzero(scores[:, -1] < bounds.at_most(highest[:, -1]))
        if len(unsure):
            rows[unsure], scores[unsure] = self._by_products(queries[unsure], k, struck.of(unsure), columns)
        return rows, scores

    def _scan(
        self,
        score: Callable[[Any], Tensor],
        num_queries: int,
        k: int,
        struck: "Struck",
        columns: Int[Array, "columns"] | None,
    ) -> Lists:
        """Gives the rows that score highest, and how they score; `score` takes a slice of rows, or some rows."""
        count = len(self.vectors) if columns is None else len(columns)
        device = self._device
        top = RunningTop(num_queries, k) if device == _CPU else TopOnDevice(num_queries, k, device)
        block = max(1, _SCORES_AT_ONCE[device.type] // num_queries)
        for first in range(0, count, block):
            part = slice(first, first + block)
            scores = score(part if columns is None else tensor_on(device, columns[part]))
            if columns is None and first == 0:
                scores[:, 0] = -torch.inf
            struck.strike(scores, first)
            top.offer(scores, first)
        places, best = top.best()
        return (places if columns is None or not count else columns[places]), best


def exact_scores(query: Float[Array, "dim"], vectors: Vectors, rows: Int[Array, "rows"]) -> Float[Array, "rows"]:
    """Gives the dot product of the query with each of the rows of `vectors`."""
    if isinstance(vectors, PackedVectors):
        return vectors.scores(query, rows)
    scores = np.empty(len(rows), dtype=np.float32)
    _score(query, vectors, rows, scores)
    return scores


def best_of(
    query: Float[Array, "dim"], vectors: Vectors, rows: Int[Array, "rows"], k: int
) -> tuple[Int[Array, "_"], Float[Array, "_"]]:
    """Gives up to k of the rows with the highest dot products, best first, and these."""
    scores = exact_scores(query, vectors, rows)
    if len(rows) > k:
        kept = scores >= np.partition(scores, -k)[-k]
        rows, scores = rows[kept], scores[kept]
    order = np.lexsort((rows, -scores))[:k]
    return rows[order].astype(np.int64), scores[order]


@njit(nogil=True, cache=True, fastmath={"reassoc", "nsz", "contract"})
@no_type_check  # the tests' type checker would wrap it in what Numba cannot compile
def _score(query: Any, vectors: Any, rows: Any, scores: Any) -> None:  # pragma: no cover  # compiled
    """The same into `scores`."""
    dim = vectors.shape[1]
    flat = vectors.reshape(-1)
    for place in range(len(rows)):
        if place + 6 < len(rows):
            begin = np.int64(rows[place + 6]) * dim
            for component in range(0, dim, 64 // vectors.itemsize):
                fetch_ahead(flat, begin + component)
        vector = vectors[rows[place]]
        total = np.float32(0.0)
        for component in range(dim):
            total += query[component] * vector[component]
        scores[place] = total


@njit(nogil=True, cache=True)
@no_type_check
def _score_lists(
    queries: Any, vectors: Any, rows: Any, scores: Any, begin: int, end: int
) -> None:  # pragma: no cover  # compiled
    """The same of several lists, up to the first score that is -inf in each."""
    for query in range(begin, end):
        there = len(rows[query])
        while there > 0 and scores[query, there - 1] == -np.inf:
            there -= 1
        _score(queries[query], vectors, rows[query, :there], scores[query, :there])


def fill_short_lists(
    lists: Lists,
    vectors: Vectors,
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
class Struck:
    """Pairs of a query and a place that it must not find, in the order of the places."""

    query: Int[Array, "pairs"]
    place: Int[Array, "pairs"]

    @classmethod
    def from_lists(cls, excluded: RowLists, columns: Int[Array, "columns"] | None) -> "Struck":
        """Takes each query's excluded rows; where only some `columns` are scored, a place is one of these."""
        query = np.repeat(np.arange(len(excluded)), [len(rows) for rows in excluded])
        place = np.concatenate([*excluded, np.zeros(0, dtype=np.int64)]).astype(np.int64)
        if columns is not None:
            row, place = place, np.searchsorted(columns, place)
            there = np.append(columns, -1)[place] == row
            query, place = query[there], place[there]
        order = np.argsort(place, kind="stable")
        return cls(query[order], place[order])

    def of(self, queries: Int[Array, "_"]) -> "Struck":
        """Gives the pairs of some queries, which ascend, as these are numbered among themselves."""
        mine = np.isin(self.query, queries)
        return Struck(np.searchsorted(queries, self.query[mine]), self.place[mine])

    def strike(self, scores: Tensor, first: int) -> None:
        """Makes the scores of pairs -inf, of a block of places that begins at `first`."""
        low, high = np.searchsorted(self.place, (first, first + scores.shape[1]))
        if low < high:
            query, place = (tensor_on(scores.device, side[low:high]) for side in (self.query, self.place - first))
            scores[query, place] = -torch.inf


def open_vectors(folder: Path) -> Float[Array, "videos dim"]:
    """Maps `vectors.npy` copy-on-write: PyTorch wants writable memory, the file stays as it is."""
    vectors: Array = np.load(folder / "vectors.npy", mmap_mode="c")
    return vectors
