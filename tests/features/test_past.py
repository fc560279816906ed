import numpy as np
import pytest
from numpy.testing import assert_array_equal

from watchnext.features.past import past_with_any_key, past_with_same_key

SEEDS = [0, 1, 2, 3]
NAMES = ("num_shown", "num_completed", "watch_seconds", "seconds_since")


def oracle(history, keys, wanted, moment=1000):
    """What one candidate with the keys `wanted` should be told of one user's history; every shared key counts."""
    shared = [
        event
        for event, own in zip(history, keys, strict=False)
        for key in own
        for asked in wanted
        if key == asked and key > 0
    ]
    return (
        len(shared),
        sum(event["completed"] for event in shared),
        sum(0.0 if np.isnan(event["seconds"]) else event["seconds"] for event in shared),
        moment - max(event["when"] for event in shared) if shared else np.nan,
    )


def assert_same(left, right):
    for name in NAMES:
        assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)


@pytest.mark.parametrize("seed", SEEDS)
def test_same_key_equals_a_loop(random_context, seed):
    histories, context = random_context(seed)
    candidates = np.random.default_rng(seed).integers(0, 10, (len(context), 6))
    past = past_with_same_key(context, context.video_row, candidates)
    for user, place in np.ndindex(candidates.shape):
        expected = oracle(histories[user], context.video_row[user, :, None], [candidates[user, place]])
        assert_array_equal([getattr(past, name)[user, place] for name in NAMES], expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_any_key_equals_a_loop(random_context, seed):
    histories, context = random_context(seed)
    random = np.random.default_rng(seed)
    tags = np.array([[0, 0, 0]] + [random.permutation(np.arange(7))[:3] for _ in range(9)])
    candidates = random.integers(0, 10, (len(context), 6))
    past = past_with_any_key(context, tags[context.video_row], tags[candidates])
    for user, place in np.ndindex(candidates.shape):
        expected = oracle(histories[user], tags[context.video_row[user]], tags[candidates[user, place]])
        assert_array_equal([getattr(past, name)[user, place] for name in NAMES], expected)


def test_two_shared_tags_count_an_event_twice(context_of):
    context = context_of([{"video": 1, "when": 900, "seconds": 5.0, "completed": True}])
    past = past_with_any_key(context, np.array([[[3, 4]]]), np.array([[[4, 3], [4, 9], [8, 9]]]))
    assert_array_equal(past.num_shown, [[2, 1, 0]])
    assert_array_equal(past.watch_seconds, [[10.0, 5.0, 0.0]])
    assert_array_equal(past.seconds_since, [[100, 100, np.nan]])


def test_key_zero_equals_nothing(context_of):
    context = context_of([{"video": 0, "when": 900, "seconds": 5.0}, {"video": 3, "when": 800}])
    past = past_with_same_key(context, np.array([[0, 3]]), np.array([[0, 3]]))
    assert_array_equal(past.num_shown, [[0, 1]])
    assert_array_equal(past.seconds_since, [[np.nan, 200]])


def test_a_history_without_keys_gives_zeros_and_no_time(context_of):
    past = past_with_same_key(context_of([], [], length=2), np.zeros((2, 2), int), np.array([[1, 0], [2, 3]]))
    assert not past.num_shown.any() and not past.num_completed.any() and not past.watch_seconds.any()
    assert np.isnan(past.seconds_since).all()


def test_no_history_at_all_is_allowed(context_of):
    past = past_with_same_key(context_of([], length=0), np.zeros((1, 0), int), np.array([[1, 2]]))
    assert_array_equal(past.num_shown, [[0, 0]])


def test_videos_without_tags_have_no_past(context_of):
    context = context_of([{"video": 1, "when": 900}])
    past = past_with_any_key(context, np.zeros((1, 1, 0), int), np.zeros((1, 2, 0), int))
    assert_array_equal(past.num_shown, [[0, 0]])
    assert np.isnan(past.seconds_since).all()


def test_two_users_do_not_mix(context_of):
    # the second user's keys begin where the first user's end: 1 + span must not be taken for the other's 1
    context = context_of([{"video": 2, "when": 900}], [{"video": 1, "when": 800}])
    past = past_with_same_key(context, context.video_row, np.array([[1, 2, 4], [1, 2, 4]]))
    assert_array_equal(past.num_shown, [[0, 1, 0], [1, 0, 0]])
    assert_array_equal(past.seconds_since, [[np.nan, 100, np.nan], [200, np.nan, np.nan]])


@pytest.mark.parametrize("seed", SEEDS)
def test_a_batch_equals_one_by_one(random_context, seed):
    _, context = random_context(seed)
    candidates = np.random.default_rng(seed).integers(0, 10, (len(context), 6))
    whole = past_with_same_key(context, context.video_row, candidates)
    for user in range(len(context)):
        one = slice(user, user + 1)
        alone = past_with_same_key(context.part(one), context.video_row[one], candidates[one])
        for name in NAMES:
            assert_array_equal(getattr(alone, name), getattr(whole, name)[one], err_msg=name)


def test_padding_the_history_changes_nothing(context_of, random_context):
    histories, context = random_context(0)
    longer = context_of(*histories, length=40)
    candidates = np.arange(10).reshape(5, 2)
    assert_same(
        past_with_same_key(context, context.video_row, candidates),
        past_with_same_key(longer, longer.video_row, candidates),
    )
