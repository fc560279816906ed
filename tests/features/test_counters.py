"""Counters that fade, against powers of one half and against sums worked by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from watchnext.features.counters import (
    QUANTITIES,
    Counters,
    add_faded,
    count_outcome,
    count_shown,
    halved,
    halvings_a_second,
)

HORIZONS = (10.0, 20.0)
RATES = halvings_a_second(HORIZONS)


def shown(counters, row, moment):
    count_shown(counters.sums, counters.faded_at, counters.shown_at, RATES, row, moment)


def known(counters, row, moment, completed=False, clicked=False, seconds=math.nan):
    count_outcome(
        counters.sums, counters.faded_at, counters.completed_at, RATES, row, moment, completed, clicked, seconds
    )


def sums_at(counters, row, moment):
    """The row's sums at the moment: quantity -> horizon by horizon."""
    total = np.zeros(counters.sums.shape[1:])
    add_faded(counters.sums, counters.faded_at, RATES, row, moment, total)
    return dict(zip(QUANTITIES, total.T, strict=True))


@given(st.floats(0.0, 60.0, exclude_max=True))
@settings(max_examples=500)
def test_a_half_to_a_power(times):
    assert abs(halved(times) / 0.5**times - 1.0) < 1e-6


def test_the_error_is_small_everywhere():
    times = np.linspace(0.0, 59.999, 20_001)
    assert_allclose([halved(number) for number in times], 0.5**times, rtol=1e-6)


def test_whole_halvings_are_exact():
    assert [halved(float(number)) for number in range(60)] == [0.5**number for number in range(60)]


@pytest.mark.parametrize("times", [60.0, 64.0, 65.5, 1e6, 1e300, math.inf])
def test_after_sixty_halvings_nothing_is_left(times):
    assert halved(times) == 0.0


def test_halvings_a_second():
    assert_array_equal(halvings_a_second((1.0, 4.0, 80.0)), [1.0, 0.25, 0.0125, 0.0])
    assert_array_equal(halvings_a_second(()), [0.0])


def test_a_sum_halves_after_one_horizon_and_the_last_one_never_does():
    counters = Counters.empty(3, 3)
    shown(counters, 1, 100)
    # horizons of 10 s, 20 s, ever:    0 s          10 s               20 s               40 s
    expected = {100: [1.0, 1.0, 1.0], 110: [0.5, 0.5**0.5, 1.0], 120: [0.25, 0.5, 1.0], 140: [0.0625, 0.25, 1.0]}
    for moment, sums in expected.items():
        assert_allclose(sums_at(counters, 1, moment)["shown"], sums, rtol=1e-6)
    assert_array_equal(sums_at(counters, 1, 1_000_000_000)["shown"], [0.0, 0.0, 1.0])


def test_two_events_fade_from_their_own_moments():
    counters = Counters.empty(2, 3)
    shown(counters, 1, 100)
    shown(counters, 1, 120)
    # At 140 the first is 40 s old and the second 20 s: 1/16 + 1/4, 1/4 + 1/2, 2.
    assert_allclose(sums_at(counters, 1, 140)["shown"], [0.3125, 0.75, 2.0], rtol=1e-6)


def test_an_outcome_counts_in_every_quantity_it_has():
    counters = Counters.empty(2, 3)
    known(counters, 1, 100, completed=True, seconds=7.0)
    known(counters, 1, 100, clicked=True)  # how long is not known: a known outcome, but not a timed one
    known(counters, 1, 100, completed=True, clicked=True, seconds=1.0)
    found = {name: sums[-1] for name, sums in sums_at(counters, 1, 100).items()}
    assert found.pop("log_watch_seconds") == pytest.approx(math.log(8.0) + math.log(2.0))
    counts = {"shown": 0.0, "known": 3.0, "timed": 2.0, "completed": 2.0, "clicked": 2.0, "watch_seconds": 8.0}
    assert found == counts
    for name, sums in sums_at(counters, 1, 110).items():
        assert sums[0] == pytest.approx(0.5 * sums[-1], rel=1e-6), name


