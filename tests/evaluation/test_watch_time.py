import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchnext.evaluation.watch_time import (
    mean_absolute_error,
    root_mean_squared_error,
    sum_ratio,
    weighted_loss,
    xauc,
    xauc_within_users,
)


def floats(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)


# One user: two completed (30 s, 60 s) and two others.
USER, COMPLETED = np.zeros(4, dtype=np.int64), np.array([True, True, False, False])
WATCHED = floats(30, 60, 0, 2)


def test_weighted_loss_is_the_one_worked_by_hand():
    # Pairs: 30 s against 20 and 40: wrong once, 30; 60 s against both: right. Of 2·30 + 2·60 = 180.
    loss = weighted_loss(USER, USER, WATCHED, COMPLETED, floats(25, 50, 20, 40))
    assert (loss.counted.tolist(), loss.total.tolist()) == ([30.0], [180.0])
    assert loss.ratio == pytest.approx(1 / 6)


def test_a_tie_is_half_mispredicted():
    loss = weighted_loss(USER, USER, WATCHED, COMPLETED, np.ones(4))
    assert loss.ratio == 0.5


def test_users_are_never_compared_with_each_other():
    user = np.array([5, 2, 5, 2])
    loss = weighted_loss(user, user, floats(30, 60, 0, 2), COMPLETED, floats(1, 9, 0, 99))
    # By user row: 2 has 60 s, mispredicted; 5 has 30 s, right.
    assert (loss.counted.tolist(), loss.total.tolist()) == ([60.0, 0.0], [60.0, 30.0])


def test_pages_of_one_user_are_never_compared_and_are_added_up():
    user, page = np.array([9, 9, 9, 9, 2, 2]), np.array([3, -1, 3, -1, 0, 0])
    completed = np.array([True, True, False, False, True, False])
    loss = weighted_loss(page, user, floats(30, 60, 0, 2, 7, 0), completed, floats(5, 1, 4, 2, 8, 8))
    # User 2: a tie, half of 7 s. User 9: 30 s before 0 s, right; 60 s before 2 s, wrong. Across pages 60 s would lose
    # to 0 s, and 30 s be compared with 2 s too.
    assert (loss.counted.tolist(), loss.total.tolist()) == ([3.5, 60.0], [7.0, 90.0])


@pytest.mark.parametrize("completed", [np.ones(4, dtype=bool), np.zeros(4, dtype=bool)])
def test_without_a_pair_the_ratio_is_unknown(completed):
    loss = weighted_loss(USER, USER, WATCHED, completed, floats(1, 2, 3, 4))
    assert loss.total.tolist() == [0.0]
    assert math.isnan(loss.ratio)


def test_no_impressions_have_no_users():
    nobody, nothing = np.zeros(0, dtype=np.int64), floats()
    sums = weighted_loss(nobody, nobody, nothing, np.zeros(0, dtype=bool), nothing)
    assert sums.counted.shape == sums.total.shape == (0,)


def test_xauc_within_users_counts_ordered_pairs_and_halves_ties():
    # Watched 30, 60, 0, 2: six pairs. Predicted 5, 5, 1, 0: the first pair ties, the last is reversed: 4.5 of 6.
    pairs = xauc_within_users(USER, WATCHED, floats(5, 5, 1, 0))
    assert (pairs.counted.tolist(), pairs.total.tolist()) == ([4.5], [6.0])


def test_pairs_of_equal_watch_time_do_not_count():
    pairs = xauc_within_users(USER, floats(0, 0, 7, 7), floats(1, 2, 3, 4))
    assert (pairs.counted.tolist(), pairs.total.tolist()) == ([4.0], [4.0])


def test_a_user_with_one_impression_has_no_pairs():
    pairs = xauc_within_users(np.array([1, 2]), floats(1, 2), floats(1, 2))
    assert pairs.total.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("predicted", "expected"), [((1, 2, 3, 4), 1.0), ((4, 3, 2, 1), 0.0), ((2, 2, 2, 2), 0.5)])
