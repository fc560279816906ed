import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from watchnext.evaluation.reliability import Groups
from watchnext.events.dataset import Dataset
from watchnext.events.vocabulary import Vocabulary
from watchnext.examples.impressions import Impressions, impressions_between
from watchnext.pipeline.groups import impression_groups

DAY = 86_400


def impressions_in(dataset: Dataset, **columns: list[int]) -> Impressions:
    """Impressions of the dataset with other columns, as many as the columns are long."""
    (count,) = {len(column) for column in columns.values()}
    found = impressions_between(dataset.events, dataset.test_start, dataset.log_end).part(slice(count))
    return dataclasses.replace(found, **{name: np.array(column) for name, column in columns.items()})


def with_durations(dataset: Dataset, seconds: list[float]) -> Dataset:
    """Row 0 is a video that nothing is known of, the next ones have these durations."""
    names = dataset.facts["video_numbers"]
    numbers = np.array(dataset.videos.continuous)
    numbers[1 : 1 + len(seconds), names.index("duration_seconds")] = seconds
    return dataclasses.replace(dataset, videos=dataclasses.replace(dataset.videos, continuous=numbers))


def with_facts(dataset: Dataset, **facts: object) -> Dataset:
    return dataclasses.replace(dataset, artifact=dataclasses.replace(dataset.artifact, facts=dataset.facts | facts))


def sorted_into(groups: Groups) -> list[str]:
    assert (groups.place >= 0).all()  # -1 would be the last name here, and no group of the report
    return [groups.names[place] for place in groups.place]


def test_durations_are_in_fifths_of_the_known_ones(small_dataset):
    # Of 10, 20, …, 60 the fifths end at 20, 30, 40 and 50; one of 20 s is no longer under 20 s.
    dataset = with_durations(small_dataset, [10.0, 20.0, 30.0, 40.0, 50.0, 60.0, float("nan")])
    groups = impression_groups(dataset, impressions_in(dataset, video_row=[1, 2, 3, 4, 5, 6, 7, 0]))["video_duration"]
    assert sorted_into(groups) == [
        "under 20 s", "20 to 30 s", "30 to 40 s", "40 to 50 s", "50 s and longer", "50 s and longer",
        "unknown duration", "unknown duration",
    ]  # fmt: skip


def test_fifths_are_of_impressions_and_not_of_videos(small_dataset):
    dataset = with_durations(small_dataset, [10.0, 1000.0])
    groups = impression_groups(dataset, impressions_in(dataset, video_row=[1] * 9 + [2]))["video_duration"]
    # All fifths end at 10 s.
    assert sorted_into(groups) == ["10 s and longer"] * 10


def test_fifths_are_cut_at_whole_seconds(small_dataset):
    dataset = with_durations(small_dataset, [9.7, 9.9, 10.2, 10.4])
    groups = impression_groups(dataset, impressions_in(dataset, video_row=[1, 2, 3, 4]))["video_duration"]
    assert sorted_into(groups) == ["under 10 s"] * 2 + ["10 s and longer"] * 2


def test_ages_are_those_at_the_impression(small_dataset):
    uploaded = np.array(small_dataset.videos.uploaded_at)
    uploaded[:3] = 0, 1_000_000_000, 0
    dataset = dataclasses.replace(small_dataset, videos=dataclasses.replace(small_dataset.videos, uploaded_at=uploaded))
    ages = [-5, DAY - 1, DAY, 3 * DAY - 1, 3 * DAY, 7 * DAY - 1, 7 * DAY, 30 * DAY - 1, 30 * DAY, 0, 0]
    impressions = impressions_in(dataset, video_row=[1] * 9 + [2, 0], timestamp=[1_000_000_000 + age for age in ages])
    assert sorted_into(impression_groups(dataset, impressions)["video_age"]) == [
        "under 1 day", "under 1 day", "1 to 3 days", "1 to 3 days", "3 to 7 days", "3 to 7 days", "7 to 30 days",
        "7 to 30 days", "30 days and older", "unknown upload", "unknown upload",
    ]  # fmt: skip


