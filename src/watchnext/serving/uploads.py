"""Videos that came after the bundle was made: rows behind its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from watchnext.errors import RequestError
from watchnext.events.dataset import Dataset, VideoTable
from watchnext.events.schema import LATEST_TIME_SECONDS
from watchnext.events.tokens import title_words
from watchnext.shapes import Array, Float, Int

_OWN = ("title", "channel_id", "tags", "uploaded_at")
_LARGEST_NUMBER = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Uploads:
    """New videos in the shape in which a dataset knows videos; the first has the row after the dataset's last one.

    `vectors` are those of the video tower, zero where there is none: such a video is nominated for its channel or
    because it is new, but is nobody's neighbour.
    """

    first_row: int
    ids: tuple[str, ...]
    titles: tuple[str | None, ...]
    channels: tuple[str | None, ...]
    table: VideoTable
    vectors: Float[Array, "uploads dim"]

    @classmethod
    def none(cls, dataset: Dataset, dim: int) -> "Uploads":
        """Gives the uploads of a bundle that was just made."""
        table = VideoTable(**{name: np.asarray(column[:0]) for name, column in vars(dataset.videos).items()})
        return cls(dataset.num_videos, (), (), (), table, np.zeros((0, dim), dtype=np.float32))

    def __len__(self) -> int:
        """How many there are."""
        return len(self.ids)

    def row_of(self, video_id: str) -> int:
        """Gives the row of an upload, 0 if there is none of this id."""
        return self.first_row + self.ids.index(video_id) if video_id in self.ids else 0

    def and_one(
        self, video_id: str, title: str | None, channel: str | None, one: VideoTable, vector: Float[Array, "dim"]
    ) -> "Uploads":
        """Gives these and one more, described by a table of one row."""
        columns = {name: np.concatenate([column, getattr(one, name)]) for name, column in vars(self.table).items()}
        return replace(
            self,
            ids=(*self.ids, video_id),
            titles=(*self.titles, title),
            channels=(*self.channels, channel),
            table=VideoTable(**columns),
            vectors=np.concatenate([self.vectors, vector[None]]),
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


@dataclass(frozen=True)
class Overlaid:
    """Vectors by row, of a dataset's videos and of uploads."""

    vectors: Float[Array, "videos dim"]
    newer: Float[Array, "uploads dim"]

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
    categories = [
        int(dataset.vocabularies[f"videos.{name}"].rows_of([columns.get(name)])[0]) for name in dataset.video_categories
    ]
    videos, vocabularies = dataset.videos, dataset.vocabularies
    tags = _texts("tags", columns.get("tags") or [])
    words = title_words(_texts("title", [columns["title"]]))[0] if columns.get("title") is not None else []
    channel = columns.get("channel_id")
    return VideoTable(
        channel_row=_like(videos.channel_row, vocabularies["channels"].rows_of([channel])),
        categorical=_like(videos.categorical, np.array([categories])),
        continuous=_like(videos.continuous, np.array([values])),
        tag_rows=_padded(videos.tag_rows, vocabularies["tags"].rows_of(tags)),
        title_rows=_padded(videos.title_rows, vocabularies["title_tokens"].rows_of(words)),
        uploaded_at=_like(videos.uploaded_at, np.array([_time(columns.get("uploaded_at"))])),
        num_completed=_like(videos.num_completed, np.zeros(1)),
    )


def _like(column: Array, values: Array) -> Array:
    return np.asarray(values).reshape(1, *column.shape[1:]).astype(column.dtype)


def _padded(column: Array, rows: Int[Array, "rows"]) -> Int[Array, "1 rows"]:
    found = rows[rows > 0][: column.shape[1]]
    return np.pad(found, (0, column.shape[1] - len(found)))[None].astype(column.dtype)


def _number(name: str, value: Any) -> float:
    if value is None:
        return np.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST_NUMBER:
        raise RequestError(f"the video's column '{name}' should be a number.")
    return float(value)


def _texts(name: str, values: Sequence[Any]) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str | int) for value in values):
        raise RequestError(f"the video's '{name}' should be text.")
    return [str(value) for value in values]


def _time(value: Any) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LATEST_TIME_SECONDS:
        raise RequestError("the video's 'uploaded_at' should be Unix seconds before the year 2100.")
    return value