def test_xauc_of_the_right_order_is_1_of_the_reverse_0_and_of_ties_half(predicted, expected):
    assert xauc(floats(10, 20, 30, 40), floats(*predicted), seed=0) == expected


def test_xauc_is_the_share_of_all_pairs_in_the_right_order():
    random = np.random.default_rng(0)
    watched, predicted = random.integers(0, 5, 40).astype(np.float64), random.integers(0, 5, 40).astype(np.float64)
    pairs = xauc_within_users(np.zeros(40, dtype=np.int64), watched, predicted)
    # A million random pairs: a standard error of 0.0006.
    assert xauc(watched, predicted, seed=0) == pytest.approx(pairs.ratio, abs=0.003)


def test_xauc_is_the_same_for_the_same_seed():
    watched, predicted = np.random.default_rng(0).normal(size=(2, 50))
    assert xauc(watched, predicted, seed=1) == xauc(watched, predicted, seed=1)
    assert xauc(watched, predicted, seed=1) != xauc(watched, predicted, seed=2)


def test_xauc_of_equal_watch_times_is_unknown():
    assert math.isnan(xauc(np.ones(5), np.arange(5.0), seed=0))


def slow_within_users(users, pages, watched, completed, predicted) -> tuple[float, float, float, float]:
    """Ordered and comparable pairs of one user, mispredicted and total watch time of one page, pair by pair."""
    ordered = comparable = mispredicted = total = 0.0
    for one, other in combinations(range(len(users)), 2):
        if users[one] != users[other]:
            continue
        if watched[one] != watched[other]:
            comparable += 1
            agreement = (watched[one] - watched[other]) * (predicted[one] - predicted[other])
            ordered += 1.0 if agreement > 0 else 0.5 if agreement == 0 else 0.0
        if pages[one] == pages[other] and completed[one] != completed[other]:
            good, bad = (one, other) if completed[one] else (other, one)
            total += watched[good]
            wrong = 1.0 if predicted[bad] > predicted[good] else 0.5 if predicted[bad] == predicted[good] else 0.0
            mispredicted += wrong * watched[good]
    return ordered, comparable, mispredicted, total


IMPRESSION = st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(0, 4), st.booleans(), st.integers(0, 4))


@settings(max_examples=50)
@given(st.lists(IMPRESSION, min_size=1, max_size=25))
def test_sums_within_users_are_those_of_comparing_pair_by_pair(impressions):
    users, pages, watched, completed, predicted = zip(*impressions, strict=True)
    user, seconds, expected = np.array(users), np.array(watched, dtype=float), np.array(predicted, dtype=float)
    page = 2 * user + np.array(pages)
    pairs = xauc_within_users(user, seconds, expected)
    loss = weighted_loss(page, user, seconds, np.array(completed), expected)
    assert len(loss.total) == len(pairs.total) == len(set(users))
    sums = (pairs.counted.sum(), pairs.total.sum(), loss.counted.sum(), loss.total.sum())
    assert sums == pytest.approx(slow_within_users(users, pages, watched, completed, predicted))


def test_errors_are_those_worked_by_hand():
    # Off by 2, 0 and 4: (2 + 0 + 4) / 3 = 2; √((4 + 0 + 16) / 3) = 2.5820.
    watched, predicted = floats(10, 20, 30), floats(12, 20, 26)
    assert mean_absolute_error(watched, predicted) == pytest.approx(2.0)
    assert root_mean_squared_error(watched, predicted) == pytest.approx(2.5820, abs=1e-4)


def test_sum_ratio_is_predicted_over_true():
    assert sum_ratio(floats(10, 30), floats(15, 15)) == 0.75


def test_sum_ratio_of_nothing_watched_is_unknown():
    assert math.isnan(sum_ratio(floats(0, 0), floats(1, 1)))
