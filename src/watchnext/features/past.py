"""What a user did before: at which pace, and with the same video, channel, categories and tags (§4.1).

The user's latest events are walked once, newest first. Each adds to the sums of those of its keys that a candidate has
too, found in a small hash table of the candidates' keys: the cost grows with history + candidates, not their product.
"""

import math
from typing import Any, no_type_check

import numpy as np
from numba import njit

from watchnext.features.counters import COMPLETED, KNOWN, count_outcome, halved

_PRIOR_EVENTS, _TABLE_SLACK = 5.0, 4
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SETTLED, _DONE, _TIMED, _LOG, _RESIDUAL, _SHOWN_AT, _DONE_AT, _FAILED_AT = range(8)
_SUMS = 8


def user_names(horizons: tuple[str, ...]) -> list[str]:
    """Gives the names of what is written of a user."""
    faded = ("shown", "completed_share", "log_watch_seconds")
    rest = ("watch_seconds", "longest_watch_seconds", "clicked_share", "completed_residual", "events", "outcomes",
            "seconds_since_shown", "seconds_since_completed", "channels_share")  # fmt: skip
    return [f"user.{name}" for name in (*(f"{what}.{horizon}" for what in faded for horizon in horizons), *rest)]


def pair_names(kind: str, horizons: tuple[str, ...]) -> list[str]:
    """Gives the names of what is written of a user and a kind of key."""
    rest = ("completed_share", "log_watch_seconds", "completed_residual", "unsuccessful", "seconds_since_shown",
            "seconds_since_completed", "seconds_since_unsuccessful")  # fmt: skip
    return [f"user_{kind}.{name}" for name in (*(f"shown.{horizon}" for horizon in horizons), *rest)]


@njit(nogil=True, cache=True)
@no_type_check  # the tests' type checker would wrap it in what Numba cannot compile
def read_pasts(
    video_row: Any, timestamp: Any, watch_seconds: Any, clicked: Any, completed: Any, starts: Any, ends: Any,
    moments: Any, settled_after: float, rates: Any, candidates: Any, keys: Any, widths: Any, video_sums: Any,
    priors: Any, of_user: Any, of_pairs: Any, begin: int, end: int,
) -> None:  # fmt: skip  # pragma: no cover  # compiled
    """Writes the features of some users, and those of each with its candidates.

    `keys` names every video's keys, side by side, and `video_sums` what became of it; `widths` says how many keys each
    kind has.
    """
    for place in range(begin, end):
        _read_past(
            video_row, timestamp, watch_seconds, clicked, completed, starts[place], ends[place], moments[place],
            settled_after, rates, candidates[place], keys, widths, video_sums, priors[place], of_user[place],
            of_pairs[place],
        )  # fmt: skip


@njit(nogil=True, cache=True)
@no_type_check
def replay_pasts(
    event_video: Any, event_completed: Any, event_clicked: Any, outcome: Any, known_at: Any, sums: Any,
    faded_at: Any, completed_at: Any, asked_at: Any, order: Any, video_row: Any, timestamp: Any, watch_seconds: Any,
    clicked: Any, completed: Any, starts: Any, ends: Any, moments: Any, settled_after: float, rates: Any,
    candidates: Any, keys: Any, widths: Any, priors: Any, of_user: Any, of_pairs: Any,
) -> None:  # fmt: skip  # pragma: no cover  # compiled
    """The same for questions in the order of their moments, while the outcomes of all videos are counted for ever."""
    forever, due = np.zeros(1), 0
    for question in range(len(asked_at)):
        while due < len(outcome) and known_at[outcome[due]] < asked_at[question]:
            place = outcome[due]
            if event_video[place] > 0:
                count_outcome(sums, faded_at, completed_at, forever, event_video[place], known_at[place],
                              event_completed[place], event_clicked[place], np.nan)  # fmt: skip
            due += 1
        place = order[question]
        _read_past(video_row, timestamp, watch_seconds, clicked, completed, starts[place], ends[place],
                   moments[place], settled_after, rates, candidates[place], keys, widths, sums, priors[place],
                   of_user[place], of_pairs[place])  # fmt: skip


