"""The ranker's memory as of a moment: counters of every kind of key, filled by replaying the log (§4.1).

Questions are answered in two ways by the same compiled code: on the way through the log, each as of its own moment
(`replayed`), or off the state as it stands (`FeatureState.read`), which is what a live request does.
"""

from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from watchnext.artifacts import load_arrays, save_arrays
from watchnext.events.dataset import UserEvents, VideoTable
from watchnext.features.counters import Counters, halvings_a_second
from watchnext.features.past import pair_names, read_pasts, replay_pasts, user_names
from watchnext.features.records import MEANS, read_records, record_names, replay
from watchnext.native import even_parts, side_by_side
from watchnext.progress import bar
from watchnext.shapes import Array, Float, Int

_EVERYTHING = "everything"
_OUR_KINDS = (_EVERYTHING, "user", "video", "channel", "tags")
_FOREVER = np.iinfo(np.int64).max
_WORK_OF_A_CANDIDATE = 100


@dataclass(frozen=True)
class Keys:
    """The keys of each video, side by side: itself, its channel, its categories, its tags.

    Kind i has `widths[i]` columns; key 0 is none. `columns` are those of all kinds but the first, as they lie in the
    table of videos: of ten million videos only those that are asked for are put together.
    """

    kinds: tuple[str, ...]
    widths: Int[Array, "kinds"]
    num_videos: int
    columns: tuple[Int[Array, "videos _"], ...]

    @classmethod
    def of(cls, videos: VideoTable, categories: list[str]) -> "Keys":
        """Takes them from the table of videos; a category with the name of a kind of ours gets another."""
        named = [f"{name}_category" if name in _OUR_KINDS else name for name in categories]
        columns = (videos.channel_row[:, None], *(column[:, None] for column in videos.categorical.T), videos.tag_rows)
        widths = np.array([1, *(column.shape[1] for column in columns)])
        return cls(("video", "channel", *named, "tags"), widths, len(videos.channel_row), columns)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """One more than the largest key of each kind."""
        return (self.num_videos, *(int(column.max(initial=0)) + 1 for column in self.columns))

    @cached_property
    def rows(self) -> Int[Array, "videos keys"]:
        """The keys of all videos, for replaying a log."""
        return self.of_videos(np.arange(self.num_videos))

    def of_videos(self, rows: Int[Array, "rows"]) -> Int[Array, "rows keys"]:
        """Gives the keys of some videos."""
        found = np.empty((len(rows), self.widths.sum()), dtype=np.int32)
        found[:, 0] = rows
        last = 1
        for column in self.columns:
            found[:, last : last + column.shape[1]] = column[rows]
            last += column.shape[1]
        return found

    def places_of(self, kind: str) -> slice:
        """Gives where the keys of one kind stand among all."""
        place = self.kinds.index(kind)
        first = int(self.widths[:place].sum())
        return slice(first, first + int(self.widths[place]))


@dataclass(frozen=True)
class Happened:
    """Everybody's events in time order, and the order in which their outcomes became known.

    What came of an impression is known to whoever asks later than its timestamp plus the seconds watched, or after
    the log's end: what a log says is known by then.
    """

    moment: Int[Array, "events"]
    video_row: Int[Array, "events"]
    watch_seconds: Float[Array, "events"]
    completed: Array
    clicked: Array
    outcome: Int[Array, "events"]
    known_at: Int[Array, "events"]

    @classmethod
    def of(cls, events: UserEvents) -> "Happened":
        """Sorts the events of all users by time."""
        order = np.argsort(events.segments.timestamp, kind="stable")
        moment, seconds = np.asarray(events.segments.timestamp)[order], np.asarray(events.watch_seconds)[order]
        known_at = np.minimum(moment + np.nan_to_num(seconds).astype(np.int64), moment.max(initial=0))
        video_row, completed, clicked = (
            np.asarray(column)[order] for column in (events.video_row, events.completed, events.clicked)
        )
        return cls(moment, video_row, seconds, completed, clicked, np.argsort(known_at, kind="stable"), known_at)


@dataclass(frozen=True)
class FeatureValues:
    """Continuous features of requests and of their candidates; their names are `FeatureState`'s."""

    query: Float[Array, "batch query_values"]
    candidates: Float[Array, "batch candidates values"]

    def part(self, places: Int[Array, "rows"] | slice) -> "FeatureValues":
        """Gives those of some requests."""
        return FeatureValues(self.query[places], self.candidates[places])


