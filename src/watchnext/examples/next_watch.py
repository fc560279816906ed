"""Next-watch examples: what did this user complete, given everything before (§3.3, figure 5)."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from watchnext.config import RetrievalConfig
from watchnext.events.dataset import Dataset, Segments, UserEvents
from watchnext.examples.contexts import UserContext, context_as_of
from watchnext.examples.windows import BatchWindows, Windows, windows_of
from watchnext.shapes import Array, Float, Int, RowLists, Tensor

_SECONDS_OF_A_DAY = 86_400.0
_ROWS_AT_ONCE = 4_000_000


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
    """Some examples: the context as of the moment before, the age, and the videos to predict with their weights.

    `windows` is there where the history is read in order: histories that several of the examples share.
    """

    context: UserContext
    example_age_days: Float[Tensor, "batch"]
    target_row: Int[Tensor, "batch targets"]
    target_weight: Float[Tensor, "batch targets"]
    windows: BatchWindows | None = None


class NextWatchExamples:
    """The examples that a log has before a moment, and their batches.

    An example is a user as of a moment, and the `horizon` watches from then on: everything shown, where
    `unwatched_weight` is above 0. The cap of examples per user keeps a few very active users from ruling the loss
    (§3.3). With `labels = 'held_out'` the history is everything before the end *but* the label (figure 5a).
    """

    def __init__(self, dataset: Dataset, config: RetrievalConfig, before: int) -> None:
        events = dataset.events
        self.dataset = dataset
        self.config = config
        self.before = before
        self._labels_are_watches = config.unwatched_weight == 0.0
        self._segments = events.watches if self._labels_are_watches else events.segments
        self._ends = _ends(self._segments, before)
        self.user_row, self.place = latest_places(self._segments, before, config.examples_per_user)
        weighted = config.weights == "watch_seconds"
        self._mean_watch_seconds = _mean_watch_seconds(events, before) if weighted else 1.0
        self._needs_shown = bool(config.mask_seen or config.history == "attention" or dataset.facts["has_impressions"])
        self._windows: Windows | None = None
        if config.history == "transformer":
            moments = np.asarray(self._segments.timestamp[self.place])
            self._windows = windows_of(events.segments, self.user_row, moments, config.history_length)

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.place)

    @property
    def num_batches(self) -> int:
        """Batches of one pass."""
        return -(-self._num_units // self._units_per_batch)

    def num_wanted(self, num_videos: int) -> Int[Array, "videos"]:
        """Gives how many examples have each video as a target."""
        wanted = np.zeros(num_videos, dtype=np.int64)
        for start in range(0, len(self), self.config.batch_size):
            rows, _ = self._targets(np.arange(start, min(start + self.config.batch_size, len(self))))
            wanted += np.bincount(rows[rows > 0], minlength=num_videos)
        return wanted

    def batches(self, random: np.random.Generator, first_batch: int) -> Iterator[RetrievalBatch]:
        """Gives the batches of one pass from the given one on, in an order drawn from `random`.

        An example is drawn by itself; where histories are read in order, with all others of its window.
        """
        order = random.permutation(self._num_units)
        for start in range(first_batch * self._units_per_batch, self._num_units, self._units_per_batch):
            units = order[start : start + self._units_per_batch]
            if self._windows is None:
                yield self._batch(units, None)
            else:
                chosen, windows = self._windows.batch(self.dataset, units)
                yield self._batch(chosen, windows)

    @property
    def _num_units(self) -> int:
        return len(self) if self._windows is None else len(self._windows)

    @property
    def _units_per_batch(self) -> int:
        if self._windows is None:
            return self.config.batch_size
        return max(1, self.config.batch_size * len(self._windows) // max(len(self), 1))

    def _batch(self, chosen: Int[Array, "batch"], windows: BatchWindows | None) -> RetrievalBatch:
        moments = np.asarray(self._segments.timestamp[self.place[chosen]])
        target_row, target_weight = self._targets(chosen)
        age_days = ((self.before - moments) / _SECONDS_OF_A_DAY).astype(np.float32)
        if self.config.half_life_days is not None:
            target_weight = target_weight * 0.5 ** (age_days / self.config.half_life_days)[:, None]
        return RetrievalBatch(
            self._context(self.user_row[chosen], moments, target_row),
            torch.from_numpy(age_days),
            torch.from_numpy(target_row),
            torch.from_numpy(target_weight.astype(np.float32)),
            windows,
        )

    def _context(
        self, user_row: Int[Array, "batch"], moments: Int[Array, "batch"], target_row: Int[Array, "batch targets"]
    ) -> UserContext:
        config = self.config
        if config.labels == "future":
            needed = None if self._needs_shown else 0
            length, tokens = config.history_length, config.num_search_tokens
            return context_as_of(self.dataset, user_row, moments, length, tokens, needed)
        ends = np.full(len(user_row), self.before)
        context = context_as_of(self.dataset, user_row, ends, config.history_length, config.num_search_tokens)
        return _without_targets(context, target_row)

    def _targets(
        self, chosen: Int[Array, "batch"]
    ) -> tuple[Int[Array, "batch targets"], Float[Array, "batch targets"]]:
        """The videos of the next `horizon` places, each once, and their weights; beyond the end row 0 and weight 0."""
        events = self.dataset.events
        ends = self._ends[self.user_row[chosen]]
        places = self.place[chosen][:, None] + np.arange(self.config.horizon)
        inside = places < ends[:, None]
        places = np.where(inside, places, self.place[chosen][:, None])
        if self._labels_are_watches:
            places = events.watch_places[places]
        rows = np.where(inside, events.video_row[places], 0).astype(np.int64)
        weights = np.where(events.completed[places], 1.0, self.config.unwatched_weight)
        if self.config.weights == "watch_seconds":
            seconds = np.asarray(events.watch_seconds[places], dtype=np.float64)
            weights *= np.where(np.isnan(seconds), 1.0, seconds / self._mean_watch_seconds)
        repeated = _repeated(rows)
        return np.where(repeated, 0, rows), np.where((rows > 0) & ~repeated, weights, 0.0)


def next_watches(events: UserEvents, before: int, per_user: int) -> NextWatches:
    """Gives each user's latest `per_user` completed watches before the moment `before`."""
    user_row, places = latest_places(events.watches, before, per_user)
    return NextWatches(
        user_row,
        np.asarray(events.watches.timestamp[places]),
        events.video_row[events.watch_places[places]].astype(np.int64),
    )