@njit(nogil=True, cache=True)
@no_type_check
def _read_past(
    video_row: Any, timestamp: Any, watch_seconds: Any, clicked: Any, completed: Any, start: int, end: int,
    moment: int, settled_after: float, rates: Any, candidates: Any, keys: Any, widths: Any, video_sums: Any,
    prior: Any, of_user: Any, of_pairs: Any,
) -> None:  # fmt: skip  # pragma: no cover  # compiled
    num_keys, width = keys.shape[1], len(rates)
    table_keys, table_slots = _empty_table(len(candidates) * num_keys)
    slots = np.zeros((len(candidates), num_keys), np.int32)
    num = 0
    for candidate in range(len(candidates)):
        for column in range(num_keys):
            key = keys[candidates[candidate], column]
            if key > 0:
                slots[candidate, column] = _slot(table_keys, table_slots, _code(column, widths, key), num + 1)
                num = max(num, slots[candidate, column])
    shown = np.zeros((num + 1, width))
    sums = np.zeros((num + 1, _SUMS))
    own_shown, own_known, own_done, own_timed, own_log = (
        np.zeros(width), np.zeros(width), np.zeros(width), np.zeros(width), np.zeros(width),
    )  # fmt: skip
    factors = np.empty(width)
    channel_codes, channel_numbers = _empty_table(max(end - start, 1))
    num_channels, clicks, seconds, longest, residuals = 0, 0.0, 0.0, np.nan, 0.0
    latest_shown, latest_done = 0, 0
    for event in range(end - 1, start - 1, -1):
        age = moment - timestamp[event]
        for horizon in range(width):
            factors[horizon] = halved(age * rates[horizon])
            own_shown[horizon] += factors[horizon]
        latest_shown = max(latest_shown, timestamp[event])
        row = video_row[event]
        timed = not math.isnan(watch_seconds[event])
        settled = age >= settled_after and (not timed or age > watch_seconds[event])
        log_seconds, residual = 0.0, 0.0
        done = settled and completed[event]
        if settled:
            line = video_sums[row, -1]
            usual = (line[COMPLETED] + _PRIOR_EVENTS * prior[0]) / (line[KNOWN] + _PRIOR_EVENTS)
            residual = done - usual
            residuals += residual
            clicks += clicked[event]
            if timed:
                log_seconds = math.log1p(watch_seconds[event])
                seconds += watch_seconds[event]
                longest = watch_seconds[event] if math.isnan(longest) else max(longest, watch_seconds[event])
            for horizon in range(width):
                own_known[horizon] += factors[horizon]
                own_done[horizon] += done * factors[horizon]
                own_timed[horizon] += timed * factors[horizon]
                own_log[horizon] += log_seconds * factors[horizon]
            if done:
                latest_done = max(latest_done, timestamp[event])
        if keys[row, 1] > 0:
            num_channels = max(num_channels, _slot(channel_codes, channel_numbers, keys[row, 1], num_channels + 1))
        for column in range(num_keys):
            key = keys[row, column]
            if key == 0:
                continue
            slot = _slot(table_keys, table_slots, _code(column, widths, key), 0)
            if slot > 0:
                for horizon in range(width):
                    shown[slot, horizon] += factors[horizon]
                line = sums[slot]
                line[_SHOWN_AT] = max(line[_SHOWN_AT], timestamp[event])
                if settled:
                    line[_SETTLED] += 1.0
                    line[_DONE] += done
                    line[_RESIDUAL] += residual
                    line[_TIMED] += timed
                    line[_LOG] += log_seconds
                    last = _DONE_AT if done else _FAILED_AT
                    line[last] = max(line[last], timestamp[event])
    count = end - start
    share, log_mean = prior[0], prior[3]
    for horizon in range(width - 1, -1, -1):
        share = (own_done[horizon] + _PRIOR_EVENTS * share) / (own_known[horizon] + _PRIOR_EVENTS)
        log_mean = (own_log[horizon] + _PRIOR_EVENTS * log_mean) / (own_timed[horizon] + _PRIOR_EVENTS)
        of_user[horizon], of_user[width + horizon], of_user[2 * width + horizon] = own_shown[horizon], share, log_mean
    rest = of_user[3 * width :]
    rest[0] = (seconds + _PRIOR_EVENTS * prior[2]) / (own_timed[-1] + _PRIOR_EVENTS)
    rest[1] = longest
    rest[2] = (clicks + _PRIOR_EVENTS * prior[1]) / (own_known[-1] + _PRIOR_EVENTS)
    own_residual = residuals / (own_known[-1] + _PRIOR_EVENTS)
    rest[3], rest[4], rest[5] = own_residual, count, own_known[-1]
    rest[6] = moment - latest_shown if latest_shown > 0 else np.nan
    rest[7] = moment - latest_done if latest_done > 0 else np.nan
    rest[8] = num_channels / count if count > 0 else np.nan
    for candidate in range(len(candidates)):
        first, column = 0, 0
        for kind in range(len(widths)):
            _write_pair(shown, sums, slots[candidate, column : column + widths[kind]], moment, of_user[2 * width - 1],
                        of_user[3 * width - 1], own_residual, of_pairs[candidate, first:])  # fmt: skip
            first += width + 7
            column += widths[kind]


