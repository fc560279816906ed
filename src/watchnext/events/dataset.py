"""The compiled log: memory-mapped arrays, one user's events contiguous and in time order."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from watchnext.artifacts import Artifact, load_arrays, open_artifact
from watchnext.events.vocabulary import Vocabulary, load_column
from watchnext.shapes import Array, Bool, Float, Int


@dataclass(frozen=True)
class Segments:
    """Where each owner's rows lie in a table sorted by (owner, timestamp): a user's events, a video's watches."""

    offsets: Int[Array, "offsets"]
    timestamp: Int[Array, "rows"]

    def ends_before(self, owners: Int[Array, "batch"], moments: Int[Array, "batch"]) -> Int[Array, "batch"]:
        """Gives, for each owner, the place behind its last row with a timestamp strictly before the moment.

        A binary search in all segments at once.

        >>> two_users = Segments(np.array([0, 3, 5]), np.array([10, 20, 30, 5, 15]))
        >>> two_users.ends_before(np.array([0, 0, 1]), np.array([30, 31, 5])).tolist()
        [2, 3, 3]
        """
        low = np.asarray(self.offsets[owners], dtype=np.int64)
        high = np.asarray(self.offsets[owners + 1], dtype=np.int64)
        while True:
            open_ = low < high
            if not open_.any():
                return low
            middle = (low + high) // 2
            earlier = np.zeros(len(low), dtype=bool)
            earlier[open_] = self.timestamp[middle[open_]] < moments[open_]
            low = np.where(open_ & earlier, middle + 1, low)
            high = np.where(open_ & ~earlier, middle, high)

    def latest_before(
        self, owners: Int[Array, "batch"], moments: Int[Array, "batch"], length: int
    ) -> Int[Array, "batch {length}"]:
        """Gives the places of each owner's last `length` rows before the moment, newest first, padded with -1."""
        if length == 0:
            return np.empty((len(owners), 0), dtype=np.int64)
        places = self.ends_before(owners, moments)[:, None] - 1 - np.arange(length)
        return np.where(places >= self.offsets[owners][:, None], places, -1)


@dataclass(frozen=True)
class UserEvents:
    """What users were shown and watched, as parallel columns: think of it as one long table, sorted by user and time.

    `position` is the place on the page, counted from 1, and 0 where it is not known. `watches` are the segments of the
    completed ones only, whose places `watch_places` point into the columns.
    """

    segments: Segments
    video_row: Int[Array, "events"]
    watch_seconds: Float[Array, "events"]
    clicked: Bool[Array, "events"]
    completed: Bool[Array, "events"]
    liked: Bool[Array, "events"]
    shown: Bool[Array, "events"]
    surface_row: Int[Array, "events"]
    position: Int[Array, "events"]
    watches: Segments
    watch_places: Int[Array, "watches"]


@dataclass(frozen=True)
class SearchTokens:
    """The unigrams and bigrams of users' searches, sorted by user and time."""

    segments: Segments
    token_row: Int[Array, "events"]


@dataclass(frozen=True)
class Timelines:
    """The past of each video (or channel): running sums of its events in time order.

    `completed`, `watch_seconds` and `num_timed` (events whose watch time is known) are sums within one owner,
    the row itself included.
    """

    segments: Segments
    completed: Int[Array, "events"]
    watch_seconds: Float[Array, "events"]
    num_timed: Int[Array, "events"]


@dataclass(frozen=True)
class UserTable:
    """What is known of users themselves. Row 0 is an unknown user."""

    categorical: Int[Array, "users fields"]
    continuous: Float[Array, "users values"]


