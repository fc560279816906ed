"""A full scan in no hurry: whoever serves beside it keeps the disk, the memory and the cores."""

import mmap
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from watchnext.retrieval.index.exact import Struck
from watchnext.retrieval.index.protocol import Lists, checked_queries, padded
from watchnext.retrieval.index.selection import RunningTop
from watchnext.shapes import Array, Bool, Float, RowLists

_ROWS_AT_ONCE = 16_384
_RESTS = 20  # times as long as a block took


class UnhurriedScan:
    """Finds what `ExactIndex` finds, a block after the other, and rests twenty times as long after each.

    Vectors that are mapped are read from their file instead: in the mapping, ten million of them would become this
    process's own memory, a page fault each. `rest` sleeps, and may raise where the scan is to end.
    """

    is_exact = True

    def __init__(self, vectors: Float[Array, "videos dim"], rest: Callable[[float], object]) -> None:
        self.vectors = vectors
        self._rest = rest

    def search(
        self,
        queries: Float[Array, "batch dim"],
        k: int,
        excluded: RowLists | None = None,
        allowed: Bool[Array, "videos"] | None = None,
    ) -> Lists:
        """Gives the k best rows and their dot products; see `VideoIndex.search`."""
        queries = checked_queries(queries, k, self.vectors.shape[1])
        struck = Struck.from_lists(excluded or [], None)
        top = RunningTop(len(queries), max(min(k, len(self.vectors)), 1))
        began = time.perf_counter()
        for first, block in self._blocks():
            if first:
                self._rest(_RESTS * (time.perf_counter() - began))
                began = time.perf_counter()
            scores = torch.from_numpy(queries) @ torch.from_numpy(block).float().T
            if allowed is not None:
                scores[:, torch.from_numpy(~allowed[first : first + len(block)])] = -torch.inf
            if first == 0:
                scores[:, 0] = -torch.inf
            struck.strike(scores, first)
            top.offer(scores, first)
        return padded(*top.best(), k)

    def _blocks(self) -> Iterator[tuple[int, Float[Array, "_ dim"]]]:
        vectors, (count, dim) = self.vectors, self.vectors.shape
        base: Any = vectors.base
        if not isinstance(vectors, np.memmap) or not isinstance(base, mmap.mmap):  # or is part of a mapping
            for first in range(0, count, _ROWS_AT_ONCE):
                yield first, vectors[first : first + _ROWS_AT_ONCE]
            return
        with open(str(vectors.filename), "rb") as file:
            file.seek(vectors.offset)
            for first in range(0, count, _ROWS_AT_ONCE):
                rows = min(_ROWS_AT_ONCE, count - first)
                yield first, np.fromfile(file, vectors.dtype, rows * dim).reshape(rows, dim)
