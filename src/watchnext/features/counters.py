"""Counters that fade: what became of each video, channel or tag, lately and ever, in memory that no log outgrows.

A row has a sum for every quantity and horizon. An event adds to them all; between events the sums of a horizon halve
every so many seconds, those of the last horizon never. So a read needs no events, only the row and the moment.
"""

import math
from dataclasses import dataclass
from typing import Any, no_type_check

import numpy as np
from numba import njit

from watchnext.shapes import Array, Float, Int

QUANTITIES = ("shown", "known", "timed", "completed", "clicked", "watch_seconds", "log_watch_seconds")
_SHOWN, KNOWN, TIMED, COMPLETED, CLICKED, SECONDS, LOG_SECONDS = range(len(QUANTITIES))
_EXACT_ROWS = 1_000_000
_HALVES = 0.5 ** np.arange(64.0)


@dataclass(frozen=True)
class Counters:
    """The sums of all rows; row 0 is nobody's and stays empty.

    `faded_at` is the moment that a row's sums are of; `shown_at` and `completed_at` say when it last was, 0 never.
    """

    sums: Float[Array, "rows horizons quantities"]
    faded_at: Int[Array, "rows"]
    shown_at: Int[Array, "rows"]
    completed_at: Int[Array, "rows"]

    @classmethod
    def empty(cls, num_rows: int, num_horizons: int) -> "Counters":
        """Gives counters of nothing.

        Few rows may have many events each and count in float64: a float32 no longer grows by 1 from 16 million on.
        """
        kind = np.float64 if num_rows <= _EXACT_ROWS else np.float32
        shape = (num_rows, num_horizons, len(QUANTITIES))
        return cls(np.zeros(shape, kind), *(np.zeros(num_rows, np.int64) for _ in range(3)))


def halvings_a_second(horizons_seconds: tuple[float, ...]) -> Float[Array, "horizons"]:
    """Gives the rate of each horizon, and 0 for the last one, which never fades."""
    return np.array([*(1.0 / seconds for seconds in horizons_seconds), 0.0])


@njit(nogil=True, cache=True, inline="always")
@no_type_check  # the tests' type checker would wrap it in what Numba cannot compile
def halved(times: Any) -> Any:  # pragma: no cover  # compiled
    """One half to the power of `times`, at least 0: whole halvings from a table, the rest by a polynomial.

    The relative error is below 1e-6; the library's exponential takes five times as long.
    """
    if times >= 60.0:
        return 0.0
    whole = int(times)
    rest = times - whole
    series = 0.009597165813 + rest * (-0.001291785901 + rest * 0.000114979446)
    series = 0.240226097239 + rest * (-0.055499276291 + rest * series)
    return _HALVES[whole] * (1.0 + rest * (-0.693147174908 + rest * series))


@njit(nogil=True, cache=True)
@no_type_check
def count_shown(sums: Any, faded_at: Any, shown_at: Any, rates: Any, row: int, moment: int) -> None:  # pragma: no cover
    """Counts that the row was shown."""
    _fade(sums, faded_at, rates, row, moment)
    shown_at[row] = moment
    for horizon in range(len(rates)):
        sums[row, horizon, _SHOWN] += 1.0


@njit(nogil=True, cache=True)
@no_type_check
def count_outcome(
    sums: Any,
    faded_at: Any,
    completed_at: Any,
    rates: Any,
    row: int,
    moment: int,
    completed: bool,
    clicked: bool,
    seconds: float,
) -> None:  # pragma: no cover  # compiled
    """Counts what came of having been shown, once it is known; `seconds` is NaN where the log does not say."""
    _fade(sums, faded_at, rates, row, moment)
    timed = not math.isnan(seconds)
    if completed:
        completed_at[row] = moment
    for horizon in range(len(rates)):
        line = sums[row, horizon]
        line[KNOWN] += 1.0
        line[COMPLETED] += completed
        line[CLICKED] += clicked
        if timed:
            line[TIMED] += 1.0
            line[SECONDS] += seconds
            line[LOG_SECONDS] += math.log1p(seconds)


@njit(nogil=True, cache=True)
@no_type_check
def add_faded(
    sums: Any, faded_at: Any, rates: Any, row: int, moment: int, total: Any
) -> None:  # pragma: no cover  # compiled
    """Adds the row's sums as of the moment to `total`."""
    seconds = max(moment - faded_at[row], 0)
    for horizon in range(len(rates)):
        factor = halved(seconds * rates[horizon])
        for quantity in range(sums.shape[2]):
            total[horizon, quantity] += sums[row, horizon, quantity] * factor


@njit(nogil=True, cache=True)
@no_type_check
def _fade(sums: Any, faded_at: Any, rates: Any, row: int, moment: int) -> None:  # pragma: no cover  # compiled
    seconds = moment - faded_at[row]
    if seconds <= 0:
        return
    faded_at[row] = moment
    for horizon in range(len(rates)):
        factor = halved(seconds * rates[horizon])
        for quantity in range(sums.shape[2]):
            sums[row, horizon, quantity] *= factor
