import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from watchnext.config import RetrievalConfig
from watchnext.examples import next_watch
from watchnext.examples.next_watch import (
    NextWatchExamples,
    concatenated_ranges,
    next_watches,
    targets_between,
    watch_counts,
)

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


def test_watches_are_counted_by_video_before_the_moment(records_of, monkeypatch):
    monkeypatch.setattr(next_watch, "_ROWS_AT_ONCE", 2)
    shown = {"user": 1, "when": 1, "video": 11}
    unknown = {"user": 2, "when": 3, "video": 0, "completed": True}
    events = records_of([shown, *watches(1, 2, 3, 8), unknown, *watches(2, 4), *watches(4, 9)]).events
    counts = watch_counts(events, 8, 50)
    assert {row: int(counts[row]) for row in np.flatnonzero(counts)} == {11: 1, 12: 1, 21: 1}


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


CONFIG = RetrievalConfig(
    history_length=5, num_search_tokens=3, tower=(4,), embedding_dim=4, batch_size=7, examples_per_user=4
)
WAYS = [
    {},
    {"labels": "held_out"},
    {"horizon": 4},
    {"horizon": 4, "labels": "held_out"},
    {"unwatched_weight": 0.3},
    {"unwatched_weight": 0.3, "horizon": 4},
    {"unwatched_weight": 0.3, "horizon": 4, "labels": "held_out"},
    {"weights": "watch_seconds"},
    {"weights": "watch_seconds", "horizon": 4, "unwatched_weight": 0.3},
    {"half_life_days": 0.001},
    {"half_life_days": 0.001, "weights": "watch_seconds", "horizon": 4},
    {"examples_per_user": 1},
    {"examples_per_user": 1000, "horizon": 1000},
    {"history_length": 40, "num_search_tokens": 40},
    {"history": "transformer", "horizon": 4},
    {"history": "transformer", "history_length": 1},
    {"history": "transformer", "unwatched_weight": 0.3, "examples_per_user": 1000},
    {"history": "transformer", "batch_size": 1},
]
every_way = pytest.mark.parametrize("way", WAYS, ids=str)


def slow_examples(log, searches, config, before):
    """The oracle: (numbers, weights) of each example, by loops over dictionaries."""
    watches = [event for event in log if event["completed"] and event["video"] > 0 and event["when"] < before]
    known = [event["seconds"] for event in watches if not np.isnan(event["seconds"])]
    mean = sum(known) / len(known)
    found = []
    for user in range(6):
        early = [event for event in log if event["user"] == user and event["when"] < before]
        choice = [event for event in early if config.unwatched_weight > 0 or event in watches]
        for place in range(max(0, len(choice) - config.examples_per_user), len(choice)):
            moment = choice[place]["when"]
            targets, weights = [], []
            for event in choice[place : place + config.horizon]:
                new = event["video"] > 0 and event["video"] not in targets
                weight = 1.0 if event["completed"] else config.unwatched_weight
                if config.weights == "watch_seconds" and not np.isnan(event["seconds"]):
                    weight *= event["seconds"] / mean
                if config.half_life_days is not None:
                    weight *= 0.5 ** ((before - moment) / 86_400 / config.half_life_days)
                targets.append(event["video"] if new else 0)
                weights.append(weight if new else 0.0)
            end = moment if config.labels == "future" else before
            past = [event for event in log if event["user"] == user and event["when"] < end][::-1]
            watched = [event for event in past if event["completed"] and event["video"] > 0]
            rows = [[event["video"] for event in part[: config.history_length]] for part in (past, watched)]
            if config.labels == "held_out":
                rows = [[0 if row in targets else row for row in part] for part in rows]
            tokens = [search["token"] for search in searches if search["user"] == user and search["when"] < end][::-1]
            lists = [
                targets + [0] * (config.horizon - len(targets)),
                *(part + [0] * (config.history_length - len(part)) for part in rows),
                sorted(tokens[: config.num_search_tokens]),
            ]
            found.append((user, moment, lists, weights + [0.0] * (config.horizon - len(weights))))
    return sorted(found)


def as_examples(batches, before):
    """The same of what batches hold."""
    found = []
    for batch in batches:
        context, moments = batch.context, before - batch.example_age_days.numpy() * 86_400
        for place in range(len(context)):
            rows = (batch.target_row.numpy(), context.video_row, context.watched_row)
            lists = [part[place].tolist() for part in rows]
            lists.append(sorted(token for token in context.token_row[place].tolist() if token))
            weights = batch.target_weight[place].tolist()
            found.append((int(context.user_row[place]), round(float(moments[place])), lists, weights))
    return sorted(found)


