"""What every index refuses, and how its answers are laid out."""

from typing import TypeAlias

import numpy as np

from watchnext.errors import RequestError
from watchnext.shapes import Array, Float, Int

Lists: TypeAlias = tuple[Int[Array, "batch k"], Float[Array, "batch k"]]
"""Rows and exact dot products of each query, best first; beyond the last video row 0 and score -inf."""


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
