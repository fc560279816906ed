"""How a video, its channel, its categories and its tags did with everybody, as of a moment (§4.1)."""

from typing import Any, no_type_check

import numpy as np
from numba import njit

from watchnext.features.counters import (
    CLICKED,
    COMPLETED,
    KNOWN,
    LOG_SECONDS,
    SECONDS,
    TIMED,
    add_faded,
    count_outcome,
    count_shown,
)

MEANS = ("completed_share", "clicked_share", "watch_seconds", "log_watch_seconds")
_PRIOR_EVENTS = 10.0


def record_names(horizons: tuple[str, ...]) -> list[str]:
    """Gives the names of what `read_record` writes."""
    counted = [f"{quantity}.{horizon}" for quantity in ("shown", *MEANS) for horizon in horizons]
    return [*counted, "seconds_since_shown", "seconds_since_completed"]


@njit(nogil=True, cache=True)
@no_type_check  # the tests' type checker would wrap it in what Numba cannot compile
def read_record(
    sums: Any,
    faded_at: Any,
    shown_at: Any,
    completed_at: Any,
    rates: Any,
    keys: Any,
    moment: int,
    prior: Any,
    total: Any,
    out: Any,
) -> None:  # pragma: no cover  # compiled
    """Writes what is known of some rows together, those of one video, as of the moment.

    A mean leans to that of the next longer horizon as if this had ten more events, that of the longest to `prior`:
    the means of everything. Behind these stands how often anything was shown, of which the row has its share.
    """
    total[:] = 0.0
    latest_shown, latest_completed = 0, 0
    for key in keys:
        if key > 0:
            add_faded(sums, faded_at, rates, key, moment, total)
            latest_shown = max(latest_shown, shown_at[key])
            latest_completed = max(latest_completed, completed_at[key])
    width = len(rates)
    completed, clicked, seconds, log_seconds = prior[0], prior[1], prior[2], prior[3]
    for horizon in range(width - 1, -1, -1):
        line = total[horizon]
        known, timed = line[KNOWN] + _PRIOR_EVENTS, line[TIMED] + _PRIOR_EVENTS
        completed = (line[COMPLETED] + _PRIOR_EVENTS * completed) / known
        clicked = (line[CLICKED] + _PRIOR_EVENTS * clicked) / known
        seconds = (line[SECONDS] + _PRIOR_EVENTS * seconds) / timed
        log_seconds = (line[LOG_SECONDS] + _PRIOR_EVENTS * log_seconds) / timed
        of_all = prior[len(MEANS) + horizon]
        out[horizon] = line[0] / of_all if of_all > 0.0 else line[0]
        out[width + horizon], out[2 * width + horizon] = completed, clicked
        out[3 * width + horizon], out[4 * width + horizon] = seconds, log_seconds
    out[5 * width] = moment - latest_shown if latest_shown > 0 else np.nan
    out[5 * width + 1] = moment - latest_completed if latest_completed > 0 else np.nan


@njit(nogil=True, cache=True)
@no_type_check
def read_records(
    sums: Any, faded_at: Any, shown_at: Any, completed_at: Any, rates: Any, keys: Any, moments: Any, candidates: Any,
    priors: Any, out: Any, begin: int, end: int,
) -> None:  # fmt: skip  # pragma: no cover  # compiled
    """The same for the candidates of some users."""
    total = np.zeros(sums.shape[1:])
    for place in range(begin, end):
        for candidate in range(candidates.shape[1]):
            read_record(sums, faded_at, shown_at, completed_at, rates, keys[candidates[place, candidate]],
                        moments[place], priors[place], total, out[place, candidate])  # fmt: skip


@njit(nogil=True, cache=True)
@no_type_check
def replay(
    moment: Any, video_row: Any, watch_seconds: Any, completed: Any, clicked: Any, outcome: Any, known_at: Any,
    until: int, keys: Any, sums: Any, faded_at: Any, shown_at: Any, completed_at: Any, rates: Any, asked_at: Any,
    order: Any, asked_of: Any, priors: Any, out: Any,
) -> None:  # fmt: skip  # pragma: no cover  # compiled
    """Counts everything before `until` in time order, and answers each question up to then as of its moment.

    `moment` and `asked_at` ascend; `outcome` names the events in the order of `known_at`, and `order` the rows of
    `asked_of`, `priors` and `out` (one candidate each) in that of `asked_at`.
    """
    total = np.zeros(sums.shape[1:])
    event, due, question = 0, 0, 0
    while True:
        happens = min(moment[event], until) if event < len(moment) else until
        asks = question < len(asked_at) and asked_at[question] <= happens
        now = asked_at[question] if asks else happens
        while due < len(outcome) and known_at[outcome[due]] < now:
            place = outcome[due]
            for key in keys[video_row[place]]:
                if key > 0:
                    count_outcome(sums, faded_at, completed_at, rates, key, known_at[place], completed[place],
                                  clicked[place], watch_seconds[place])  # fmt: skip
            due += 1
        if asks:  # first what is asked in a second, then what happens in it
            row = order[question]
            read_record(sums, faded_at, shown_at, completed_at, rates, keys[asked_of[row]], now, priors[row], total,
                        out[row, 0])  # fmt: skip
            question += 1
        elif happens >= until:
            return
        else:
            for key in keys[video_row[event]]:
                if key > 0:
                    count_shown(sums, faded_at, shown_at, rates, key, now)
            event += 1
