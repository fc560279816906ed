"""Contexts against an obvious oracle: a loop over the events."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from watchnext.examples.contexts import UserContext, context_as_of, seen_before

USERS, MOMENTS = np.array([1, 2, 3, 4, 5, 0, 1, 2]), np.array([20, 40, 0, 17, 30, 30, 21, 1])
SEEDS = [0, 1, 2]


def earlier(rows, user, moment):
    """Newest first; of one second, the later row first."""
    return [row for row in rows if row["user"] == user and row["when"] < moment][::-1]


def padded(values, length, padding):
    return (list(values) + [padding] * length)[:length]


def assert_same(left, right):
    for name, column in vars(left).items():
        assert_array_equal(column, getattr(right, name), err_msg=name)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("length", [0, 1, 7, 60])
def test_a_context_holds_what_a_loop_over_the_events_finds(records_of, random_log, seed, length):
    events, searches = random_log(seed)
    context = context_as_of(records_of(events, searches), USERS, MOMENTS, length, 5)
    for place, (user, moment) in enumerate(zip(USERS, MOMENTS, strict=True)):
        past = earlier(events, user, moment)
        watched = [event for event in past if event["completed"] and event["video"] > 0]
        for name, key, padding in (
            ("video_row", "video", 0),
            ("timestamp", "when", 0),
            ("watch_seconds", "seconds", np.nan),
            ("clicked", "clicked", False),
            ("completed", "completed", False),
        ):
            expected = padded([event[key] for event in past], length, padding)
            assert_array_equal(getattr(context, name)[place], expected, err_msg=name)
        assert_array_equal(context.watched_row[place], padded([event["video"] for event in watched], length, 0))
        tokens = [search["token"] for search in earlier(searches, user, moment)]
        assert_array_equal(context.token_row[place], padded(tokens, 5, 0))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_batch_equals_one_by_one(records_of, random_log, seed):
    records = records_of(*random_log(seed))
    batch = context_as_of(records, USERS, MOMENTS, 7, 5)
    for place in range(len(USERS)):
        alone = context_as_of(records, USERS[place : place + 1], MOMENTS[place : place + 1], 7, 5)
        assert_same(alone, batch.part(np.array([place])))


def test_an_event_at_the_moment_itself_is_not_known(records_of):
    records = records_of([{"user": 1, "when": when, "video": when} for when in (9, 10, 11)])
    assert context_as_of(records, np.array([1]), np.array([10]), 3, 0).video_row.tolist() == [[9, 0, 0]]


def test_the_watched_bag_reaches_behind_videos_not_watched(records_of):
    shown = [{"user": 1, "when": when, "video": when} for when in range(2, 9)]
    records = records_of([{"user": 1, "when": 1, "video": 1, "completed": True}, *shown])
    context = context_as_of(records, np.array([1]), np.array([99]), 2, 0)
    assert context.video_row.tolist() == [[8, 7]]
    assert context.watched_row.tolist() == [[1, 0]]


def test_an_empty_log_gives_padding_alone(records_of):
    context = context_as_of(records_of([]), np.array([1, 2]), np.array([5, 6]), 3, 2)
    assert not context.video_row.any() and not context.watched_row.any() and not context.token_row.any()
    assert not context.clicked.any() and not context.completed.any()
    assert np.isnan(context.watch_seconds).all() and context.watch_seconds.shape == (2, 3)


def test_attributes_are_those_of_the_user(records_of):
    context = context_as_of(records_of([]), np.array([4, 1]), np.array([5, 5]), 1, 1)
    assert context.categorical.tolist() == [[4, 14], [1, 11]]
    assert context.continuous.tolist() == [[2.0], [0.5]]


def test_len_counts_users(records_of):
    assert len(context_as_of(records_of([]), USERS, MOMENTS, 1, 1)) == 8


def test_a_slice_of_a_context_keeps_its_users(records_of, random_log):
    context = context_as_of(records_of(*random_log(0)), USERS, MOMENTS, 7, 5)
    assert_same(context.part(slice(2, 5)), context.part(np.array([2, 3, 4])))
    assert context.part(slice(2, 5)).user_row.tolist() == [3, 4, 5]


@pytest.mark.parametrize("seed", SEEDS)
def test_seen_are_all_distinct_videos_before_the_moment(records_of, random_log, seed):
    events, _ = random_log(seed)
    seen = seen_before(records_of(events), USERS, MOMENTS)
    expected = [
        sorted({event["video"] for event in earlier(events, user, moment)})
        for user, moment in zip(USERS, MOMENTS, strict=True)
    ]
    assert [rows.tolist() for rows in seen] == expected
    assert expected[2] == expected[4] == []


def test_a_context_is_made_of_arrays_of_equal_length():
    with pytest.raises(Exception, match="batch"):
        UserContext(
            **{
                name: np.zeros(shape, dtype=kind)
                for name, shape, kind in (
                    ("user_row", 2, int),
                    ("moment", 3, int),
                    ("video_row", (2, 1), int),
                    ("timestamp", (2, 1), int),
                    ("watch_seconds", (2, 1), float),
                    ("clicked", (2, 1), bool),
                    ("completed", (2, 1), bool),
                    ("watched_row", (2, 1), int),
                    ("token_row", (2, 1), int),
                    ("categorical", (2, 1), int),
                    ("continuous", (2, 1), float),
                )
            }
        )
