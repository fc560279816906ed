import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchnext.evaluation.bootstrap import ratio_estimate
from watchnext.evaluation.reliability import Groups, calibration_error, reliability, reliability_by_group


def floats(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)


def by_group(names, place, user, watched, predicted, draws=20, seed=0):
    return reliability_by_group(Groups(names, np.array(place)), np.array(user), watched, predicted, draws, seed)


def test_reliability_has_equally_filled_bins_by_prediction():
    watched, predicted = floats(1, 2, 3, 4, 5), floats(50, 10, 40, 20, 30)
    # By prediction: 10, 20, 30 (watched 2, 4, 5), then 40, 50 (watched 3, 1).
    assert reliability(watched, predicted, 2) == [(20.0, pytest.approx(11 / 3), 3), (45.0, 2.0, 2)]


def test_reliability_of_few_impressions_has_fewer_bins():
    assert reliability(floats(1, 2), floats(3, 4)) == [(3.0, 1.0, 1), (4.0, 2.0, 1)]
    assert reliability(floats(), floats()) == []


def test_reliability_has_ten_bins():
    assert [count for _, _, count in reliability(np.ones(100), np.arange(100.0))] == [10] * 10


def test_equal_predictions_share_a_bin():
    # Halves would be cut between the second and the third 7.
    assert reliability(floats(4, 1, 2, 3), floats(7, 7, 7, 9), 2) == [(7.0, pytest.approx(7 / 3), 3), (9.0, 3.0, 1)]
    assert reliability(np.arange(20.0), np.full(20, 3.0)) == [(3.0, 9.5, 20)]


def test_the_calibration_error_is_the_one_worked_by_hand():
    # Twenty impressions in ten pairs. Nine pairs expect what they watch, 10 s each; the last expects 30 + 50 and
    # watches 60 + 0: two impressions whose mean is 10 s too long, 20 s of 240 s.
    predicted = floats(*([9, 11] + [10 + pair / 100 for pair in range(1, 9) for _ in range(2)]), 30, 50)
    watched = floats(*predicted[:18], 60, 0)
    assert calibration_error(watched, predicted) == pytest.approx(20 / watched.sum())


def test_errors_to_both_sides_do_not_cancel_in_the_calibration_error():
    # 5 s too short and 5 s too long, of 40 s: the sum ratio is 1.
    assert calibration_error(floats(15, 25), floats(10, 30)) == pytest.approx(10 / 40)


def test_the_calibration_error_of_a_constant_is_what_its_sum_is_off():
    watched = np.random.default_rng(0).exponential(20.0, 500)
    assert calibration_error(watched, np.full(500, watched.mean())) == pytest.approx(0.0, abs=1e-12)
    assert calibration_error(watched, np.full(500, 2 * watched.mean())) == pytest.approx(1.0)


def test_the_calibration_error_is_unknown_where_nobody_watched():
    assert math.isnan(calibration_error(floats(0, 0), floats(1, 2)))


def test_groups_are_those_worked_by_hand():
    watched, predicted = floats(10, 20, 0, 30), floats(12, 18, 3, 45)
    new, old = by_group(["new", "old"], [1, 0, 1, 0], [7, 7, 8, 9], watched, predicted)
    # new: expected (18 + 45) / 2, watched (20 + 30) / 2; old: (12 + 3) / 2 and (10 + 0) / 2.
    assert (new.name, new.num_impressions, new.expected_watch_seconds, new.watch_seconds) == ("new", 2, 31.5, 25.0)
    assert (old.name, old.num_impressions, old.expected_watch_seconds, old.watch_seconds) == ("old", 2, 7.5, 5.0)
    assert (new.ratio.value, old.ratio.value) == (pytest.approx(63 / 50), pytest.approx(15 / 10))


def test_intervals_are_of_users_and_not_of_impressions():
    # One user's impressions are off to both sides and right together, and so are those of all others.
    user, watched = np.repeat(np.arange(30), 2), np.full(60, 10.0)
    (only,) = by_group(["all"], np.zeros(60, dtype=int), user, watched, np.tile([5.0, 15.0], 30))
    assert (only.ratio.low, only.ratio.high) == (pytest.approx(1.0), pytest.approx(1.0))


