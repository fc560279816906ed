import math

import numpy as np
import pytest

from watchnext.evaluation.bootstrap import mean_estimate, ratio_estimate


def test_the_value_is_the_mean_of_those_who_have_one():
    assert mean_estimate(np.array([1.0, np.nan, 2.0]), 20, seed=0).value == 1.5


def test_the_value_of_a_ratio_is_pooled():
    # (1 + 3) / (2 + 8), not the mean of 0.5 and 0.375.
    assert ratio_estimate(np.array([1.0, 3.0]), np.array([2.0, 8.0]), 20, seed=0).value == 0.4


def test_the_interval_is_that_of_the_normal_approximation():
    # 400 values of standard deviation 1: the mean's is 0.05, its interval ± 1.96 · 0.05.
    values = np.random.default_rng(0).normal(5.0, 1.0, 400)
    estimate = mean_estimate(values, 2000, seed=0)
    assert estimate.low == pytest.approx(estimate.value - 0.098, abs=0.015)
    assert estimate.high == pytest.approx(estimate.value + 0.098, abs=0.015)


def test_the_interval_covers_the_truth_about_nineteen_times_in_twenty():
    random = np.random.default_rng(1)
    estimates = [mean_estimate(random.exponential(1.0, 200), 200, seed=0) for _ in range(200)]
    covered = np.mean([one.low <= 1.0 <= one.high for one in estimates])
    assert 0.88 < covered < 0.99


def test_users_are_resampled_together_with_their_totals():
    # Every user's ratio is 0.5, whatever its weight: no draw can differ.
    total = np.random.default_rng(0).integers(1, 100, 50).astype(np.float64)
    estimate = ratio_estimate(total / 2, total, 100, seed=0)
    assert estimate.low == pytest.approx(0.5) and estimate.high == pytest.approx(0.5)


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(0).normal(size=30)
    assert mean_estimate(values, 55, seed=3) == mean_estimate(values, 55, seed=3)
    assert mean_estimate(values, 55, seed=3) != mean_estimate(values, 55, seed=4)


@pytest.mark.parametrize("draws", [10, 15, 100])
def test_as_many_draws_are_made_as_asked_for(draws):
    # The draws of a longer bootstrap begin with those of a shorter: the quantiles are of exactly `draws` means.
    values = np.random.default_rng(0).normal(size=30)
    random = np.random.default_rng(0)
    means = np.concatenate(
        [values[random.integers(0, 30, (min(10, draws - start), 30))].mean(axis=1) for start in range(0, draws, 10)]
    )
    estimate = mean_estimate(values, draws, seed=0)
    np.testing.assert_allclose([estimate.low, estimate.high], np.quantile(means, [0.025, 0.975]))


@pytest.mark.parametrize("values", [[], [np.nan, np.nan]])
def test_without_values_nothing_is_known(values):
    estimate = mean_estimate(np.array(values, dtype=np.float64), 20, seed=0)
    assert all(math.isnan(figure) for figure in (estimate.value, estimate.low, estimate.high))


def test_a_ratio_over_nothing_is_unknown():
    assert math.isnan(ratio_estimate(np.zeros(3), np.zeros(3), 20, seed=0).value)


def test_draws_without_a_total_are_left_out():
    estimate = ratio_estimate(np.array([1.0, 0.0]), np.array([4.0, 0.0]), 200, seed=0)
    assert (estimate.value, estimate.low, estimate.high) == (0.25, 0.25, 0.25)
