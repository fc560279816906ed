"""What the ranker reads of a user, a moment and each candidate: ids that are embedded, and continuous features.

*Query* features are computed once per request, *candidate* features once per video.
"""

from dataclasses import dataclass, fields

import numpy as np

from watchnext.events.dataset import VideoTable
from watchnext.examples.contexts import UserContext
from watchnext.features.spec import FeatureSpec
from watchnext.features.state import FeatureValues
from watchnext.features.titles import searched_titles
from watchnext.shapes import Array, Float, Int

_DAY = 86_400


@dataclass(frozen=True)
class Nominations:
    """What retrieval says of each candidate: rank 0 where a source did not nominate it, whose score is then NaN.

    The first source is the network, whose score every candidate has anyway.
    """

    network_score: Float[Array, "batch candidates"]
    rank: Int[Array, "batch candidates sources"]
    source_score: Float[Array, "batch candidates sources"]


@dataclass(frozen=True)
class RankingInputs:
    """Raw features of some candidates of some users; ids are rows of vocabularies, 0 for unknown."""

    query_ids: Int[Array, "batch query_fields"]
    last_watched: Int[Array, "batch history"]
    query_values: Float[Array, "batch query_values"]
    video_row: Int[Array, "batch candidates"]
    channel_row: Int[Array, "batch candidates"]
    video_ids: Int[Array, "batch candidates fields"]
    tag_rows: Int[Array, "batch candidates tags"]
    values: Float[Array, "batch candidates values"]
    duration_seconds: Float[Array, "batch candidates"]

    def __len__(self) -> int:
        """The number of users (in training: of impressions)."""
        return len(self.query_ids)

    def part(self, places: Int[Array, "rows"] | slice) -> "RankingInputs":
        """Gives some of the users."""
        return RankingInputs(**{spec.name: getattr(self, spec.name)[places] for spec in fields(self)})


QUERY_IDS = ("hour", "weekday", "surface")
"""The query's own ids, before the user's categorical attributes."""


def ranking_inputs(
    videos: VideoTable,
    context: UserContext,
    surface_row: Int[Array, "batch"],
    video_row: Int[Array, "batch candidates"],
    nominations: Nominations,
    values: FeatureValues,
    spec: FeatureSpec,
) -> RankingInputs:
    """Puts together what is known of users and candidates as of each user's moment."""
    uploaded = videos.uploaded_at[video_row]
    age_days = np.where(uploaded > 0, np.maximum(context.moment[:, None] - uploaded, 0) / _DAY, np.nan)
    of_titles = []
    if len(spec.title_words):
        of_titles = [searched_titles(videos.title_rows, video_row, spec.title_words[context.token_row])]
    nominated = nominations.rank > 0
    candidate_values = [
        values.candidates,
        age_days[:, :, None],
        videos.continuous[video_row],
        *of_titles,
        nominations.network_score[:, :, None],
        nominated.sum(axis=2, keepdims=True),
        nominated,
        np.where(nominated, nominations.rank, np.nan),
        nominations.source_score[:, :, 1:],
    ]
    query_values = np.concatenate([values.query, context.continuous], axis=1, dtype=np.float32)
    return RankingInputs(
        query_ids=np.column_stack([_clock_ids(context.moment), surface_row, context.categorical]).astype(np.int64),
        last_watched=context.watched_row[:, : spec.config.last_watches],
        query_values=query_values[:, spec.query_places],
        video_row=video_row,
        channel_row=videos.channel_row[video_row].astype(np.int64),
        video_ids=videos.categorical[video_row].astype(np.int64),
        tag_rows=videos.tag_rows[video_row].astype(np.int64),
        values=np.concatenate(candidate_values, axis=2, dtype=np.float32, casting="same_kind")[:, :, spec.places],
        duration_seconds=spec.durations[video_row],
    )


def _clock_ids(moments: Int[Array, "batch"]) -> Int[Array, "batch fields"]:
    """Hour of day and day of week in UTC, from 1; 0 stays 'unknown'."""
    return np.column_stack([moments // 3600 % 24 + 1, moments // _DAY % 7 + 1])
