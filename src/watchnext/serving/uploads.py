"""Videos that came after the bundle was made: rows behind its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from watchnext.errors import RequestError
from watchnext.events.dataset import Dataset, VideoTable
from watchnext.events.schema import LATEST_TIME_SECONDS
from watchnext.events.tokens import title_words
from watchnext.events.vocabulary import Vocabulary
from watchnext.retrieval.index.packed import Vectors
from watchnext.serving.events import LiveEvent
from watchnext.shapes import Array, Float, Int

_OWN = ("title", "channel_id", "tags", "uploaded_at")
_LARGEST_NUMBER = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Uploads:
    """New videos in the shape in which a dataset knows videos; the first has the row after the dataset's last one.

    `vectors` are those of the video tower, zero where there is none: such a video is nominated for its channel or
    because it is new, but is nobody's neighbour. `arrived_at` is when each was heard of.
    """

    first_row: int
    ids: tuple[str, ...]
    arrived_at: tuple[int, ...]
    titles: tuple[str | None, ...]
    channels: tuple[str | None, ...]
    table: VideoTable
    vectors: Float[Array, "rows dim"]

    @classmethod
    def none(cls, dataset: Dataset, dim: int) -> "Uploads":
        """Gives the uploads of a bundle that was just made."""
        table = VideoTable(**{name: np.asarray(column[:0]) for name, column in vars(dataset.videos).items()})
        return cls(dataset.num_videos, (), (), (), (), table, np.zeros((0, dim), dtype=np.float32))

    def __len__(self) -> int:
        """How many there are."""
        return len(self.ids)

    def row_of(self, video_id: str) -> int:
        """Gives the row of an upload, 0 if there is none of this id."""
        return self._rows.get(video_id, 0)

    def after(self, moment: int) -> Int[Array, "rows"]:
        """Gives the rows of those that nobody had heard of at the moment."""
        return self.first_row + np.flatnonzero(np.array(self.arrived_at) > moment)

    def and_these(self, events: Sequence[LiveEvent], table: VideoTable, vectors: Float[Array, "new dim"]) -> "Uploads":
        """Gives these and those of some more events, which the table describes."""
        titles, channels = (
            [None if (said := (event.upload or {}).get(name)) is None else str(said) for event in events]
            for name in ("title", "channel_id")
        )
        return replace(
            self,
            ids=(*self.ids, *(str(event.video_id) for event in events)),
            arrived_at=(*self.arrived_at, *(event.timestamp for event in events)),
            titles=(*self.titles, *titles),
            channels=(*self.channels, *channels),
            table=self.table.followed_by([table]),
            vectors=np.concatenate([self.vectors, vectors]),
        )

    def table_of(self, videos: VideoTable, rows: Int[Array, "rows"]) -> VideoTable:
        """Gives what is known of videos of the dataset and of uploads, side by side, in the order of `rows`."""
        own = rows >= self.first_row
        columns = {}
        for spec in fields(VideoTable):
            known = np.asarray(getattr(videos, spec.name)[np.where(own, 0, rows)])
            known[own] = getattr(self.table, spec.name)[rows[own] - self.first_row]
            columns[spec.name] = known
        return VideoTable(**columns)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {video_id: self.first_row + place for place, video_id in enumerate(self.ids)}


@dataclass(frozen=True)
class Overlaid:
    """Vectors by row, of a dataset's videos and of uploads."""

    vectors: Vectors
    newer: Float[Array, "rows dim"]

    def __getitem__(self, rows: Int[Array, "..."]) -> Float[Array, "... dim"]:
        """Gives the vectors of rows of any shape."""
        own = rows >= len(self.vectors)
        found: Array = self.vectors[np.where(own, 0, rows)]
        if own.any():
            found[own] = self.newer[rows[own] - len(self.vectors)]
        return found


def table_of_one(dataset: Dataset, columns: Mapping[str, Any]) -> VideoTable:
    """Looks up what is said of one new video; a channel, category, tag or word that is not known is left as row 0.

    Raises:
        RequestError: a column that the log does not have, or a value of the wrong kind.
    """
    numbers = list(dataset.facts["video_numbers"])
    known = [*_OWN, *dataset.video_categories, *numbers]
    unknown = sorted(set(columns) - set(known))
    if unknown:
        raise RequestError(f"an unknown column of a video came: known are {', '.join(known)}.")
    values = [_number(name, columns.get(name)) for name in numbers]
    videos, vocabularies = dataset.videos, dataset.vocabularies
    categories = [_row(vocabularies[f"videos.{name}"], _text(name, columns)) for name in dataset.video_categories]
    tags = columns.get("tags")
    words = title_words(_text("title", columns))
    return VideoTable(
        channel_row=_like(videos.channel_row, np.array([_row(vocabularies["channels"], _text("channel_id", columns))])),
        categorical=_like(videos.categorical, np.array([categories])),
        continuous=_like(videos.continuous, np.array([values])),
        tag_rows=_padded(videos.tag_rows, vocabularies["tags"].rows_of([] if tags is None else _texts("tags", tags))),
        title_rows=_padded(videos.title_rows, vocabularies["title_tokens"].rows_of(words[0] if words else [])),
        uploaded_at=_like(videos.uploaded_at, np.array([_time(columns.get("uploaded_at"))])),
        num_completed=_like(videos.num_completed, np.zeros(1)),
    )


def _like(column: Array, values: Array) -> Array:
    return np.asarray(values).reshape(1, *column.shape[1:]).astype(column.dtype)


def _padded(column: Array, rows: Int[Array, "rows"]) -> Int[Array, "1 _"]:
    found = rows[: column.shape[1]]
    return np.pad(found, (0, column.shape[1] - len(found)))[None].astype(column.dtype)


def _number(name: str, value: Any) -> float:
    if value is None:
        return np.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST_NUMBER:
        raise RequestError(f"the video's column '{name}' should be a number.")
    return float(value)


def _row(vocabulary: Vocabulary, texts: list[str]) -> int:
    """The row of the only text, 0 where there is none."""
    return int(vocabulary.rows_of(texts)[0]) if texts else 0


def _text(name: str, columns: Mapping[str, Any]) -> list[str]:
    """A column's text, if it has one."""
    return [] if columns.get(name) is None else _texts(name, [columns[name]])


def _texts(name: str, values: Any) -> list[str]:
    if not isinstance(values, list):
        raise RequestError(f"the video's '{name}' should be a list of texts.")
    if not all(isinstance(value, str | int) and not isinstance(value, bool) for value in values):
        raise RequestError(f"the video's '{name}' should be text.")
    return [str(value) for value in values]


def _time(value: Any) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LATEST_TIME_SECONDS:
        raise RequestError("the video's 'uploaded_at' should be Unix seconds before the year 2100.")
    return value
