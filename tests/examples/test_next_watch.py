import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from watchnext.examples.next_watch import concatenated_ranges, next_watches, retrieval_batches, targets_between

DAY = 86_400


def watches(user, *whens):
    """User `user` completes video 10 * user + n at the n-th moment."""
    return [
        {"user": user, "when": when, "video": 10 * user + nth, "completed": True}
        for nth, when in enumerate(whens, start=1)
    ]


def as_tuples(examples):
    columns = (examples.user_row, examples.timestamp, examples.video_row)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_each_user_keeps_the_latest_watches_before_the_moment(records_of):
    events = records_of([*watches(1, 5, 6, 7, 8), *watches(3, 9), *watches(4, 8, 9)]).events
    # user 1 loses the watch at 5 to the cap and the one at 8 to the moment; user 3 has none before 8
    assert as_tuples(next_watches(events, 8, 2)) == [(1, 6, 12), (1, 7, 13)]
    assert as_tuples(next_watches(events, 9, 2)) == [(1, 7, 13), (1, 8, 14), (4, 8, 41)]


def test_what_was_not_completed_is_no_label(records_of):
    shown = {"user": 1, "when": 1, "video": 9, "clicked": True}
    assert as_tuples(next_watches(records_of([shown, *watches(1, 2)]).events, 9, 5)) == [(1, 2, 11)]


def test_no_watches_give_no_examples(records_of):
    assert len(next_watches(records_of([]).events, 9, 5)) == 0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_next_watches_equal_a_loop(records_of, random_log, seed):
    log, _ = random_log(seed)
    expected = []
    for user in range(6):
        own = [
            (user, event["when"], event["video"])
            for event in log
            if event["user"] == user and event["when"] < 30 and event["completed"] and event["video"] > 0
        ]
        expected += own[-3:]
    assert as_tuples(next_watches(records_of(log).events, 30, 3)) == expected


def batches_of(dataset, records, order, size, newest=3 * DAY):
    """Batches of a dataset that has the events, searches and users of `records`."""
    dataset = dataclasses.replace(dataset, **vars(records))
    examples = next_watches(records.events, newest, 100)
    return examples, list(retrieval_batches(dataset, examples, np.array(order), size, 8, 4, newest))


def test_batches_follow_the_order_and_the_last_may_be_short(small_dataset, records_of):
    records = records_of(watches(1, 1, 2, 3, 4, 5))
    _, batches = batches_of(small_dataset, records, [4, 0, 3, 1, 2], 2)
    assert [batch.video_row.tolist() for batch in batches] == [[15, 11], [14, 12], [13]]


def test_ages_count_the_days_back_from_the_newest_moment(small_dataset, records_of):
    records = records_of(watches(1, 0, DAY // 2, 2 * DAY))
    _, [batch] = batches_of(small_dataset, records, [0, 1, 2], 9)
    assert_allclose(batch.example_age_days, [3.0, 2.5, 1.0])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_history_ends_before_the_label(small_dataset, records_of, random_log, seed):
    records = records_of(*random_log(seed))
    order = np.random.default_rng(seed).permutation(len(next_watches(records.events, 40, 100)))
    examples, batches = batches_of(small_dataset, records, order, 16, newest=40)
    assert_array_equal(np.concatenate([batch.context.user_row for batch in batches]), examples.user_row[order])
    for batch, label in zip(batches, np.split(order, range(16, len(order), 16)), strict=True):
        context, moments = batch.context, examples.timestamp[label][:, None]
        assert_array_equal(context.moment, moments[:, 0])
        assert (context.watched_timestamp[context.watched_row > 0] >= 0).all()
        assert ((context.watched_timestamp < moments) | (context.watched_row == 0)).all()
        assert ((context.timestamp < moments) | (context.video_row == 0)).all()


def test_targets_are_the_distinct_videos_completed_in_a_half_open_period(records_of):
    again = {"user": 1, "when": 6, "video": 11, "completed": True}
    events = records_of([*watches(1, 5, 7, 8), again, *watches(2, 4, 8), *watches(3, 5)]).events
    users, targets = targets_between(events, 5, 8)
    assert users.tolist() == [1, 3]
    assert [rows.tolist() for rows in targets] == [[11, 12], [31]]


def test_an_empty_period_has_no_targets(records_of):
    users, targets = targets_between(records_of(watches(1, 5)).events, 6, 9)
    assert users.tolist() == [] and targets == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 5))))
def test_concatenated_ranges_equal_ranges_one_after_another(ranges):
    starts = np.array([start for start, _ in ranges], dtype=np.int64)
    lengths = np.array([length for _, length in ranges], dtype=np.int64)
    expected = [place for start, length in ranges for place in range(start, start + length)]
    assert concatenated_ranges(starts, starts + lengths).tolist() == expected