def all_batches(examples, seed=0, first_batch=0):
    return list(examples.batches(np.random.default_rng(seed), first_batch))


@every_way
@pytest.mark.parametrize("seed", [0, 1])
def test_batches_hold_the_examples_of_a_loop(records_of, dataset_of, random_log, seed, way):
    log, searches = random_log(seed)
    config = dataclasses.replace(CONFIG, **way)
    examples = NextWatchExamples(dataset_of(records_of(log, searches)), config, 30)
    expected, found = slow_examples(log, searches, config, 30), as_examples(all_batches(examples), 30)
    assert len(examples) == len(expected) > 3
    assert [example[:3] for example in found] == [example[:3] for example in expected]
    assert_allclose([example[3] for example in found], [example[3] for example in expected], rtol=1e-5)


@every_way
def test_videos_are_counted_as_often_as_examples_want_them(records_of, dataset_of, random_log, way):
    log, searches = random_log(3)
    config = dataclasses.replace(CONFIG, **way)
    expected = np.zeros(12, dtype=int)
    for *_, lists, _ in slow_examples(log, searches, config, 30):
        for row in lists[0]:
            expected[row] += row > 0  # also where it weighs nothing: other examples draw it as a negative
    examples = NextWatchExamples(dataset_of(records_of(log, searches)), config, 30)
    assert examples.num_wanted(12).tolist() == expected.tolist()


def frozen(batch):
    parts = [*vars(batch.context).values(), batch.example_age_days, batch.target_row, batch.target_weight]
    if batch.windows is not None:
        parts += [*vars(batch.windows.history).values(), batch.windows.window, batch.windows.hidden]
    return [(part.shape, np.asarray(part).tobytes()) for part in parts]


@every_way
def test_a_pass_that_goes_on_has_the_rest_of_the_batches(records_of, dataset_of, random_log, way):
    config = dataclasses.replace(CONFIG, **way)
    examples = NextWatchExamples(dataset_of(records_of(*random_log(4))), config, 30)
    whole = [frozen(batch) for batch in all_batches(examples, seed=8)]
    assert len(whole) == examples.num_batches
    for first in range(examples.num_batches + 1):
        assert [frozen(batch) for batch in all_batches(examples, seed=8, first_batch=first)] == whole[first:]


@pytest.mark.parametrize("history", ["mean", "transformer"])
def test_every_pass_has_another_order(records_of, dataset_of, random_log, history):
    config = dataclasses.replace(CONFIG, history=history, examples_per_user=50)
    examples = NextWatchExamples(dataset_of(records_of(*random_log(4))), config, 30)
    one, other = (np.concatenate([batch.target_row for batch in all_batches(examples, seed)]) for seed in (1, 2))
    assert sorted(one.tolist()) == sorted(other.tolist()) and one.tolist() != other.tolist()