def test_activity_counts_a_users_impressions_before_the_test_period(small_dataset):
    """The same as counting the events one after the other."""
    events = small_dataset.events
    shown = np.array(events.shown)
    shown[::3] = False
    offsets = np.asarray(events.segments.offsets)
    # A later test period, so that some had 100; user 1 had nothing that was shown.
    shown[offsets[1] : offsets[2]] = False
    dataset = dataclasses.replace(small_dataset, events=dataclasses.replace(events, shown=shown))
    before = [0] * (len(offsets) - 1)
    for user in range(len(before)):
        for place in range(offsets[user], offsets[user + 1]):
            before[user] += bool(shown[place]) and events.segments.timestamp[place] < dataset.test_start
    slow = [
        "none before" if not num else "1 to 9 before" if num < 10 else "10 to 99 before" if num < 100
        else "100 or more before" for num in before
    ]  # fmt: skip
    assert len(set(slow)) >= 3
    users = list(range(len(before)))
    assert sorted_into(impression_groups(dataset, impressions_in(dataset, user_row=users))["user_activity"]) == slow


@pytest.mark.parametrize(("num", "name"), [(0, "none"), (1, "1 to 9"), (9, "1 to 9"), (10, "10 to 99"),
                                           (99, "10 to 99"), (100, "100 or more")])  # fmt: skip
def test_activities_begin_where_they_say(small_dataset, num, name):
    """And what is shown in the first second of the test period is not before it."""
    place = np.arange(len(small_dataset.events.shown))
    shown, times = place <= num, np.where(place < num, place, small_dataset.test_start)
    segments = dataclasses.replace(small_dataset.events.segments, offsets=np.array([0, 0, len(shown)]), timestamp=times)
    events = dataclasses.replace(small_dataset.events, shown=shown, segments=segments)
    dataset = dataclasses.replace(small_dataset, events=events)
    groups = impression_groups(dataset, impressions_in(small_dataset, user_row=[1]))["user_activity"]
    assert sorted_into(groups) == [f"{name} before"]


def with_regions(dataset: Dataset, names: list[str], rows: list[int]) -> Dataset:
    """Users 1, 2, … have these regions."""
    columns = np.array(dataset.users.categorical)
    columns[1 : 1 + len(rows), dataset.user_categories.index("region")] = rows
    vocabularies = dataset.vocabularies | {"users.region": Vocabulary(pa.array(names))}
    users = dataclasses.replace(dataset.users, categorical=columns)
    return dataclasses.replace(dataset, users=users, vocabularies=vocabularies)


def test_the_ten_most_frequent_regions_have_a_group_each(small_dataset):
    names = [f"region {place}" for place in range(1, 13)]
    dataset = with_regions(small_dataset, names, [1, 2, 10, 11, 12, 0])
    groups = impression_groups(dataset, impressions_in(dataset, user_row=[1, 2, 3, 4, 5, 6]))["user_region"]
    assert sorted_into(groups) == ["region 1", "region 2", "region 10", "other", "other", "other"]
    assert len(groups.names) == 11


def test_few_regions_have_a_group_each(small_dataset):
    dataset = with_regions(small_dataset, ["north", "south"], [2, 1, 0])
    groups = impression_groups(dataset, impressions_in(dataset, user_row=[1, 2, 3]))["user_region"]
    assert sorted_into(groups) == ["south", "north", "other"]


def test_surfaces_are_those_of_the_log(small_dataset):
    surfaces = small_dataset.vocabularies["surfaces"]
    first, second = surfaces.ids_of(np.array([1, 2]))
    groups = impression_groups(small_dataset, impressions_in(small_dataset, surface_row=[2, 1, 0]))["surface"]
    assert {first, second} == {"home", "search"}
    assert sorted_into(groups) == [second, first, "other"]


def test_every_kind_that_the_log_knows_is_there(small_dataset):
    found = impression_groups(small_dataset, impressions_in(small_dataset, surface_row=[1, 1]))
    assert list(found) == ["video_duration", "video_age", "user_activity", "user_region", "surface"]
    assert all(len(groups.place) == 2 for groups in found.values())


def test_a_log_without_columns_is_grouped_by_activity_alone(small_dataset):
    known = [name for name in small_dataset.facts["video_numbers"] if name != "duration_seconds"]
    bare = with_facts(small_dataset, video_numbers=known, user_categories=["gender"])
    never = dataclasses.replace(bare.videos, uploaded_at=np.zeros_like(bare.videos.uploaded_at))
    dataset = dataclasses.replace(bare, videos=never)
    assert list(impression_groups(dataset, impressions_in(dataset, surface_row=[0, 0]))) == ["user_activity"]