@dataclass(frozen=True)
class FeatureState:
    """What is remembered of all videos, channels, categories and tags; of users their own events are enough.

    A saved state has counters only of what ever happened, most videos of a large catalogue having none: `slots` says
    for each key of a kind which row counts it, row 0 for none. A kind without slots counts key i in row i.
    """

    keys: Keys
    horizons_seconds: tuple[float, ...]
    settled_after_seconds: float
    history_length: int
    counters: dict[str, Counters]
    slots: dict[str, Int[Array, "keys"]]

    @classmethod
    def empty(
        cls, keys: Keys, horizons_seconds: tuple[float, ...], settled_after_seconds: float, history_length: int
    ) -> "FeatureState":
        """Gives a state that remembers nothing."""
        num = len(horizons_seconds) + 1
        counters = {kind: Counters.empty(size, num) for kind, size in zip(keys.kinds, keys.sizes, strict=True)}
        counters[_EVERYTHING] = Counters.empty(2, num)
        return cls(keys, horizons_seconds, settled_after_seconds, history_length, counters, {})

    @cached_property
    def horizons(self) -> tuple[str, ...]:
        """The horizons' names."""
        return (*(horizon_name(seconds) for seconds in self.horizons_seconds), "all")

    @cached_property
    def query_names(self) -> list[str]:
        """The names of `FeatureValues.query`."""
        return [*(f"{_EVERYTHING}.{name}" for name in record_names(self.horizons)), *user_names(self.horizons)]

    @cached_property
    def names(self) -> list[str]:
        """The names of `FeatureValues.candidates`."""
        records = [f"{kind}.{name}" for kind in self.keys.kinds for name in record_names(self.horizons)]
        return records + [name for kind in self.keys.kinds for name in pair_names(kind, self.horizons)]

    @classmethod
    def open(
        cls,
        folder: Path,
        keys: Keys,
        horizons_seconds: tuple[float, ...],
        settled_after_seconds: float,
        history_length: int,
    ) -> "FeatureState":
        """Maps the counters that `save` wrote."""
        names = tuple(spec.name for spec in fields(Counters))
        kinds = (*keys.kinds, _EVERYTHING)
        counters = {kind: Counters(**load_arrays(folder / kind, names)) for kind in kinds}
        slots = {kind: load_arrays(folder / kind, ("slots",))["slots"] for kind in kinds}
        return cls(keys, horizons_seconds, settled_after_seconds, history_length, counters, slots)

    def read(
        self,
        events: UserEvents,
        user_row: Int[Array, "batch"],
        moment: Int[Array, "batch"],
        video_row: Int[Array, "batch candidates"],
    ) -> FeatureValues:
        """Gives the features of users' candidates; each moment is to be later than all that was counted."""
        values = self._room(video_row)
        starts, ends = self._windows(events, user_row, moment)
        last = np.cumsum(ends - starts)
        first = last - (ends - starts)
        places = np.arange((ends - starts).sum()) + np.repeat(starts - first, ends - starts)
        # Videos are numbered anew, by where they stand: those of the users' pasts, then the candidates.
        keys = self.keys.of_videos(np.concatenate([events.video_row[places], video_row.ravel()]))
        numbers = np.arange(len(keys))
        candidates = numbers[len(places) :].reshape(video_row.shape)
        for kind in (_EVERYTHING, *self.keys.kinds):
            asked = candidates if kind != _EVERYTHING else np.zeros((len(moment), 1), dtype=np.int64)
            own = keys[:, self.keys.places_of(kind)] if kind != _EVERYTHING else np.ones((1, 1), dtype=np.int32)
            arguments = (*vars(self.counters[kind]).values(), self._rates, self.slots_of(kind, own), moment, asked)
            arguments += (self._priors(kind, values), self._records(kind, values))
            side_by_side(read_records, even_parts(len(moment), asked.size * _WORK_OF_A_CANDIDATE), arguments)
        past = [column[places] for column in _past_columns(events)]
        became = self.counters["video"].sums[self.slots_of("video", keys[: len(places), 0]), -1:]
        arguments = (numbers[: len(places)], *past, first, last, moment, self.settled_after_seconds, self._rates)
        arguments += (candidates, keys, self.keys.widths, became, self._priors("user", values))
        arguments += self._columns_of_pasts(values)
        side_by_side(read_pasts, even_parts(len(moment), video_row.size * _WORK_OF_A_CANDIDATE), arguments)
        return values

    def replay(
        self,
        events: UserEvents,
        user_row: Int[Array, "batch"],
        moment: Int[Array, "batch"],
        video_row: Int[Array, "batch candidates"],
        until: int = _FOREVER,
    ) -> FeatureValues:
        """Fills an empty state with what happened before `until`, and answers questions as of their moments on the way.

        A question has one candidate. Each kind of key is counted by a thread of its own; users' pasts are shared out
        among threads, each of which counts the outcomes of videos for itself.

        Raises:
            ValueError: a question is of a moment later than `until`.
        """
        if moment.max(initial=0) > until:
            raise ValueError(f"a question as of {moment.max()} came, but what happened from {until} on is not counted.")
        happened = Happened.of(events)
        values = self._room(video_row)
        order = np.argsort(moment, kind="stable")
        asked_at = moment[order]
        past = (events.video_row, *_past_columns(events), *self._windows(events, user_row, moment), moment)
        nothing_else = np.ones((self.keys.num_videos, 1), dtype=np.int32)

        def count(kind: str) -> None:
            of = video_row[:, 0] if kind != _EVERYTHING else np.zeros(len(order), dtype=np.int64)
            own = self.keys.rows[:, self.keys.places_of(kind)] if kind != _EVERYTHING else nothing_else
            replay(
                *vars(happened).values(), until, own, *vars(self.counters[kind]).values(), self._rates, asked_at,
                order, of, self._priors(kind, values), self._records(kind, values),
            )  # fmt: skip

        def look_back(part: slice) -> None:
            outcomes = Counters.empty(self.keys.sizes[0], 1)
            replay_pasts(
                happened.video_row, happened.completed, happened.clicked, happened.outcome, happened.known_at,
                outcomes.sums, outcomes.faded_at, outcomes.completed_at, asked_at[part].copy(), order[part].copy(),
                *past, self.settled_after_seconds, self._rates, video_row, self.keys.rows, self.keys.widths,
                self._priors("user", values), *self._columns_of_pasts(values),
            )  # fmt: skip

        threads = torch.get_num_threads()
        parts = [slice(first, None, threads) for first in range(threads)]
        with bar("features: replaying the log", 1 + threads + len(self.keys.kinds)) as progress:
            count(_EVERYTHING)
            progress.advance()
            with ThreadPoolExecutor(threads) as pool:
                pasts = [pool.submit(look_back, part) for part in parts]
                for job in as_completed([*pasts, *(pool.submit(count, kind) for kind in self.keys.kinds)]):
                    job.result()
                    progress.advance()
        return values

    def save(self, folder: Path) -> None:
        """Writes the counters of what ever happened."""
        for kind, counters in self.counters.items():
            happened: Array = (counters.sums[:, -1] != 0.0).any(axis=1)  # the last horizon never fades
            happened[0] = True
            slots = np.where(happened, np.cumsum(happened) - 1, 0)[self.slots.get(kind, slice(None))]
            kept = {name: column[happened] for name, column in vars(counters).items()}
            save_arrays(folder / kind, {**kept, "slots": slots.astype(np.int32)})

    def slots_of(self, kind: str, keys: Int[Array, "..."]) -> Int[Array, "..."]:
        """Gives the row of the counters that counts each key of a kind."""
        return self.slots[kind][keys] if kind in self.slots else keys

    @cached_property
    def _rates(self) -> Float[Array, "horizons"]:
        return halvings_a_second(self.horizons_seconds)

    @cached_property
    def _record_width(self) -> int:
        return len(record_names(self.horizons))

    def _room(self, video_row: Int[Array, "batch candidates"]) -> FeatureValues:
        batch, candidates = video_row.shape
        query = np.empty((batch, len(self.query_names)), dtype=np.float32)
        return FeatureValues(query, np.empty((batch, candidates, len(self.names)), dtype=np.float32))

    def _records(self, kind: str, values: FeatureValues) -> Float[Array, "batch _ values"]:
        """Where the record of one kind goes."""
        if kind == _EVERYTHING:
            return values.query[:, None, : self._record_width]
        first = self.keys.kinds.index(kind) * self._record_width
        return values.candidates[:, :, first : first + self._record_width]

    def _columns_of_pasts(self, values: FeatureValues) -> tuple[Array, Array]:
        """Where a user's past goes: on its own, and with the candidates."""
        return (
            values.query[:, self._record_width :],
            values.candidates[:, :, len(self.keys.kinds) * self._record_width :],
        )

    def _priors(self, kind: str, values: FeatureValues) -> Float[Array, "batch means"]:
        """What is known of everything: its means so far, and how often anything was shown; of itself, nothing."""
        width = len(self.horizons_seconds) + 1
        if kind == _EVERYTHING:
            return np.zeros((len(values.query), len(MEANS) + width), dtype=np.float32)
        columns = [*(width * (place + 2) - 1 for place in range(len(MEANS))), *range(width)]
        return np.ascontiguousarray(values.query[:, columns])  # compiled loops are compiled for each layout

    def _windows(
        self, events: UserEvents, user_row: Int[Array, "batch"], moment: Int[Array, "batch"]
    ) -> tuple[Int[Array, "batch"], Int[Array, "batch"]]:
        """Where each user's latest events before the moment begin and end in the table of all."""
        ends = events.segments.ends_before(user_row, moment)
        return np.maximum(ends - self.history_length, events.segments.offsets[user_row]), ends


def _past_columns(events: UserEvents) -> tuple[Array, ...]:
    """What is read of an event besides its video."""
    return events.segments.timestamp, events.watch_seconds, events.clicked, events.completed


def horizon_name(seconds: float) -> str:
    """Gives the name of a horizon in its largest whole unit.

    >>> [horizon_name(seconds) for seconds in (90.0, 1800.0, 3600.0, 604800.0)]
    ['90s', '30min', '1h', '7d']
    """
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds % length == 0:
            return f"{int(seconds // length)}{unit}"
    return f"{seconds:.15g}s"