def test_batches_are_full_but_the_last(records_of, dataset_of, random_log):
    examples = NextWatchExamples(dataset_of(records_of(*random_log(0))), CONFIG, 30)
    sizes = [len(batch.context) for batch in all_batches(examples)]
    assert len(examples) % 7 > 0
    assert sizes == [7] * (len(examples) // 7) + [len(examples) % 7]


def test_batches_of_windows_have_about_as_many_examples_as_asked_for(records_of, dataset_of):
    # Five users with twenty watches each, in windows that move by four: 16 examples in the windows of one batch.
    log = [
        {"user": user, "when": when, "video": 1 + when % 7, "completed": True}
        for user in range(1, 6)
        for when in range(20)
    ]
    config = dataclasses.replace(CONFIG, history="transformer", history_length=8, batch_size=16, examples_per_user=1000)
    examples = NextWatchExamples(dataset_of(records_of(log)), config, 30)
    sizes = [len(batch.context) for batch in all_batches(examples)]
    assert sum(sizes) == len(examples) == 100
    assert all(8 < size <= 16 for size in sizes[:-1])


@pytest.mark.parametrize("way", [{}, {"unwatched_weight": 0.3}, {"history_length": 1}, {"history_length": 40}], ids=str)
@pytest.mark.parametrize("seed", [0, 1])
def test_an_example_sees_of_its_window_what_its_own_history_holds(records_of, dataset_of, random_log, seed, way):
    config = dataclasses.replace(CONFIG, history="transformer", examples_per_user=1000, **way)
    examples = NextWatchExamples(dataset_of(records_of(*random_log(seed))), config, 35)
    length = config.history_length
    hidden_somewhere = 0
    for batch in all_batches(examples):
        windows, own = batch.windows, batch.context
        for place, (window, hidden) in enumerate(zip(windows.window, windows.hidden, strict=True)):
            assert windows.history.user_row[window] == own.user_row[place]
            for column in ("video_row", "timestamp", "completed"):
                seen = getattr(windows.history, column)[window, hidden:]
                assert_array_equal(seen, getattr(own, column)[place, : length - hidden])
            hidden_somewhere += int(hidden) > 0
    assert hidden_somewhere > 0 or length == 1


def test_other_histories_come_without_windows(records_of, dataset_of):
    dataset = dataset_of(records_of(watches(1, 1, 2, 3)))
    for history, has_windows in (("mean", False), ("attention", False), ("transformer", True)):
        [batch] = all_batches(NextWatchExamples(dataset, dataclasses.replace(CONFIG, history=history), 9))
        assert (batch.windows is not None) is has_windows


@pytest.mark.parametrize(
    ("way", "width"),
    [
        ({}, 0),
        ({"history": "attention"}, 5),
        ({"mask_seen": True}, 5),
        ({"history": "transformer"}, 0),  # it reads the windows
        ({"labels": "held_out"}, 5),
    ],
    ids=str,
)
def test_without_impressions_what_was_shown_is_read_only_where_something_asks_for_it(
    records_of, dataset_of, way, width
):
    dataset = dataset_of(records_of(watches(1, 1, 2, 3)), has_impressions=False)
    [batch] = all_batches(NextWatchExamples(dataset, dataclasses.replace(CONFIG, **way), 9))
    assert batch.context.video_row.shape == batch.context.completed.shape == (3, width)
    assert batch.context.watched_row.shape == (3, 5)
    if batch.windows is not None:
        assert sorted(batch.windows.history.video_row[0].tolist()) == [0, 0, 0, 11, 12]


def example_at(dataset, config, age_seconds, before):
    """The only example that old: its targets, their weights, and the rows of its context."""
    [batch] = all_batches(NextWatchExamples(dataset, dataclasses.replace(config, batch_size=99), before))
    [place] = np.flatnonzero(np.isclose(batch.example_age_days.numpy() * 86_400, age_seconds))
    context = batch.context
    return batch.target_row[place].tolist(), batch.target_weight[place].tolist(), context.watched_row[place].tolist()


def test_a_history_ends_before_the_label_or_holds_all_but_the_label(records_of, dataset_of):
    dataset = dataset_of(records_of(watches(1, 1, 2, 3, 4)))  # the videos 11, 12, 13, 14
    assert example_at(dataset, CONFIG, 7, 10) == ([13], [1.0], [12, 11, 0, 0, 0])
    held_out = dataclasses.replace(CONFIG, labels="held_out")
    assert example_at(dataset, held_out, 7, 10) == ([13], [1.0], [14, 0, 12, 11, 0])


def test_a_label_held_out_stands_nowhere_in_the_history(records_of, dataset_of):
    again = {"user": 1, "when": 5, "video": 12, "completed": True}
    dataset = dataset_of(records_of([*watches(1, 1, 2, 3), again]))
    assert example_at(dataset, dataclasses.replace(CONFIG, labels="held_out"), 8, 10)[2] == [0, 13, 0, 11, 0]


def test_the_last_example_has_fewer_targets_than_the_horizon(records_of, dataset_of):
    dataset = dataset_of(records_of([*watches(1, 1, 2, 3, 11), *watches(2, 4, 5)]))
    horizon = dataclasses.replace(CONFIG, horizon=3)
    assert example_at(dataset, horizon, 9, 10)[:2] == ([11, 12, 13], [1.0, 1.0, 1.0])
    assert example_at(dataset, horizon, 7, 10)[:2] == ([13, 0, 0], [1.0, 0.0, 0.0])  # 14 comes after, 21 is not hers


def test_a_video_watched_twice_is_one_target(records_of, dataset_of):
    log = [{"user": 1, "when": when, "video": video, "completed": True} for when, video in enumerate([5, 5, 6, 5], 1)]
    targets, weights, _ = example_at(dataset_of(records_of(log)), dataclasses.replace(CONFIG, horizon=4), 9, 10)
    assert (targets, weights) == ([5, 0, 6, 0], [1.0, 0.0, 1.0, 0.0])


def test_what_was_shown_and_not_watched_weighs_less(records_of, dataset_of):
    log = [*watches(1, 1, 3), {"user": 1, "when": 2, "video": 9}, {"user": 1, "when": 2, "video": 0}]
    config = dataclasses.replace(CONFIG, horizon=4, unwatched_weight=0.25)
    targets, weights, _ = example_at(dataset_of(records_of(log)), config, 9, 10)
    assert (targets, weights) == ([11, 9, 0, 12], [1.0, 0.25, 0.0, 1.0])


def test_a_watch_weighs_its_seconds_relative_to_the_mean(records_of, dataset_of):
    # Watched for 10 and 30 seconds before the end, so 20 is the mean; an unknown time weighs 1.
    log = [
        {**event, "seconds": seconds}
        for event, seconds in zip(watches(1, 1, 2, 3, 11), [10.0, 30.0, np.nan, 999.0], strict=True)
    ]
    config = dataclasses.replace(CONFIG, horizon=3, weights="watch_seconds")
    assert example_at(dataset_of(records_of(log)), config, 9, 10)[1] == [0.5, 1.5, 1.0]


def test_where_no_watch_time_is_known_all_labels_weigh_one(records_of, dataset_of):
    config = dataclasses.replace(CONFIG, horizon=3, weights="watch_seconds")
    assert example_at(dataset_of(records_of(watches(1, 1, 2, 3))), config, 9, 10)[1] == [1.0, 1.0, 1.0]


def test_watch_times_that_are_all_zero_give_finite_weights(records_of, dataset_of):
    log = [{**event, "seconds": 0.0} for event in watches(1, 1, 2)]
    config = dataclasses.replace(CONFIG, weights="watch_seconds")
    assert example_at(dataset_of(records_of(log)), config, 9, 10)[1] == [0.0]


def test_an_example_weighs_half_after_its_half_life(records_of, dataset_of):
    dataset = dataset_of(records_of(watches(1, 0, DAY, 3 * DAY)))
    config = dataclasses.replace(CONFIG, half_life_days=2.0)
    weights = [example_at(dataset, config, age * DAY, 4 * DAY)[1] for age in (4, 3, 1)]
    assert_allclose(weights, [[0.25], [0.5**1.5], [0.5**0.5]], rtol=1e-6)


def test_ages_count_the_days_back_from_the_end(records_of, dataset_of):
    examples = NextWatchExamples(dataset_of(records_of(watches(1, 0, DAY // 2, 2 * DAY))), CONFIG, 3 * DAY)
    [batch] = all_batches(examples)
    assert_allclose(sorted(batch.example_age_days.tolist()), [1.0, 2.5, 3.0])


@pytest.mark.parametrize("history", ["mean", "transformer"])
def test_a_users_first_watch_is_an_example_without_history(records_of, dataset_of, history):
    dataset = dataset_of(records_of(watches(1, 5)))
    [batch] = all_batches(NextWatchExamples(dataset, dataclasses.replace(CONFIG, history=history), 10))
    assert batch.target_row.tolist() == [[11]]
    assert not batch.context.watched_row.any() and not batch.context.video_row.any()


@pytest.mark.parametrize("history", ["mean", "transformer"])
@pytest.mark.parametrize("before", [0, 5])
def test_without_watches_before_the_moment_there_are_no_examples(records_of, dataset_of, history, before):
    shown = {"user": 1, "when": 1, "video": 9}
    dataset = dataset_of(records_of([shown, *watches(1, 5)]))
    examples = NextWatchExamples(dataset, dataclasses.replace(CONFIG, history=history), before)
    assert (len(examples), examples.num_batches, all_batches(examples)) == (0, 0, [])
    assert examples.num_wanted(20).tolist() == [0] * 20


def test_examples_take_the_latest_of_each_user(records_of, dataset_of):
    log = [*watches(1, *range(1, 10)), *watches(2, 3)]
    examples = NextWatchExamples(dataset_of(records_of(log)), dataclasses.replace(CONFIG, examples_per_user=2), 8)
    targets = {int(row) for batch in all_batches(examples) for row in batch.target_row}
    assert targets == {16, 17, 21}


def test_targets_are_the_distinct_videos_completed_in_a_half_open_period(records_of):
    again = {"user": 1, "when": 6, "video": 11, "completed": True}
    events = records_of([*watches(1, 5, 7, 8), again, *watches(2, 4, 8), *watches(3, 5)]).events
    users, targets = targets_between(events, 5, 8)
    assert users.tolist() == [1, 3]
    assert [rows.tolist() for rows in targets] == [[11, 12], [31]]


def test_an_empty_period_has_no_targets(records_of):
    users, targets = targets_between(records_of(watches(1, 5)).events, 6, 9)
    assert users.tolist() == [] and targets == []


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 5))))
def test_concatenated_ranges_equal_ranges_one_after_another(ranges):
    starts = np.array([start for start, _ in ranges], dtype=np.int64)
    lengths = np.array([length for _, length in ranges], dtype=np.int64)
    expected = [place for start, length in ranges for place in range(start, start + length)]
    assert concatenated_ranges(starts, starts + lengths).tolist() == expected
