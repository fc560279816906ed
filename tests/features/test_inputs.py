"""A tiny world worked by hand: three videos, two channels, users with one or two events."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from watchnext.events.dataset import Timelines, VideoTable
from watchnext.features.inputs import FeatureSettings, Nominations, candidate_values, query_values, ranking_inputs

DAY = 86_400
NOW = 100 * DAY
SETTINGS = FeatureSettings(
    average_watch_seconds=20.0, average_completed=0.25, history_length=4, last_watches=2, habit_lag_days=0.5
)


@dataclass(frozen=True)
class Records:
    videos: VideoTable
    video_timelines: Timelines
    channel_timelines: Timelines


@pytest.fixture
def records(timelines_of):
    # video 1 and 2 are of channel 1, video 3 of channel 2; 2 and 3 share the tag 6; video 3 has no upload time
    past = [
        (1, NOW - 5 * DAY, True, 40.0),
        (1, NOW - 3600, True, 60.0),
        (2, NOW - 3600, False, np.nan),
        (2, NOW, True, 999.0),
    ]
    videos = VideoTable(
        channel_row=np.array([0, 1, 1, 2], dtype=np.int32),
        categorical=np.array([[0], [3], [4], [5]], dtype=np.int32),
        continuous=np.array([[np.nan], [0.1], [0.2], [0.3]], dtype=np.float32),
        tag_rows=np.array([[0, 0], [5, 0], [6, 0], [7, 6]], dtype=np.int32),
        title_rows=np.zeros((4, 1), dtype=np.int32),
        uploaded_at=np.array([0, NOW - 10 * DAY, NOW + DAY, 0]),
        num_completed=np.array([0, 3, 2, 1]),
    )
    return Records(videos, timelines_of(past, 4), timelines_of([(1, *event[1:]) for event in past], 3))


@pytest.fixture
def context(context_of):
    return context_of(
        [
            {"video": 2, "when": NOW - 60, "seconds": 3.0, "clicked": True},
            {"video": 1, "when": NOW - 2 * 3600, "seconds": np.nan},
            {"video": 3, "when": NOW - DAY // 2, "seconds": 30.0, "clicked": True, "completed": True},
            {"video": 2, "when": NOW - 3 * DAY, "seconds": 10.0, "clicked": True},
        ],
        [{"video": 3, "when": NOW - 2 * DAY, "completed": True}],
        [],
        moment=NOW,
        watched=[3, 2, 1],
        continuous=[31.0],
        categorical=[8, 9],
    )


CANDIDATES = np.array([[1, 2, 3, 0]] * 3)


def nominations_of(candidates, seed=0):
    random = np.random.default_rng(seed)
    return Nominations(random.normal(size=candidates.shape), random.random((*candidates.shape, 2)) < 0.5)


@pytest.fixture
def values(records, context):
    return candidate_values(records, context, CANDIDATES, nominations_of(CANDIDATES), SETTINGS)


def test_habits_are_shares_and_means_of_settled_events(context):
    values = query_values(context, SETTINGS)
    # of the first user's events only the one of exactly half a day and that of three days are settled;
    # the second user's watch time is unknown; the third has no history
    assert_array_equal(values["habitual_completed_share"], [0.5, 1.0, np.nan])
    assert_array_equal(values["habitual_clicked_share"], [1.0, 0.0, np.nan])
    assert_array_equal(values["habitual_watch_seconds"], [20.0, np.nan, np.nan])


def test_events_are_counted_by_age(context):
    values = query_values(context, SETTINGS)
    assert_array_equal(values["history_length"], [4, 1, 0])
    assert_array_equal(values["events_last_hour"], [1, 0, 0])
    assert_array_equal(values["events_last_day"], [3, 0, 0])
    assert_array_equal(values["seconds_since_last_event"], [60, 2 * DAY, np.nan])


def test_an_hour_ago_is_not_within_the_last_hour(context_of):
    context = context_of([{"video": 1, "when": NOW - 3599}, {"video": 1, "when": NOW - 3600}], moment=NOW)
    assert query_values(context, SETTINGS)["events_last_hour"].tolist() == [1]


def test_a_day_ago_is_not_within_the_last_day(context_of):
    context = context_of([{"video": 1, "when": NOW - DAY + 1}, {"video": 1, "when": NOW - DAY}], moment=NOW)
    assert query_values(context, SETTINGS)["events_last_day"].tolist() == [1]


def test_the_age_of_a_video_is_known_and_never_negative(values):
    assert_array_equal(values["age_days"][0], [10.0, 0.0, np.nan, np.nan])


def test_a_track_record_ends_before_the_moment(values):
    assert_array_equal(values["video_num_shown"][0], [2, 1, 0, 0])
    assert_array_equal(values["video_num_completed"][0], [2, 0, 0, 0])
    assert_array_equal(values["video_num_shown_last_day"][0], [1, 1, 0, 0])
    assert_array_equal(values["channel_num_shown"][0], [3, 3, 0, 0])
    assert_array_equal(values["channel_num_shown_last_day"][0], [2, 2, 0, 0])


def test_rates_lean_towards_the_averages_as_if_ten_events_had_shown_them(values):
    # video 1: (2 + 10 · 0.25) / (2 + 10); video 2 was shown once, its watch time is unknown; video 3 was never shown
    assert_allclose(values["video_completed_share"][0], [4.5 / 12, 2.5 / 11, 0.25, 0.25])
    assert_allclose(values["video_mean_watch_seconds"][0], [300 / 12, 20.0, 20.0, 20.0])
    assert_allclose(values["channel_completed_share"][0], [4.5 / 13, 4.5 / 13, 0.25, 0.25])
    assert_allclose(values["channel_mean_watch_seconds"][0], [300 / 12, 300 / 12, 20.0, 20.0])


def test_the_past_with_the_same_video_is_told(values):
    assert_array_equal(values["same_video_num_shown"], [[1, 2, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
    assert_array_equal(values["same_video_watch_seconds"][0], [0, 13, 30, 0])
    assert_array_equal(values["same_video_seconds_since"][0], [7200, 60, DAY // 2, np.nan])


def test_the_past_with_the_same_channel_is_told(values):
    assert_array_equal(values["same_channel_num_shown"], [[3, 3, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
    assert_array_equal(values["same_channel_num_completed"][0], [0, 0, 1, 0])


def test_tags_look_at_settled_events_only(values):
    # settled: video 3 (tags 7, 6) and the old watch of video 2 (tag 6); video 1's tag 5 was met two hours ago
    assert_array_equal(values["same_tags_num_shown"][0], [0, 2, 3, 0])
    assert_array_equal(values["same_tags_watch_seconds"][0], [0, 40, 70, 0])
    assert_array_equal(values["same_tags_seconds_since"][0], [np.nan, DAY // 2, DAY // 2, np.nan])


def test_nominations_are_passed_on(values):
    given = nominations_of(CANDIDATES)
    assert_array_equal(values["network_score"], given.network_score)
    assert_array_equal(values["nominated_by_0"], given.nominated[:, :, 0])
    assert_array_equal(values["nominated_by_1"], given.nominated[:, :, 1])
    assert_array_equal(values["num_sources"], given.nominated.sum(axis=2))


def inputs_of(records, context, candidates=CANDIDATES, nominations=None, settings=SETTINGS):
    surfaces = np.arange(len(context)) + 1
    return ranking_inputs(records, context, surfaces, candidates, nominations or nominations_of(candidates), settings)


def test_query_ids_are_hour_weekday_surface_and_the_users_own(records, context):
    # day 100 of Unix time began at midnight: hour 1 of 24; 100 mod 7 = 2: the third day, counted from 1
    assert inputs_of(records, context).query_ids.tolist() == [[1, 3, 1, 8, 9], [1, 3, 2, 8, 9], [1, 3, 3, 8, 9]]


def test_the_last_second_of_a_day_is_hour_24(records, context):
    late = dataclasses.replace(context, moment=context.moment + DAY - 1)
    assert inputs_of(records, late).query_ids[0, :2].tolist() == [24, 3]


def test_ids_of_videos_are_looked_up(records, context):
    inputs = inputs_of(records, context)
    assert inputs.channel_row[0].tolist() == [1, 1, 2, 0]
    assert inputs.video_ids[0].tolist() == [[3], [4], [5], [0]]
    assert inputs.tag_rows[0].tolist() == [[5, 0], [6, 0], [7, 6], [0, 0]]
    assert inputs.last_watched.tolist() == [[3, 2]] * 3


def test_columns_are_the_named_features_and_then_the_attributes(records, context, values):
    inputs = inputs_of(records, context)
    queries = query_values(context, SETTINGS)
    assert_array_equal(inputs.query_values, np.stack([*queries.values(), np.full(3, 31.0)], axis=1).astype(np.float32))
    attribute = np.array([[0.1, 0.2, 0.3, np.nan]] * 3)
    assert_array_equal(inputs.values, np.stack([*values.values(), attribute], axis=2).astype(np.float32))


def test_only_the_latest_events_of_the_history_count(records, context):
    short = dataclasses.replace(SETTINGS, history_length=2)
    assert_array_equal(inputs_of(records, context, settings=short).query_values[0, 0], 2)


def assert_same(left, right):
    for spec in dataclasses.fields(left):
        assert_array_equal(getattr(left, spec.name), getattr(right, spec.name), err_msg=spec.name)


def test_a_batch_equals_one_by_one(records, random_context):
    _, context = random_context(1)
    context = dataclasses.replace(context, video_row=context.video_row % 4, watched_row=context.watched_row % 4)
    candidates = np.random.default_rng(0).integers(0, 4, (5, 6))
    nominations = nominations_of(candidates)
    whole = inputs_of(records, context, candidates, nominations)
    for user in range(5):
        one = slice(user, user + 1)
        part = Nominations(nominations.network_score[one], nominations.nominated[one])
        alone = ranking_inputs(records, context.part(one), np.array([user + 1]), candidates[one], part, SETTINGS)
        assert_same(alone, whole.part(one))


def test_padding_the_candidates_changes_nothing(records, context):
    wide = np.array([[2, 3]] * 3)
    padded = np.array([[2, 3, 0, 0]] * 3)
    given = nominations_of(padded)
    narrow = inputs_of(records, context, wide, Nominations(given.network_score[:, :2], given.nominated[:, :2]))
    assert_array_equal(narrow.values, inputs_of(records, context, padded, given).values[:, :2])


def test_padding_the_history_changes_nothing(records, random_context, context_of):
    histories, _ = random_context(2)
    histories = [[{**event, "video": event["video"] % 4} for event in history] for history in histories]
    candidates = np.random.default_rng(0).integers(0, 4, (5, 6))
    long = dataclasses.replace(SETTINGS, history_length=99)
    narrow, wide = (
        inputs_of(records, context_of(*histories, length=length), candidates, settings=long) for length in (12, 50)
    )
    assert_same(narrow, wide)


def test_permuted_candidates_give_permuted_features(records, context):
    given, order = nominations_of(CANDIDATES), np.array([2, 0, 3, 1])
    moved = Nominations(given.network_score[:, order], given.nominated[:, order])
    straight = inputs_of(records, context, CANDIDATES, given)
    permuted = inputs_of(records, context, CANDIDATES[:, order], moved)
    for name in ("video_row", "channel_row", "video_ids", "tag_rows", "values"):
        assert_array_equal(getattr(permuted, name), getattr(straight, name)[:, order], err_msg=name)
    assert_array_equal(permuted.query_values, straight.query_values)


def test_len_counts_users(records, context):
    assert len(inputs_of(records, context)) == 3
