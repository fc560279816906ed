"""What a user did before with the same video, channel or tag: sums over the history, for all candidates at once."""

from dataclasses import dataclass

import numpy as np

from watchnext.examples.contexts import UserContext
from watchnext.shapes import Array, Float, Int


@dataclass(frozen=True)
class Past:
    """For each candidate, the part of the user's history that shares its key.

    Times are NaN where there is no such event, counts 0.
    """

    num_shown: Float[Array, "batch candidates"]
    num_completed: Float[Array, "batch candidates"]
    watch_seconds: Float[Array, "batch candidates"]
    seconds_since: Float[Array, "batch candidates"]


def past_with_same_key(
    context: UserContext,
    history_keys: Int[Array, "batch history"],
    candidate_keys: Int[Array, "batch candidates"],
) -> Past:
    """Gives the sums over the history's events whose key equals the candidate's; key 0 equals nothing."""
    return past_with_any_key(context, history_keys[:, :, None], candidate_keys[:, :, None])


def past_with_any_key(
    context: UserContext,
    history_keys: Int[Array, "batch history tags"],
    candidate_keys: Int[Array, "batch candidates tags"],
) -> Past:
    """Gives the sums over the history's keys that the candidate has too: an event with two shared tags counts twice.

    Works on (user, key) pairs: sums per distinct pair, then a binary search for each candidate's pairs, so that
    the cost grows with history + candidates and not with their product.
    """
    span = int(max(history_keys.max(initial=0), candidate_keys.max(initial=0))) + 1
    shift = (np.arange(len(context), dtype=np.int64) * span)[:, None, None]
    real = history_keys > 0
    pairs, place = np.unique((history_keys + shift)[real], return_inverse=True)
    candidate_pairs = candidate_keys + shift
    found = np.minimum(np.searchsorted(pairs, candidate_pairs), max(len(pairs) - 1, 0))
    known = (candidate_keys > 0) & (pairs[found] == candidate_pairs) if len(pairs) else candidate_keys < 0

    def summed(values: Float[Array, "batch history"]) -> Float[Array, "batch candidates"]:
        weights = np.broadcast_to(values[:, :, None], history_keys.shape)[real]
        sums = np.bincount(place, weights=weights, minlength=len(pairs))
        return np.where(known, sums[found], 0.0).sum(axis=2) if len(pairs) else np.zeros(candidate_keys.shape[:2])

    return Past(
        summed(np.ones(context.video_row.shape)),
        summed(context.completed.astype(np.float64)),
        summed(np.nan_to_num(context.watch_seconds).astype(np.float64)),
        _seconds_since(context, history_keys, real, place, len(pairs), found, known),
    )


def _seconds_since(
    context: UserContext,
    history_keys: Int[Array, "batch history tags"],
    real: Array,
    place: Int[Array, "rows"],
    num_pairs: int,
    found: Int[Array, "batch candidates tags"],
    known: Array,
) -> Float[Array, "batch candidates"]:
    """Seconds from the latest event with a shared key to the moment; NaN without one."""
    latest = np.zeros(max(num_pairs, 1), dtype=np.int64)
    np.maximum.at(latest, place, np.broadcast_to(context.timestamp[:, :, None], history_keys.shape)[real])
    newest = np.where(known, latest[found], 0).max(axis=2, initial=0)
    return np.where(known.any(axis=2), (context.moment[:, None] - newest).astype(np.float64), np.nan)