@dataclass(frozen=True)
class VideoTable:
    """What is known of videos themselves. Row 0 is a video outside the vocabulary. NaN and 0 stand for unknown."""

    channel_row: Int[Array, "videos"]
    categorical: Int[Array, "videos fields"]
    continuous: Float[Array, "videos values"]
    tag_rows: Int[Array, "videos tags"]
    title_rows: Int[Array, "videos words"]
    uploaded_at: Int[Array, "videos"]
    num_completed: Int[Array, "videos"]

    def followed_by(self, others: Sequence["VideoTable"]) -> "VideoTable":
        """Gives these videos, then those of other tables."""
        tables = [self, *others]
        return VideoTable(
            **{spec.name: np.concatenate([getattr(one, spec.name) for one in tables]) for spec in fields(VideoTable)}
        )


EVENT_COLUMNS = ("video_row", "watch_seconds", "clicked", "completed", "liked", "shown", "surface_row", "position")


@dataclass(frozen=True)
class Dataset:
    """A compiled log: the border type between events and examples.

    The facts hold its periods (`Periods`) and counts; ids and frequencies come from events before `test_start` only.
    `page` is a number that events of one user on one page share, 0 where it is not known: for judging, never an input.
    """

    artifact: Artifact
    events: UserEvents
    page: Int[Array, "events"]
    searches: SearchTokens
    users: UserTable
    videos: VideoTable
    video_timelines: Timelines
    channel_timelines: Timelines
    vocabularies: dict[str, Vocabulary]
    titles: pa.Array

    @classmethod
    def open(cls, path: Path, verify: bool = True) -> "Dataset":
        """Maps the dataset in `path`.

        Raises:
            ArtifactError: it is not a whole, undamaged dataset.
        """
        artifact = open_artifact(path, "dataset", verify)
        events = load_arrays(path / "events", EVENT_COLUMNS)
        watches = load_arrays(path / "watches", ("offsets", "timestamp", "places"))
        return cls(
            artifact,
            UserEvents(
                segments=_segments(path / "events"),
                watches=Segments(watches["offsets"], watches["timestamp"]),
                watch_places=watches["places"],
                **events,
            ),
            load_arrays(path / "events", ("page",))["page"],
            SearchTokens(_segments(path / "searches"), **load_arrays(path / "searches", ("token_row",))),
            UserTable(**load_arrays(path / "users", _names(UserTable))),
            VideoTable(**load_arrays(path / "videos", _names(VideoTable))),
            _timelines(path / "video_timelines"),
            _timelines(path / "channel_timelines"),
            {name: Vocabulary.load(path / "vocabularies", name) for name in artifact.facts["vocabularies"]},
            load_column(path / "vocabularies" / "titles.arrow"),
        )

    @property
    def facts(self) -> dict[str, Any]:
        """Counts and names recorded when the log was compiled."""
        return self.artifact.facts

    @property
    def num_videos(self) -> int:
        """Rows of the video vocabulary, row 0 included."""
        return len(self.vocabularies["videos"])

    @property
    def log_end(self) -> int:
        """The first second after the last event."""
        return int(self.facts["log_end"])

    @property
    def ranking_start(self) -> int:
        """The first second whose impressions teach the ranker."""
        return int(self.facts["ranking_start"])

    @property
    def validation_start(self) -> int:
        """The first second of the validation period."""
        return int(self.facts["validation_start"])

    @property
    def test_start(self) -> int:
        """The first second of the test period; `log_end` where nothing was kept for testing."""
        return int(self.facts["test_start"])

    @property
    def user_categories(self) -> list[str]:
        """Names of the columns of `users.categorical`."""
        return list(self.facts["user_categories"])

    @property
    def video_categories(self) -> list[str]:
        """Names of the columns of `videos.categorical`."""
        return list(self.facts["video_categories"])


def _names(cls: type[Any]) -> tuple[str, ...]:
    return tuple(spec.name for spec in fields(cls))


def _segments(folder: Path) -> Segments:
    return Segments(**load_arrays(folder, ("offsets", "timestamp")))


def _timelines(folder: Path) -> Timelines:
    return Timelines(_segments(folder), **load_arrays(folder, ("completed", "watch_seconds", "num_timed")))
