import numpy as np
import pytest

from watchnext.examples.impressions import impressions_between, with_unwatched


def tuples(impressions, *names):
    return list(zip(*(getattr(impressions, name).tolist() for name in names), strict=True))


def test_only_impressions_with_known_watch_time_count(records_of):
    events = records_of(
        [
            {"user": 1, "when": 1, "video": 1, "seconds": 0.0},
            {"user": 1, "when": 2, "video": 2, "seconds": np.nan},
            {"user": 1, "when": 3, "video": 3, "seconds": 8.0, "shown": False},
            {"user": 1, "when": 4, "video": 4, "seconds": 9.0},
        ]
    ).events
    assert tuples(impressions_between(events, 0, 9), "video_row", "watch_seconds") == [(1, 0.0), (4, 9.0)]


def test_a_period_holds_its_first_second_and_not_its_end(records_of):
    events = records_of([{"user": 1, "when": when, "video": when, "seconds": 1.0} for when in range(1, 7)]).events
    assert impressions_between(events, 3, 5).timestamp.tolist() == [3, 4]
    assert len(impressions_between(events, 7, 9)) == 0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_impressions_equal_a_loop(records_of, random_log, seed):
    log, _ = random_log(seed)
    wanted = [event for event in log if event["shown"] and not np.isnan(event["seconds"]) and 10 <= event["when"] < 30]
    found = impressions_between(records_of(log).events, 10, 30)
    names = ("user_row", "timestamp", "video_row", "surface_row", "position", "watch_seconds", "clicked", "completed")
    keys = ("user", "when", "video", "surface", "position", "seconds", "clicked", "completed")
    assert tuples(found, *names, "liked") == [tuple(event[key] for key in (*keys, "liked")) for event in wanted]


def test_pages_are_those_of_the_impressions_where_they_are_asked_for(records_of):
    log = [{"user": 1, "when": 5, "video": 1, "shown": False}, {"user": 1, "when": 6, "video": 1, "seconds": 2.0}]
    events = records_of([*log, {"user": 2, "when": 7, "video": 1, "seconds": 2.0}]).events
    assert impressions_between(events, 0, 9).page.tolist() == [0, 0]
    assert impressions_between(events, 0, 9, np.array([7, 8, 9], np.int32)).page.tolist() == [8, 9]


def test_pages_of_two_users_are_never_one(records_of):
    log = [{"user": user, "when": when, "video": 1, "seconds": 2.0} for user in (1, 2) for when in (1, 2, 3)]
    shown = impressions_between(records_of(log).events, 0, 9, np.array([0, 2**30, 0, 0, 2**30, 1], np.int32))
    first, second, again, *others = shown.page_of_user.tolist()
    assert first == again != second
    assert len({first, second, *others}) == 5


def test_a_part_keeps_rows_together(records_of):
    events = records_of([{"user": 1, "when": when, "video": 10 + when, "seconds": 1.0} for when in range(4)]).events
    part = impressions_between(events, 0, 9).part(np.array([3, 1]))
    assert tuples(part, "timestamp", "video_row") == [(3, 13), (1, 11)]


def test_unwatched_videos_stand_beside_their_watch(records_of):
    watched = {"seconds": 30.0, "clicked": True, "completed": True, "liked": True}
    events = records_of(
        [
            {"user": 1, "when": 5, "video": 1, "surface": 2, "position": 4, **watched},
            {"user": 2, "when": 6, "video": 2, "surface": 3, "position": 5, **watched},
        ]
    ).events
    both = with_unwatched(impressions_between(events, 0, 9), np.array([[7, 0], [8, 9]]))
    columns = ("user_row", "timestamp", "video_row", "surface_row", "position", "watch_seconds")
    assert tuples(both, *columns, "clicked", "completed", "liked") == [
        (1, 5, 1, 2, 4, 30.0, True, True, True),
        (2, 6, 2, 3, 5, 30.0, True, True, True),
        (1, 5, 7, 2, 0, 0.0, False, False, False),
        (2, 6, 8, 3, 0, 0.0, False, False, False),
        (2, 6, 9, 3, 0, 0.0, False, False, False),
    ]


def test_the_latest_impressions_keep_their_order_and_the_rest_follows(small_dataset):
    shown = impressions_between(small_dataset.events, 0, small_dataset.log_end)
    latest = shown.latest(100)
    assert len(latest) == 100 and (np.diff(latest.user_row) >= 0).all()
    assert latest.timestamp.min() >= np.sort(shown.timestamp)[-100]
    both = latest.followed_by(shown)
    assert len(both) == 100 + len(shown)
    assert both.part(slice(100, None)).video_row.tolist() == shown.video_row.tolist()
