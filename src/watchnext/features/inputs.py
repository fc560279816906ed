"""The features themselves: what the ranker is told about a user, a moment, and each candidate.

*Query* features are computed once per request, *candidate* features once per video. A continuous feature is one
entry of the dictionaries below; its name there is its name everywhere.
"""

from dataclasses import dataclass, fields
from typing import Protocol, runtime_checkable

import numpy as np

from watchnext.events.dataset import Timelines, VideoTable
from watchnext.examples.contexts import UserContext
from watchnext.features.past import Past, past_with_any_key, past_with_same_key
from watchnext.features.track_record import track_record
from watchnext.shapes import Array, Bool, Float, Int

_DAY = 86_400
_PRIOR_EVENTS = 10.0


@runtime_checkable
class VideoRecords(Protocol):
    """Whatever knows videos and their past: a dataset or a bundle."""

    @property
    def videos(self) -> VideoTable:
        """Attributes."""
        ...

    @property
    def video_timelines(self) -> Timelines:
        """The past of each video."""
        ...

    @property
    def channel_timelines(self) -> Timelines:
        """The past of each channel."""
        ...


@dataclass(frozen=True)
class FeatureSettings:
    """What the features need besides the data.

    A video without a past is assumed to be watched for `average_watch_seconds` and completed by
    `average_completed`, the means of the training period.
    """

    average_watch_seconds: float
    average_completed: float
    history_length: int
    last_watches: int
    habit_lag_days: float


@dataclass(frozen=True)
class Nominations:
    """What retrieval says of each candidate."""

    network_score: Float[Array, "batch candidates"]
    nominated: Bool[Array, "batch candidates sources"]


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

    def __len__(self) -> int:
        """The number of users (in training: of impressions)."""
        return len(self.query_ids)

    def part(self, places: Int[Array, "rows"] | slice) -> "RankingInputs":
        """Gives some of the users."""
        return RankingInputs(**{spec.name: getattr(self, spec.name)[places] for spec in fields(self)})


QUERY_IDS = ("hour", "weekday", "surface")
"""The query's own ids, before the user's categorical attributes."""


def ranking_inputs(
    records: VideoRecords,
    context: UserContext,
    surface_row: Int[Array, "batch"],
    video_row: Int[Array, "batch candidates"],
    nominations: Nominations,
    settings: FeatureSettings,
) -> RankingInputs:
    """Computes every feature as of each user's moment, from its latest `history_length` events."""
    videos = records.videos
    context = context.newest(settings.history_length)
    values = candidate_values(records, context, video_row, nominations, settings)
    queries = query_values(context, settings)
    return RankingInputs(
        query_ids=np.column_stack([_clock_ids(context.moment), surface_row, context.categorical]).astype(np.int64),
        last_watched=context.watched_row[:, : settings.last_watches],
        query_values=np.column_stack([*queries.values(), context.continuous]).astype(np.float32),
        video_row=video_row,
        channel_row=videos.channel_row[video_row].astype(np.int64),
        video_ids=videos.categorical[video_row].astype(np.int64),
        tag_rows=videos.tag_rows[video_row].astype(np.int64),
        values=np.concatenate([np.stack(list(values.values()), axis=2), videos.continuous[video_row]], axis=2).astype(
            np.float32
        ),
    )


def query_values(context: UserContext, settings: FeatureSettings) -> dict[str, Float[Array, "batch"]]:
    """The continuous features of a user as of a moment; the user's own numeric attributes follow them.

    The pace is that of settled habits: a sitting's own watches would stand for themselves, since a long watch
    raises the average that predicts the next one.
    """
    real = context.video_row > 0
    age = np.where(real, context.moment[:, None] - context.timestamp, np.iinfo(np.int64).max)
    count = real.sum(axis=1).astype(np.float64)
    habits = context.at_least_this_old(settings.habit_lag_days * _DAY)
    timed = ~np.isnan(habits.watch_seconds) & (habits.video_row > 0)
    settled = (habits.video_row > 0).sum(axis=1)
    return {
        "history_length": count,
        "events_last_hour": (age < 3600).sum(axis=1).astype(np.float64),
        "events_last_day": (age < _DAY).sum(axis=1).astype(np.float64),
        "seconds_since_last_event": _or_nan(age.min(axis=1, initial=np.iinfo(np.int64).max), count > 0),
        "habitual_completed_share": _ratio(habits.completed.sum(axis=1), settled),
        "habitual_clicked_share": _ratio(habits.clicked.sum(axis=1), settled),
        "habitual_watch_seconds": _ratio(np.where(timed, habits.watch_seconds, 0.0).sum(axis=1), timed.sum(axis=1)),
    }


