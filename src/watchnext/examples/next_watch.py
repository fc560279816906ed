"""Next-watch examples: which video did this user complete, given everything before (§3.3, figure 5b)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from watchnext.events.dataset import Dataset, UserEvents
from watchnext.examples.contexts import UserContext, context_as_of
from watchnext.shapes import Array, Float, Int, RowLists, Tensor

_SECONDS_OF_A_DAY = 86_400.0


@dataclass(frozen=True)
class NextWatches:
    """Labels: user `user_row` completed `video_row` at `timestamp`."""

    user_row: Int[Array, "rows"]
    timestamp: Int[Array, "rows"]
    video_row: Int[Array, "rows"]

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.user_row)


@dataclass(frozen=True)
class RetrievalBatch:
    """Some next-watch examples: the context rolled back to the moment before, the age, and the video to predict."""

    context: UserContext
    example_age_days: Float[Tensor, "batch"]
    video_row: Int[Tensor, "batch"]


def next_watches(events: UserEvents, before: int, per_user: int) -> NextWatches:
    """Gives each user's latest `per_user` completed watches before the moment `before`.

    The cap keeps a few very active users from ruling the loss (§3.3).
    """
    offsets = events.watches.offsets
    owners = np.arange(len(offsets) - 1)
    ends = events.watches.ends_before(owners, np.full(len(owners), before))
    starts = np.maximum(offsets[:-1], ends - per_user)
    chosen = concatenated_ranges(starts, ends)
    return NextWatches(
        np.repeat(owners, ends - starts),
        np.asarray(events.watches.timestamp[chosen]),
        events.video_row[events.watch_places[chosen]].astype(np.int64),
    )


def retrieval_batches(
    dataset: Dataset,
    examples: NextWatches,
    order: Int[Array, "rows"],
    batch_size: int,
    history_length: int,
    num_tokens: int,
    newest: int,
) -> Iterator[RetrievalBatch]:
    """Gives the examples in the given order, a batch at a time; ages count back from the moment `newest` (t_max)."""
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        moments = examples.timestamp[chosen]
        yield RetrievalBatch(
            context_as_of(dataset, examples.user_row[chosen], moments, history_length, num_tokens),
            torch.from_numpy(((newest - moments) / _SECONDS_OF_A_DAY).astype(np.float32)),
            torch.from_numpy(examples.video_row[chosen]),
        )


def targets_between(events: UserEvents, start: int, end: int) -> tuple[Int[Array, "users"], RowLists]:
    """Gives the users who completed something in [start, end), and the distinct videos that each of them did."""
    offsets = events.watches.offsets
    owners = np.arange(len(offsets) - 1)
    lows = events.watches.ends_before(owners, np.full(len(owners), start))
    highs = events.watches.ends_before(owners, np.full(len(owners), end))
    users = np.flatnonzero(highs > lows)
    return users, [
        np.unique(events.video_row[events.watch_places[lows[user] : highs[user]]]).astype(np.int64) for user in users
    ]


def concatenated_ranges(starts: Int[Array, "users"], ends: Int[Array, "users"]) -> Int[Array, "rows"]:
    """Gives starts[0]..ends[0]-1, starts[1]..ends[1]-1 and so on as one array.

    >>> concatenated_ranges(np.array([3, 10]), np.array([5, 11])).tolist()
    [3, 4, 10]
    """
    lengths = ends - starts
    return np.repeat(starts - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths) + np.arange(lengths.sum())