def test_the_last_moments_are_kept_and_only_a_completed_watch_is_one():
    counters = Counters.empty(2, 3)
    shown(counters, 1, 100)
    known(counters, 1, 105, completed=True)
    known(counters, 1, 108)
    shown(counters, 1, 109)
    assert (counters.shown_at[1], counters.completed_at[1]) == (109, 105)


def test_the_other_rows_stay_as_they_are():
    counters = Counters.empty(3, 3)
    shown(counters, 2, 100)
    known(counters, 2, 100, True, True, 5.0)
    for array in vars(counters).values():
        assert not array[:2].any() and array[2].any()


def test_a_row_is_added_to_what_the_total_holds():
    counters = Counters.empty(3, 3)
    total = np.zeros(counters.sums.shape[1:])
    for row, moment in ((1, 100), (2, 110)):
        shown(counters, row, moment)
        add_faded(counters.sums, counters.faded_at, RATES, row, 120, total)
    assert_allclose(total[:, QUANTITIES.index("shown")], [0.25 + 0.5, 0.5 + 0.5**0.5, 2.0], rtol=1e-6)


def test_of_an_earlier_moment_nothing_is_made_up():
    counters = Counters.empty(2, 3)
    shown(counters, 1, 100)
    shown(counters, 1, 110)
    assert_allclose(sums_at(counters, 1, 10)["shown"], sums_at(counters, 1, 110)["shown"])
    shown(counters, 1, 90)  # a row does not go back either
    assert_allclose(sums_at(counters, 1, 110)["shown"], [2.5, 2.0 + 0.5**0.5, 3.0], rtol=1e-6)


@given(st.lists(st.integers(0, 80), max_size=30))
@settings(max_examples=100)
def test_it_does_not_matter_how_often_a_row_is_faded_in_between(ages):
    """Every event fades all sums of its row; those of an earlier outcome are what they would be without."""
    often, once = Counters.empty(2, 3), Counters.empty(2, 3)
    for counters in (often, once):
        known(counters, 1, 1_000, True, True, 9.0)
    for age in sorted(ages):
        shown(often, 1, 1_000 + age)
    found, expected = sums_at(often, 1, 1_080), sums_at(once, 1, 1_080)
    for name in QUANTITIES[1:]:
        assert_allclose(found[name], expected[name], rtol=1e-6 * (len(ages) + 1))
    faded = [[0.5 ** ((80 - age) / horizon) for age in ages] for horizon in HORIZONS]
    assert_allclose(found["shown"], [*map(sum, faded), len(ages)], rtol=1e-6 * (len(ages) + 1))


@pytest.mark.parametrize(("num_rows", "kind"), [(2, np.float64), (1_000_000, np.float64), (1_000_001, np.float32)])
def test_few_rows_count_in_double_and_many_in_single_precision(num_rows, kind):
    counters = Counters.empty(num_rows, 1)
    assert counters.sums.dtype == kind
    assert counters.sums.shape == (num_rows, 1, len(QUANTITIES))


def test_a_row_of_few_grows_by_one_beyond_sixteen_million():
    counters = Counters.empty(2, 3)
    counters.sums[1] = 2.0**24
    shown(counters, 1, 0)
    assert sums_at(counters, 1, 0)["shown"][-1] == 2.0**24 + 1.0


def test_single_precision_counts_nearly_alike():
    double = Counters.empty(2, 3)
    single = Counters(double.sums.astype(np.float32), *(np.zeros(2, np.int64) for _ in range(3)))
    random = np.random.default_rng(0)
    for moment in np.cumsum(random.integers(0, 5, 1_000)).tolist():
        for counters in (double, single):
            shown(counters, 1, moment)
            known(counters, 1, moment, moment % 2 == 0, moment % 3 == 0, float(moment % 7))
    for name, sums in sums_at(single, 1, moment + 3).items():
        assert_allclose(sums, sums_at(double, 1, moment + 3)[name], rtol=1e-5, err_msg=name)
