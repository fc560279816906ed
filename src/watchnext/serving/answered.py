"""An answer as it was given, and the rows that are kept of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from watchnext.errors import RequestError
from watchnext.shapes import Array, Float

_TEXTS = pa.list_(pa.string())
PLACES = pa.schema(
    [
        ("page_id", pa.string()),
        ("user_id", pa.string()),
        ("video_id", pa.string()),
        ("timestamp", pa.int64()),
        ("position", pa.int32()),
        ("surface", pa.string()),
        ("bundle", pa.string()),
        ("variant", pa.string()),
        ("degraded", _TEXTS),
        ("score", pa.float64()),
        ("expected_watch_seconds", pa.float64()),
        ("sources", _TEXTS),
    ]
)
"""The columns of an answer file: one row per place, of which `prepare` makes impressions."""

CANDIDATES = pa.schema(
    [
        ("page_id", pa.string()),
        ("user_id", pa.string()),
        ("timestamp", pa.int64()),
        ("bundle", pa.string()),
        ("variant", pa.string()),
        ("candidate_ids", _TEXTS),
        ("candidate_scores", pa.list_(pa.float32())),
    ]
)
"""The columns of a candidate file: one row per request."""


@dataclass(frozen=True)
class Answered:
    """One answer as it was given; what belongs to the places is in their order, best first.

    `user_id` is None of somebody who was described by the request. `degraded` are the reasons, none of a full answer.
    """

    request_id: str
    timestamp: int
    user_id: str | None
    surface: str | None
    bundle: str
    variant: str
    degraded: tuple[str, ...]
    video_ids: Sequence[int | str]
    scores: Sequence[float]
    expected_watch_seconds: Sequence[float | None]
    sources: Sequence[tuple[str, ...]]
    candidate_ids: pa.StringArray | Sequence[str]
    candidate_scores: Sequence[float] | Float[Array, "candidates"]

    def __post_init__(self) -> None:
        lengths = [len(self.video_ids), len(self.scores), len(self.expected_watch_seconds), len(self.sources)]
        if len(set(lengths)) > 1 or len(self.candidate_ids) != len(self.candidate_scores):
            raise RequestError(
                f"an answer with {lengths} video ids, scores, expected watch seconds and sources and with "
                f"{len(self.candidate_ids)} candidate ids, {len(self.candidate_scores)} scores: give each its own."
            )

    def places(self) -> pa.RecordBatch:
        """Gives the rows of the answer file."""
        count = len(self.video_ids)
        columns = {
            "page_id": [self.request_id] * count,
            "user_id": [self.user_id] * count,
            "video_id": [str(one) for one in self.video_ids],
            "timestamp": [self.timestamp] * count,
            "position": range(1, count + 1),
            "surface": [self.surface] * count,
            "bundle": [self.bundle] * count,
            "variant": [self.variant] * count,
            "degraded": [self.degraded] * count,
            "score": self.scores,
            "expected_watch_seconds": self.expected_watch_seconds,
            "sources": self.sources,
        }
        return pa.RecordBatch.from_pydict(columns, schema=PLACES)

    def candidates(self) -> pa.RecordBatch:
        """Gives the row of the candidate file."""
        columns = {
            "page_id": [self.request_id],
            "user_id": [self.user_id],
            "timestamp": [self.timestamp],
            "bundle": [self.bundle],
            "variant": [self.variant],
            "candidate_ids": _one_list(self.candidate_ids, pa.string()),
            "candidate_scores": _one_list(self.candidate_scores, pa.float32()),
        }
        return pa.RecordBatch.from_pydict(columns, schema=CANDIDATES)


def _one_list(values: Any, kind: pa.DataType) -> pa.ListArray:
    """A column with one list."""
    column = values if isinstance(values, pa.Array) else pa.array(values, kind)
    return pa.ListArray.from_arrays([0, len(column)], column)
