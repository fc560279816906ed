import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from watchnext.examples.quantiles import Quantiles, with_powers


def column(*values):
    return np.array(values, dtype=np.float64)[:, None]


def normalised(fitted, *values):
    return Quantiles.fit(column(*fitted)).normalised(column(*values)).ravel()


def test_a_value_gives_the_share_below_it():
    assert_allclose(normalised(range(101), 0, 25, 50, 100), [0.0, 0.25, 0.5, 1.0], atol=1e-6)


def test_values_between_are_interpolated():
    # ten known values 0, 10, …, 90 stand at the levels 0, 1/9, …, 1
    assert_allclose(normalised(range(0, 100, 10), 10, 15, 82.5), [1 / 9, 1.5 / 9, 8.25 / 9], atol=1e-6)


def test_a_value_that_occurs_often_gets_the_middle_of_its_levels():
    # 1, 2, 2, 2, 3 stand at 0, ¼, ½, ¾, 1: the twos cover ¼ to ¾
    assert_allclose(normalised([1, 2, 2, 2, 3], 1, 1.5, 2, 3), [0.0, 0.125, 0.5, 1.0], atol=1e-6)


def test_half_zeros_get_a_quarter():
    assert_allclose(normalised([0] * 513 + list(range(1, 513)), 0, 512), [0.25, 1.0], atol=2e-3)


def test_values_outside_the_range_give_its_ends():
    assert normalised([10, 20, 30], -5, 1e30).tolist() == [0.0, 1.0]


def test_an_unknown_value_gives_zero():
    assert normalised([10, 20, 30], np.nan).tolist() == [0.0]


def test_unknown_values_do_not_count_when_fitting():
    assert_array_equal(normalised([10, np.nan, 20, np.nan, 30], 10, 17, 30), normalised([10, 20, 30], 10, 17, 30))


def test_a_constant_column_gives_one_half():
    assert normalised([7, 7, 7], 7).tolist() == [0.5]


def test_a_column_never_known_gives_zero():
    assert normalised([np.nan, np.nan], 3.0, np.nan).tolist() == [0.0, 0.0]


def test_no_rows_give_zero():
    assert normalised([], 3.0).tolist() == [0.0]


def test_no_columns_stay_none():
    assert Quantiles.fit(np.zeros((3, 0))).normalised(np.zeros((2, 0))).shape == (2, 0)


def test_columns_do_not_mix():
    low, high = column(1, 2, 3), column(100, 300, 200)
    together = Quantiles.fit(np.hstack([low, high]))
    assert_allclose(together.normalised(np.array([[2.0, 300.0], [3.0, 100.0]])), [[0.5, 1.0], [1.0, 0.0]], atol=1e-6)


def test_a_skewed_column_becomes_uniform():
    draws = np.exp(np.random.default_rng(0).normal(size=20_000) * 2)
    uniform = np.sort(normalised(draws, *draws))
    assert_allclose(uniform, np.linspace(0, 1, len(draws)), atol=1 / 256)


values = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=30)


@settings(max_examples=50)
@given(values, values)
@example([0.1, 0.1, 0.1 + 2**-54, 0.3], [0.1, 0.1 + 2**-54])
def test_a_greater_value_never_gets_a_smaller_quantile(fitted, asked):
    found = normalised(fitted, *sorted(asked))
    assert (np.diff(found) >= 0).all()
    assert (found >= 0).all() and (found <= 1).all()


@settings(max_examples=25)
@given(values, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(fitted, random):
    shuffled = list(fitted)
    random.shuffle(shuffled)
    assert_array_equal(normalised(fitted, *fitted), normalised(shuffled, *fitted))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_powers_are_the_value_its_square_and_its_root(kind):
    powers = with_powers(np.array([[0.25, 1.0], [0.0, 0.81]], dtype=kind))
    assert_allclose(
        powers, [[0.25, 1.0, 0.0625, 1.0, 0.5, 1.0], [0.0, 0.81, 0.0, 0.6561, 0.0, 0.9]], rtol=1e-6, atol=1e-9
    )
    assert powers.dtype == kind


@given(st.integers(0, 999), st.integers(1, 400), st.sampled_from([1, 3, 40, 100_000]))
def test_it_interpolates_as_numpy_does(seed, rows, distinct):
    random = np.random.default_rng(seed)
    values = random.integers(-distinct, distinct, (rows, 5)).astype(np.float32)
    values[random.random(values.shape) < 0.2] = np.nan
    fitted = Quantiles.fit(values)
    asked = np.concatenate([values, random.normal(size=(50, 5)) * 2 * distinct, np.full((1, 5), np.inf)])
    found = fitted.normalised(asked.astype(np.float32))
    for column, knots, levels, line in zip(
        asked.astype(np.float32).T, fitted.knots, fitted.levels, found.T, strict=True
    ):
        used = np.isfinite(knots)
        expected = np.interp(column, knots[used], levels[used]) if used.any() else np.zeros(len(column))
        np.testing.assert_array_equal(line, np.where(np.isnan(column), 0.0, expected).astype(np.float32))
