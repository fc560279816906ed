from typing import Any

import pytest

from watchnext.config import SplitConfig
from watchnext.errors import DataError
from watchnext.events.splits import Periods, split_log

HUNDRED = "".join(f"1,{second},{second},5\n" for second in range(1, 101))


def test_shares_count_events_from_the_end(read_watches: Any) -> None:
    # 100 events at seconds 1 … 100. Test: the latest tenth, from the 90th on; before it, 89 events are left:
    # the 81st begins the latest tenth of them; the half of the 80 before that is 40.
    periods = split_log(read_watches(HUNDRED), "watches", SplitConfig())
    assert periods == Periods(1, 40, 81, 90, 101)


def test_given_moments_win_over_shares(read_watches: Any) -> None:
    config = SplitConfig(ranking_start=20, validation_start=30, test_start=40)
    assert split_log(read_watches(HUNDRED), "watches", config) == Periods(1, 20, 30, 40, 101)


def test_without_a_test_share_the_test_period_is_empty(read_watches: Any) -> None:
    periods = split_log(read_watches(HUNDRED), "watches", SplitConfig(test_share=0.0))
    assert periods.test_start == periods.log_end == 101


def test_without_a_validation_share_the_validation_period_is_empty(read_watches: Any) -> None:
    periods = split_log(read_watches(HUNDRED), "watches", SplitConfig(validation_share=0.0))
    assert periods.validation_start == periods.test_start == 90


@pytest.mark.parametrize(
    "config",
    [
        SplitConfig(test_start=102),
        SplitConfig(test_start=1),
        SplitConfig(validation_start=95),
        SplitConfig(ranking_start=1),
        SplitConfig(ranking_start=85),
    ],
)
def test_a_moment_that_leaves_a_period_empty_is_refused(read_watches: Any, config: SplitConfig) -> None:
    with pytest.raises(DataError, match=r"the log runs from 1 to 100.*leave a period without events"):
        split_log(read_watches(HUNDRED), "watches", config)


def test_a_test_period_that_begins_when_the_log_ends_is_empty_but_taken(read_watches: Any) -> None:
    assert split_log(read_watches(HUNDRED), "watches", SplitConfig(test_start=101)).test_start == 101


@pytest.mark.parametrize("lines", ["1,1,7,5\n", "1,1,7,5\n2,2,7,5\n", "1,1,7,5\n2,2,8,5\n"])
def test_a_log_of_one_or_two_seconds_is_too_short(read_watches: Any, lines: str) -> None:
    with pytest.raises(DataError, match="leave a period without events"):
        split_log(read_watches(lines), "watches", SplitConfig())
