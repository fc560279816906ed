"""Metrics of recommended lists: one value per user, over the full catalogue, never sampled.

A user without targets has no value: NaN. Lists are rows of videos, best first, padded with row 0, which hits nothing.
"""

import numpy as np

from watchnext.shapes import Array, Bool, Float, Int, RowLists


def recall(lists: Int[Array, "batch k"], targets: RowLists, k: int) -> Float[Array, "batch"]:
    """Gives the share of each user's targets in the first k places.

    >>> recall(np.array([[7, 8, 9]]), [np.array([9, 5])], k=3).tolist()
    [0.5]
    """
    return _per_target(hits(lists[:, :k], targets).sum(axis=1), targets)


def ndcg(lists: Int[Array, "batch k"], targets: RowLists, k: int) -> Float[Array, "batch"]:
    """Gives the discounted gain of the first k places over an ideal list's: a hit in place r counts 1/log2(r + 1).

    >>> ndcg(np.array([[7, 8, 9]]), [np.array([8])], k=3).round(4).tolist()
    [0.6309]
    """
    gains = 1.0 / np.log2(np.arange(2, lists.shape[1] + 2))
    ideal = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))])
    best = np.array([ideal[min(k, len(rows))] for rows in targets])
    found = (hits(lists[:, :k], targets) * gains[:k]).sum(axis=1)
    return ratio_or_nan(found, best)


def mrr(lists: Int[Array, "batch k"], targets: RowLists, k: int) -> Float[Array, "batch"]:
    """Gives one over the place of the first hit among the first k, 0 without one.

    >>> mrr(np.array([[7, 8, 9]]), [np.array([9, 8])], k=3).tolist()
    [0.5]
    """
    hit = hits(lists[:, :k], targets)
    reciprocal = np.where(hit.any(axis=1), 1.0 / (hit.argmax(axis=1) + 1), 0.0)
    return np.where([len(rows) > 0 for rows in targets], reciprocal, np.nan)


def hits(lists: Int[Array, "batch k"], targets: RowLists) -> Bool[Array, "batch k"]:
    """Tells which places hold a target."""
    return (
        np.stack([np.isin(row, wanted) & (row > 0) for row, wanted in zip(lists, targets, strict=True)])
        if len(lists)
        else np.zeros(lists.shape, dtype=bool)
    )


def _per_target(found: Array, targets: RowLists) -> Float[Array, "batch"]:
    sizes = np.array([len(rows) for rows in targets], dtype=np.float64)
    return ratio_or_nan(found, sizes)


def ratio_or_nan(counted: Array, total: Array) -> Float[Array, "rows"]:
    """Gives counted / total, NaN where total is 0."""
    ratio: Array = np.divide(counted, total, out=np.full(len(total), np.nan), where=total > 0)
    return ratio
