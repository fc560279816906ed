"""What every index does, what it refuses, and how its answers are laid out."""

from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np

from watchnext.errors import RequestError
from watchnext.retrieval.index.packed import Vectors
from watchnext.shapes import Array, Bool, Float, Int, RowLists

Lists: TypeAlias = tuple[Int[Array, "batch k"], Float[Array, "batch k"]]
"""Rows and exact dot products of each query, best first; beyond the last video row 0 and score -inf."""


@runtime_checkable
class VideoIndex(Protocol):
    """Think of it as a scan of all video vectors that may look only where the best ones are."""

    @property
    def is_exact(self) -> bool:
        """Whether it finds exactly the best."""
        ...

    def search(
        self,
        queries: Float[Array, "batch dim"],
        k: int,
        excluded: RowLists | None = None,
        allowed: Bool[Array, "videos"] | None = None,
    ) -> Lists:
        """Gives the rows and the exact dot products of the k best videos of each query, best first.

        `excluded` names rows to leave out, for each query; `allowed` says of every row whether any query may find it.
        Where fewer than k videos are left, the list is filled with row 0 and score -inf.

        Raises:
            RequestError: k is below 1, or a query has another length than the videos' vectors, or is not finite.
        """
        ...


@runtime_checkable
class BuiltIndex(VideoIndex, Protocol):
    """An index over the rows of one matrix."""

    @property
    def vectors(self) -> Vectors:
        """The vectors that it was built from, or those as they were packed."""
        ...


@dataclass(frozen=True)
class CurvePoint:
    """What a search finds at some effort, and how long it takes: mean and 5th percentile of recall over queries."""

    effort: int
    recall: float
    recall_p5: float
    p50_ms: float
    p99_ms: float


@runtime_checkable
class TunableIndex(BuiltIndex, Protocol):
    """An index that finds more the harder it looks."""

    @property
    def effort(self) -> int:
        """How hard it looks."""
        ...

    @property
    def curve(self) -> tuple[CurvePoint, ...]:
        """What was measured when its effort was chosen."""
        ...

    def efforts(self) -> list[int]:
        """Gives efforts that are worth measuring, the least first."""
        ...

    def with_effort(self, effort: int, curve: tuple[CurvePoint, ...] = ()) -> "TunableIndex":
        """Gives the same index looking that hard."""
        ...


def checked_queries(queries: Float[Array, "batch dim"], k: int, dim: int) -> Float[Array, "batch dim"]:
    """Gives the queries, contiguous and in float32.

    Raises:
        RequestError: k is below 1, or a query has another length or is not finite.
    """
    if k < 1:
        raise RequestError(f"k = {k}: at least 1 was expected.")
    if queries.shape[1] != dim:
        raise RequestError(f"a query of {queries.shape[1]} numbers came; the videos have vectors of {dim}.")
    if not np.isfinite(queries).all():
        raise RequestError("a query that is not finite came; every number of a user vector must be.")
    return np.ascontiguousarray(queries, dtype=np.float32)


def padded(rows: Int[Array, "batch width"], scores: Float[Array, "batch width"], k: int) -> Lists:
    """Widens lists to k places; places without a video have row 0 and score -inf."""
    wider = ((0, 0), (0, k - rows.shape[1]))
    rows = np.where(np.isneginf(scores), 0, rows)
    return np.pad(rows, wider), np.pad(scores, wider, constant_values=-np.inf)