def candidate_values(
    records: VideoRecords,
    context: UserContext,
    video_row: Int[Array, "batch candidates"],
    nominations: Nominations,
    settings: FeatureSettings,
) -> dict[str, Float[Array, "batch candidates"]]:
    """The continuous features of each candidate; the video's own numeric attributes follow them."""
    videos = records.videos
    uploaded = videos.uploaded_at[video_row]
    shown_channels = videos.channel_row[context.video_row]
    channel_row = videos.channel_row[video_row]
    moments = np.broadcast_to(context.moment[:, None], video_row.shape)
    values = {
        "age_days": _or_nan(np.maximum(moments - uploaded, 0) / _DAY, uploaded > 0),
        "network_score": nominations.network_score.astype(np.float64),
        "num_sources": nominations.nominated.sum(axis=2).astype(np.float64),
    }
    for source in range(nominations.nominated.shape[2]):
        values[f"nominated_by_{source}"] = nominations.nominated[:, :, source].astype(np.float64)
    values |= _records_of("video", records.video_timelines, video_row, moments, settings)
    values |= _records_of("channel", records.channel_timelines, channel_row, moments, settings)
    values |= _named("same_video", past_with_same_key(context, context.video_row, video_row))
    values |= _named("same_channel", past_with_same_key(context, shown_channels, channel_row))
    habits = context.at_least_this_old(settings.habit_lag_days * _DAY)
    habitual_tags = videos.tag_rows[habits.video_row]
    values |= _named("same_tags", past_with_any_key(habits, habitual_tags, videos.tag_rows[video_row]))
    habitual_categories, categories = videos.categorical[habits.video_row], videos.categorical[video_row]
    for place in range(categories.shape[2]):
        past = past_with_same_key(habits, habitual_categories[:, :, place], categories[:, :, place])
        values |= _named(f"same_category_{place}", past)
    return values


def _records_of(
    name: str, timelines: Timelines, owners: Array, moments: Array, settings: FeatureSettings
) -> dict[str, Float[Array, "batch candidates"]]:
    """An owner's track record so far and in the last day, rates smoothed towards the averages."""
    flat, when = owners.ravel(), moments.ravel()
    total = track_record(timelines, flat, when)
    before = track_record(timelines, flat, when - _DAY)
    shape = owners.shape
    return {
        f"{name}_num_shown": total.num_shown.reshape(shape),
        f"{name}_num_completed": total.num_completed.reshape(shape),
        f"{name}_num_shown_last_day": (total.num_shown - before.num_shown).reshape(shape),
        f"{name}_completed_share": _smoothed(total.num_completed, total.num_shown, settings.average_completed).reshape(
            shape
        ),
        f"{name}_mean_watch_seconds": _smoothed(
            total.watch_seconds, total.num_timed, settings.average_watch_seconds
        ).reshape(shape),
    }


def _named(name: str, past: Past) -> dict[str, Float[Array, "batch candidates"]]:
    return {f"{name}_{spec.name}": getattr(past, spec.name) for spec in fields(past)}


def _clock_ids(moments: Int[Array, "batch"]) -> Int[Array, "batch fields"]:
    """Hour of day and day of week in UTC, from 1; 0 stays 'unknown'."""
    return np.column_stack([moments // 3600 % 24 + 1, moments // _DAY % 7 + 1])


def _smoothed(total: Array, count: Array, average: float) -> Float[Array, "rows"]:
    smooth: Array = (total + _PRIOR_EVENTS * average) / (count + _PRIOR_EVENTS)
    return smooth


def _ratio(total: Array, count: Array) -> Float[Array, "batch"]:
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _or_nan(values: Array, known: Array) -> Float[Array, "..."]:
    return np.where(known, values, np.nan).astype(np.float64)
