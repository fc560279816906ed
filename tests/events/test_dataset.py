from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchnext.errors import ArtifactError
from watchnext.events.dataset import Dataset, Segments

Times = list[list[int]]
SEGMENTS = st.lists(st.lists(st.integers(0, 9), max_size=12).map(sorted), min_size=1, max_size=6)
MOMENT = st.integers(-1, 11)


def segments_of(times: Times) -> Segments:
    offsets = np.cumsum([0, *(len(owned) for owned in times)])
    return Segments(offsets, np.array([time for owned in times for time in owned], dtype=np.int64))


@settings(max_examples=50)
@given(SEGMENTS, st.data())
def test_ends_before_is_what_counting_gives(times: Times, data: st.DataObject) -> None:
    owners = data.draw(st.lists(st.integers(0, len(times) - 1), max_size=8))
    moments = [data.draw(MOMENT) for _ in owners]
    expected = [
        sum(len(owned) for owned in times[:owner]) + sum(time < moment for time in times[owner])
        for owner, moment in zip(owners, moments, strict=True)
    ]
    found = segments_of(times).ends_before(np.array(owners, dtype=np.int64), np.array(moments, dtype=np.int64))
    assert found.tolist() == expected


@settings(max_examples=50)
@given(SEGMENTS, MOMENT, st.integers(1, 5))
def test_latest_before_is_what_walking_back_gives(times: Times, moment: int, length: int) -> None:
    owners = np.arange(len(times))
    expected, start = [], 0
    for owned in times:
        places = [start + place for place, time in enumerate(owned) if time < moment][::-1][:length]
        expected.append(places + [-1] * (length - len(places)))
        start += len(owned)
    found = segments_of(times).latest_before(owners, np.full(len(times), moment), length)
    assert found.tolist() == expected


def test_a_row_at_the_moment_itself_is_not_before_it() -> None:
    assert segments_of([[5]]).latest_before(np.array([0]), np.array([5]), 1).tolist() == [[-1]]


def test_the_periods_are_in_order(small_dataset: Dataset) -> None:
    moments = [small_dataset.ranking_start, small_dataset.validation_start, small_dataset.test_start]
    assert moments == sorted(moments)
    assert small_dataset.test_start < small_dataset.log_end == small_dataset.events.segments.timestamp.max() + 1


def test_every_user_is_in_time_order(small_dataset: Dataset) -> None:
    events = small_dataset.events
    offsets = events.segments.offsets
    same_user = np.diff(np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))) == 0
    assert (np.diff(events.segments.timestamp)[same_user] >= 0).all()


def test_watches_are_the_completed_events_of_known_videos(small_dataset: Dataset) -> None:
    events = small_dataset.events
    assert events.watch_places.tolist() == np.flatnonzero(events.completed & (events.video_row > 0)).tolist()
    assert events.watches.timestamp.tolist() == events.segments.timestamp[events.watch_places].tolist()


def test_a_dataset_without_a_column_is_refused(tmp_path: Path, small_dataset: Dataset) -> None:
    import shutil

    shutil.copytree(small_dataset.artifact.path, tmp_path / "dataset")
    (tmp_path / "dataset" / "events" / "clicked.npy").unlink()
    with pytest.raises(ArtifactError, match=r"is damaged: events/clicked\.npy is missing"):
        Dataset.open(tmp_path / "dataset")
