import numpy as np
import pytest

from watchnext.features.track_record import track_record

NAMES = ("num_shown", "num_completed", "watch_seconds", "num_timed")


def values(record):
    return list(zip(*(getattr(record, name).tolist() for name in NAMES), strict=True))


def random_events(seed):
    random = np.random.default_rng(seed)
    return [
        (
            int(random.integers(1, 5)),
            int(random.integers(0, 30)),
            bool(random.random() < 0.5),
            float(random.choice([np.nan, 0.0, 8.0])),
        )
        for _ in range(80)
    ]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_record_equals_sums_over_a_loop(timelines_of, seed):
    events = random_events(seed)
    owners, moments = (grid.ravel() for grid in np.meshgrid(np.arange(6), [0, 1, 7, 15, 29, 30, 99]))
    expected = []
    for owner, moment in zip(owners, moments, strict=True):
        past = [event for event in events if event[0] == owner and event[1] < moment]
        timed = [event[3] for event in past if not np.isnan(event[3])]
        expected.append((len(past), sum(event[2] for event in past), sum(timed), len(timed)))
    assert values(track_record(timelines_of(events, 6), owners, moments)) == expected


def test_an_event_at_the_moment_does_not_count(timelines_of):
    timelines = timelines_of([(1, 10, True, 5.0), (1, 20, True, 7.0)], 2)
    assert values(track_record(timelines, np.array([1, 1, 1]), np.array([10, 20, 21]))) == [
        (0, 0, 0, 0),
        (1, 1, 5, 1),
        (2, 2, 12, 2),
    ]


def test_an_owner_without_past_does_not_borrow_its_neighbours(timelines_of):
    timelines = timelines_of([(1, 10, True, 5.0), (3, 10, True, 5.0)], 5)
    assert values(track_record(timelines, np.array([0, 2, 4]), np.array([99, 99, 99]))) == [(0, 0, 0, 0)] * 3


def test_a_log_without_events_gives_empty_records(timelines_of):
    assert values(track_record(timelines_of([], 3), np.array([1, 2]), np.array([5, 6]))) == [(0, 0, 0, 0)] * 2
