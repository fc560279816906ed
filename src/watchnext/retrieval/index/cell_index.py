"""The approximate index of our own: cells of like vectors, scanned by half bytes, their best by the stored vectors."""

import threading
from dataclasses import fields
from pathlib import Path

import numpy as np

from watchnext.memory import read_soon
from watchnext.native import even_parts, side_by_side
from watchnext.retrieval.index.cell_search import Scratch, nearest_in_cells
from watchnext.retrieval.index.cells import Cells, build_cells
from watchnext.retrieval.index.exact import ExactIndex, best_of, fill_short_lists
from watchnext.retrieval.index.packed import PackedVectors, Vectors
from watchnext.retrieval.index.protocol import CurvePoint, Lists, checked_queries
from watchnext.retrieval.index.tuning import open_tuning, save_tuning
from watchnext.shapes import Array, Bool, Float, Int, RowLists

_CELLS_OF_A_ROOT = 10
_WORTH_OF_A_VECTOR = 8  # codes are looked at in the time in which one stored vector is scored
_TINY = 1e-12
_STEP_OF_EFFORT = 1.25
_FEWEST_LOOKED_AT = 2_000
_HARDER_BY_SHARE = 0.5  # where few are allowed, the k best lie in more cells: measured, see docs/results.md
_EVERYTHING = np.zeros(0, dtype=bool)


class CellIndex:
    """Looks at up to `effort` of the vectors for one query, those in the cells that promise most.

    What it finds is scored by the stored vectors. On disk these are packed: each number is right to 1/4094 of its
    vector's largest. Videos that may not be found are
    passed over while cells are scanned. A query that finds fewer than k is answered by the exact scan, and so are all
    where so few videos are allowed that scoring each is faster.
    """

    is_exact = False

    def __init__(
        self,
        cells: Cells,
        vectors: Vectors,
        effort: int,
        curve: tuple[CurvePoint, ...] = (),
    ) -> None:
        self._cells = cells
        self._own = threading.local()
        self.vectors = vectors
        self.effort = effort
        self.curve = curve

    @classmethod
    def build(cls, vectors: Float[Array, "videos dim"]) -> "CellIndex":
        """Learns about 10·√videos cells and files every vector but row 0."""
        cells = build_cells(vectors, int(_CELLS_OF_A_ROOT * np.sqrt(len(vectors))))
        return cls(cells, vectors, max(_FEWEST_LOOKED_AT, len(vectors) // 20))

    @property
    def num_bytes(self) -> int:
        """The size of the cells, without the stored vectors."""
        return sum(array.nbytes for array in vars(self._cells).values())

    def efforts(self) -> list[int]:
        """Gives numbers of vectors to look at, each a quarter more than the one before, up to all."""
        most = max(len(self.vectors), _FEWEST_LOOKED_AT + 1)
        count = int(np.log(most / _FEWEST_LOOKED_AT) / np.log(_STEP_OF_EFFORT)) + 1
        return [int(step) for step in np.geomspace(_FEWEST_LOOKED_AT, most, max(2, count))]

    def with_effort(self, effort: int, curve: tuple[CurvePoint, ...] = ()) -> "CellIndex":
        """Gives the same index looking at so many vectors."""
        return CellIndex(self._cells, self.vectors, effort, curve)

    def search(
        self,
        queries: Float[Array, "batch dim"],
        k: int,
        excluded: RowLists | None = None,
        allowed: Bool[Array, "videos"] | None = None,
    ) -> Lists:
        """Gives the k best rows and their dot products; see `VideoIndex.search`."""
        queries = checked_queries(queries, k, self.vectors.shape[1])
        share = 1.0 if allowed is None else float(np.count_nonzero(allowed[1:]) / max(len(allowed) - 1, 1))
        budget = int(self.effort / max(share, _TINY) ** _HARDER_BY_SHARE)
        if share * len(self.vectors) * _WORTH_OF_A_VECTOR < min(budget, len(self.vectors)):
            return ExactIndex(self.vectors).search(queries, k, excluded, allowed)
        wanted = max(min(k, len(self.vectors) - 1), 1)
        rows, scores = np.zeros((len(queries), k), dtype=np.int64), np.full((len(queries), k), -np.inf, np.float32)
        arguments = (queries, wanted, excluded, allowed, budget, rows, scores)
        side_by_side(self._search_some, even_parts(len(queries), len(queries) * budget), arguments)
        fill_short_lists((rows, scores), self.vectors, queries, excluded, allowed)
        return rows, scores

    def save(self, folder: Path) -> None:
        """Writes the cells and the vectors."""
        for field in fields(Cells):
            np.save(folder / f"{field.name}.npy", getattr(self._cells, field.name))
        PackedVectors.save(self.vectors, folder)
        save_tuning(folder, self)

    @classmethod
    def open(cls, folder: Path) -> "CellIndex":
        """Maps what `save` wrote."""
        arrays = {field.name: np.load(folder / f"{field.name}.npy", mmap_mode="r") for field in fields(Cells)}
        for array in arrays.values():
            read_soon(array)
        cells = Cells(**arrays)
        return cls(cells, PackedVectors.open(folder), *open_tuning(folder))

    def _search_some(
        self,
        queries: Float[Array, "batch dim"],
        k: int,
        excluded: RowLists | None,
        allowed: Bool[Array, "videos"] | None,
        budget: int,
        rows: Int[Array, "batch _"],
        scores: Float[Array, "batch _"],
        first: int,
        last: int,
    ) -> None:
        """Writes the lists of some queries."""
        for place in range(first, last):
            left_out = excluded[place] if excluded else None
            found = self._search_one(queries[place], k, left_out, allowed, budget)
            rows[place, : len(found[0])], scores[place, : len(found[0])] = found

    def _search_one(
        self,
        query: Float[Array, "dim"],
        k: int,
        excluded: Int[Array, "_"] | None,
        allowed: Bool[Array, "videos"] | None,
        budget: int,
    ) -> tuple[Int[Array, "_"], Float[Array, "_"]]:
        struck = _EVERYTHING
        if excluded is not None and len(excluded):
            struck = self._struck()
            struck[excluded] = True
        rows = nearest_in_cells(
            self._cells, query, k, budget, _EVERYTHING if allowed is None else allowed, struck, self._scratch(k)
        )
        if excluded is not None and len(excluded):
            struck[excluded] = False
        return best_of(query, self.vectors, rows, k)

    def _scratch(self, k: int) -> Scratch:
        """Working memory for lists of k, each thread its own."""
        if getattr(self._own, "k", None) != k:
            self._own.k, self._own.scratch = k, Scratch.of(self._cells, k)
        found: Scratch = self._own.scratch
        return found

    def _struck(self) -> Bool[Array, "videos"]:
        """Marks for excluded rows, all false, each thread its own."""
        if not hasattr(self._own, "struck"):
            self._own.struck = np.zeros(len(self.vectors), dtype=bool)
        found: Array = self._own.struck
        return found