def watch_counts(events: UserEvents, before: int, num_videos: int) -> Int[Array, "videos"]:
    """Gives how often each video was completed before the moment."""
    counts = np.zeros(num_videos, dtype=np.int64)
    for start in range(0, len(events.watch_places), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        places = events.watch_places[part][events.watches.timestamp[part] < before]
        counts += np.bincount(events.video_row[places], minlength=num_videos)
    return counts


def latest_places(segments: Segments, before: int, per_user: int) -> tuple[Int[Array, "rows"], Int[Array, "rows"]]:
    """Gives the owners and places of each owner's latest `per_user` rows before the moment, in order."""
    ends = _ends(segments, before)
    starts = np.maximum(segments.offsets[:-1], ends - per_user)
    return np.repeat(np.arange(len(ends)), ends - starts), concatenated_ranges(starts, ends)


def targets_between(events: UserEvents, start: int, end: int) -> tuple[Int[Array, "users"], RowLists]:
    """Gives the users who completed something in [start, end), and the distinct videos that each of them did."""
    lows, highs = _ends(events.watches, start), _ends(events.watches, end)
    users = np.flatnonzero(highs > lows)
    return users, [
        np.unique(events.video_row[events.watch_places[lows[user] : highs[user]]]).astype(np.int64) for user in users
    ]


def _ends(segments: Segments, before: int) -> Int[Array, "owners"]:
    """The place behind each owner's last row before the moment."""
    owners = np.arange(len(segments.offsets) - 1)
    return segments.ends_before(owners, np.full(len(owners), before))


def concatenated_ranges(starts: Int[Array, "users"], ends: Int[Array, "users"]) -> Int[Array, "rows"]:
    """Gives starts[0]..ends[0]-1, starts[1]..ends[1]-1 and so on as one array.

    >>> concatenated_ranges(np.array([3, 10]), np.array([5, 11])).tolist()
    [3, 4, 10]
    """
    lengths = ends - starts
    return np.repeat(starts - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths) + np.arange(lengths.sum())


def _without_targets(context: UserContext, target_row: Int[Array, "batch targets"]) -> UserContext:
    """The same context with every event of the videos to predict turned into padding."""

    def wanted(rows: Int[Array, "batch history"]) -> Array:
        found: Array = (rows[:, :, None] == target_row[:, None, :]).any(axis=2)
        return found

    return dataclasses.replace(
        context,
        video_row=np.where(wanted(context.video_row), 0, context.video_row),
        watched_row=np.where(wanted(context.watched_row), 0, context.watched_row),
    )


def _repeated(rows: Int[Array, "batch targets"]) -> Array:
    """Whether the same row stands further left."""
    order = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(rows, order, axis=1)
    same = np.zeros(rows.shape, dtype=bool)
    same[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    repeated = np.zeros(rows.shape, dtype=bool)
    np.put_along_axis(repeated, order, same, axis=1)
    return repeated


def _mean_watch_seconds(events: UserEvents, before: int) -> float:
    """The mean watch time of completed watches before the moment; 1 where none is known."""
    early = np.asarray(events.watches.timestamp) < before
    seconds = events.watch_seconds[events.watch_places[early]]
    known = seconds[~np.isnan(seconds)]
    return max(float(known.mean(dtype=np.float64)), 1e-6) if len(known) else 1.0
