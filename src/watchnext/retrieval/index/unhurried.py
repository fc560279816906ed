"""A full scan in no hurry: whoever serves beside it keeps the disk, the memory and the cores."""

import math
import mmap
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from watchnext.retrieval.index.exact import Struck
from watchnext.retrieval.index.packed import PackedVectors, Vectors
from watchnext.retrieval.index.protocol import Lists, checked_queries, padded
from watchnext.retrieval.index.selection import RunningTop
from watchnext.shapes import Array, Bool, Float, RowLists

_ROWS_AT_ONCE = 2_048
_RESTS = 50  # times as long as a block took


class UnhurriedScan:
    """Finds what `ExactIndex` finds, a block after the other, and rests fifty times as long after each.

    Vectors that are mapped are read from their file instead: in the mapping, ten million of them would become this
    process's own memory, a page fault each. `rest` sleeps, and may raise where the scan is to end.
    """

    is_exact = True

    def __init__(self, vectors: Vectors, rest: Callable[[float], object]) -> None:
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
            scores = torch.from_numpy(queries) @ torch.from_numpy(block).T
            if allowed is not None:
                scores[:, torch.from_numpy(~allowed[first : first + len(block)])] = -torch.inf
            if first == 0:
                scores[:, 0] = -torch.inf
            struck.strike(scores, first)
            top.offer(scores, first)
        return padded(*top.best(), k)

    def _blocks(self) -> Iterator[tuple[int, Float[Array, "_ dim"]]]:
        vectors, starts = self.vectors, range(0, len(self.vectors), _ROWS_AT_ONCE)
        if isinstance(vectors, PackedVectors):
            parts = zip(_parts_of(vectors.codes), _parts_of(vectors.scale), strict=True)
            yield from zip(starts, (PackedVectors(*part)[:] for part in parts), strict=True)
        else:
            yield from zip(starts, _parts_of(vectors), strict=True)


def _parts_of(array: Array) -> Iterator[Array]:
    """Some rows at a time, from the file of a mapped array; not where it is part of a mapping."""
    base: Any = array.base
    if not isinstance(array, np.memmap) or not isinstance(base, mmap.mmap):
        for first in range(0, len(array), _ROWS_AT_ONCE):
            yield array[first : first + _ROWS_AT_ONCE]
        return
    with open(str(array.filename), "rb") as file:
        file.seek(array.offset)
        for first in range(0, len(array), _ROWS_AT_ONCE):
            shape = (min(_ROWS_AT_ONCE, len(array) - first), *array.shape[1:])
            yield np.fromfile(file, array.dtype, math.prod(shape)).reshape(shape)