@njit(nogil=True, cache=True)
@no_type_check
def _write_pair(
    shown: Any, sums: Any, slots: Any, moment: int, share: float, log_mean: float, residual: float, out: Any
) -> None:  # pragma: no cover  # compiled
    """The sums of some keys together; means lean to the user's own."""
    width = shown.shape[1]
    out[:width] = 0.0
    total, seen_at, done_at, failed_at = np.zeros(5), 0.0, 0.0, 0.0
    for slot in slots:
        if slot > 0:
            for horizon in range(width):
                out[horizon] += shown[slot, horizon]
            total += sums[slot, :5]
            seen_at, done_at = max(seen_at, sums[slot, _SHOWN_AT]), max(done_at, sums[slot, _DONE_AT])
            failed_at = max(failed_at, sums[slot, _FAILED_AT])
    known = total[_SETTLED] + _PRIOR_EVENTS
    out[width] = (total[_DONE] + _PRIOR_EVENTS * share) / known
    out[width + 1] = (total[_LOG] + _PRIOR_EVENTS * log_mean) / (total[_TIMED] + _PRIOR_EVENTS)
    out[width + 2] = (total[_RESIDUAL] + _PRIOR_EVENTS * residual) / known
    out[width + 3] = total[_SETTLED] - total[_DONE]
    out[width + 4] = moment - seen_at if seen_at > 0 else np.nan
    out[width + 5] = moment - done_at if done_at > 0 else np.nan
    out[width + 6] = moment - failed_at if failed_at > 0 else np.nan


@njit(nogil=True, cache=True)
@no_type_check
def _empty_table(most: int) -> Any:  # pragma: no cover  # compiled
    """A hash table for so many codes: codes, 0 where free, and a number for each."""
    size = 16
    while size < _TABLE_SLACK * most:
        size *= 2
    return np.zeros(size, np.int64), np.zeros(size, np.int32)


@njit(nogil=True, cache=True, inline="always")
@no_type_check
def _code(column: int, widths: Any, key: int) -> Any:  # pragma: no cover  # compiled
    """One number for a key and its kind."""
    kind = 0
    while column >= widths[kind]:
        column -= widths[kind]
        kind += 1
    return np.int64(key) * 64 + kind + 1


@njit(nogil=True, cache=True)
@no_type_check
def _slot(codes: Any, numbers: Any, code: Any, fresh: int) -> int:  # pragma: no cover  # compiled
    """The number of a code; one that is not there gets `fresh`, if that is above 0, and else has 0."""
    mask = len(codes) - 1
    place = np.int64((np.uint64(code) * _MULTIPLIER) >> np.uint64(40)) & mask
    while codes[place] != 0:
        if codes[place] == code:
            return numbers[place]
        place = (place + 1) & mask
    if fresh > 0:
        codes[place], numbers[place] = code, fresh
        return fresh
    return 0