def test_the_interval_is_that_of_the_users_of_the_group():
    random = np.random.default_rng(0)
    user, watched, predicted = np.repeat(np.arange(40), 3), random.exponential(9.0, 120), random.exponential(9.0, 120)
    place = np.where(user < 25, 0, 1)
    first, _ = by_group(["some", "others"], place, user, watched, predicted, draws=200, seed=5)
    sums = [column[:75].reshape(25, 3).sum(axis=1) for column in (predicted, watched)]
    wanted = ratio_estimate(*sums, draws=200, seed=5)
    assert (first.ratio.low, first.ratio.high) == (pytest.approx(wanted.low), pytest.approx(wanted.high))
    assert first.ratio.low < first.ratio.value < first.ratio.high


def test_a_group_without_impressions_is_left_out():
    found = by_group(["a", "b", "c"], [2, 0], [1, 1], floats(1, 1), floats(1, 1))
    assert [one.name for one in found] == ["a", "c"]


def test_of_one_impression_the_interval_is_a_point():
    (only,) = by_group(["a"], [0], [3], floats(4), floats(6))
    assert (only.num_impressions, only.ratio.low, only.ratio.value, only.ratio.high) == (1, 1.5, 1.5, 1.5)


def test_where_nobody_watched_the_ratio_is_unknown():
    (only,) = by_group(["a"], [0, 0], [3, 4], floats(0, 0), floats(6, 2))
    assert (only.expected_watch_seconds, only.watch_seconds) == (4.0, 0.0)
    assert all(math.isnan(figure) for figure in (only.ratio.value, only.ratio.low, only.ratio.high))


def slow_by_group(place, watched, predicted) -> dict[int, tuple[int, float, float]]:
    """Impressions, expected and watched seconds of every group, one impression after the other."""
    sums: dict[int, tuple[int, float, float]] = {}
    for group, seconds, expected in zip(place, watched, predicted, strict=True):
        count, so_expected, so_watched = sums.get(group, (0, 0.0, 0.0))
        sums[group] = (count + 1, so_expected + expected, so_watched + seconds)
    return sums


IMPRESSION = st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 9), st.integers(0, 9))


@settings(max_examples=50)
@given(st.lists(IMPRESSION, min_size=1, max_size=40))
def test_groups_are_those_of_counting_one_by_one(impressions):
    place, user, watched, predicted = zip(*impressions, strict=True)
    found = by_group("abcde", place, user, floats(*watched), floats(*predicted))
    slow = slow_by_group(place, watched, predicted)
    assert [one.name for one in found] == ["abcde"[group] for group in sorted(slow)]
    for one, (count, expected, seconds) in zip(found, (slow[group] for group in sorted(slow)), strict=True):
        assert one.num_impressions == count
        assert one.expected_watch_seconds == pytest.approx(expected / count)
        assert one.watch_seconds == pytest.approx(seconds / count)
        assert one.ratio.value == pytest.approx(expected / seconds if seconds else math.nan, nan_ok=True)


def slow_reliability(watched, predicted, num_bins) -> list[tuple[float, float, int]]:
    """Each impression's bin from the number of smaller predictions."""
    bins: dict[int, list[tuple[float, float]]] = {}
    for seconds, expected in zip(watched, predicted, strict=True):
        smaller = sum(other < expected for other in predicted)
        bins.setdefault(smaller * num_bins // len(predicted), []).append((expected, seconds))
    return [(*np.mean(bins[place], axis=0), len(bins[place])) for place in sorted(bins)]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30)), min_size=1, max_size=60), st.integers(1, 12))
def test_bins_are_those_of_counting_smaller_predictions(impressions, num_bins):
    watched, predicted = zip(*impressions, strict=True)
    found = reliability(floats(*watched), floats(*predicted), num_bins)
    np.testing.assert_allclose(found, slow_reliability(watched, predicted, num_bins), rtol=1e-12)
    off = sum(count * abs(expected - seconds) for expected, seconds, count in slow_reliability(watched, predicted, 10))
    wanted = off / sum(watched) if sum(watched) else math.nan
    assert calibration_error(floats(*watched), floats(*predicted)) == pytest.approx(wanted, nan_ok=True)
