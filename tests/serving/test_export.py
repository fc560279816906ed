import os
import tomllib

import numpy as np
import pyarrow.parquet as pq
import pytest

from watchnext import pipeline
from watchnext.events.dataset import Dataset
from watchnext.serving.answer_log import AnswerLog
from watchnext.serving.answered import Answered
from watchnext.serving.events import LiveEvent
from watchnext.serving.export import Exported, export

pytestmark = pytest.mark.usefixtures("unchecked_types")

T = 1_700_000_000
DAY = 86_400


class ListStore:
    """A store that is a list; deleted events leave gaps in the sequence."""

    def __init__(self, events=(), forgotten=()):
        self.events = list(enumerate(events, start=1))
        self.moments = dict(forgotten)
        self.pages = []

    def append(self, events):
        self.events += [(self.last_sequence() + place, event) for place, event in enumerate(events, start=1)]
        return len(events)

    def of_user(self, user_id, limit):
        return [event for _, event in self.events if event.user_id == user_id][-limit:]

    def since(self, sequence, limit):
        self.pages.append(sequence)
        return [pair for pair in self.events if pair[0] > sequence][:limit]

    def for_everybody(self, sequence, limit):
        return [pair for pair in self.since(sequence, limit) if pair[1].user_id is None]

    def last_sequence(self):
        return max((sequence for sequence, _ in self.events), default=0)

    def forget(self, user_id, moment):
        self.moments[user_id] = moment
        kept = [pair for pair in self.events if pair[1].user_id != user_id]
        gone, self.events = len(self.events) - len(kept), kept
        return gone

    def forgotten_at(self, user_id):
        return self.moments.get(user_id)

    def forgotten(self):
        return self.moments

    def close(self):
        pass


def event(kind, user_id=None, video_id=None, timestamp=T, **more):
    return LiveEvent(os.urandom(8).hex(), kind, timestamp, user_id, video_id, **more)


def watch(user_id, video_id, timestamp, watch_seconds=10.0, **more):
    return event("watch", user_id, video_id, timestamp, watch_seconds=watch_seconds, **more)


@pytest.fixture
def exported(tmp_path):
    """Gives `exported(answers, events, forgotten)`: the counts of the export to tmp_path/out.

    An answer is (page, user, timestamp, videos).
    """

    def make(answers=(), events=(), forgotten=()):
        log = AnswerLog(tmp_path / "answers")
        for page, user, timestamp, videos in answers:
            some = len(videos)
            seconds, sources = [1.0] * some, [("network",)] * some
            log.write(
                Answered(page, timestamp, user, "home", "abc", "main", (), videos, seconds, seconds, sources, [], [])
            )
        log.close()
        return export(ListStore(events, forgotten), tmp_path / "answers", tmp_path / "out")

    return make


@pytest.fixture
def table(tmp_path):
    """Gives `table(name, columns…)`: the rows of an exported file as tuples."""

    def read(name, *columns):
        rows = pq.read_table(tmp_path / "out" / f"{name}.parquet").to_pylist()
        return [tuple(row[column] for column in columns) for row in rows]

    return read


@pytest.fixture
def outcome(exported, table):
    """Gives `outcome(answers, events)`: (timestamp, video, watch seconds, whether it was shown) of each row."""

    def find(answers, events):
        exported(answers, events)
        return table("impressions", "timestamp", "video_id", "watch_seconds", "shown")

    return find


def test_nothing_came_of_an_answer(exported, table):
    counts = exported([("p", "ann", T, [7, 8])])
    assert counts == Exported(2, 0, 0, 0, 0, 0)
    columns = ("user_id", "video_id", "timestamp", "watch_seconds", "clicked", "completed", "liked", "position")
    assert table("impressions", *columns, "surface", "page_id", "bundle", "variant", "shown") == [
        ("ann", 7, T, 0.0, False, None, False, 1, "home", "p", "abc", "main", True),
        ("ann", 8, T, 0.0, False, None, False, 2, "home", "p", "abc", "main", True),
    ]


def test_a_watch_of_the_page_comes_of_it_whenever_it_was(exported, table):
    watches = [
        watch("ann", "7", T - 5, page_id="p", watch_seconds=3.0, completed=True, liked=True),
        watch("ann", "8", T + 5 * DAY, page_id="p", watch_seconds=4.0, surface="player"),
    ]
    assert exported([("p", "ann", T, [7, 8])], watches) == Exported(2, 2, 0, 0, 0, 0)
    assert table("impressions", "timestamp", "watch_seconds", "clicked", "completed", "liked", "surface") == [
        (T, 3.0, True, True, True, "home"),
        (T, 4.0, True, None, False, "home"),
    ]


def test_the_watch_of_another_user_video_or_page_does_not(outcome):
    watches = [
        watch("bob", "7", T + 1, page_id="p"),
        watch("ann", "8", T + 2, page_id="p"),
        watch("ann", "7", T + DAY + 3, page_id="q"),
    ]
    assert outcome([("p", "ann", T, [7])], watches) == [
        (T, 7, 0.0, True),
        (T + 1, 7, 10.0, False),
        (T + 2, 8, 10.0, False),
        (T + DAY + 3, 7, 10.0, False),
    ]


def test_only_the_first_watch_of_a_page_comes_of_it(outcome):
    watches = [watch("ann", "7", T + 9, 9.0, page_id="p"), watch("ann", "7", T + 4, 4.0, page_id="p")]
    assert outcome([("p", "ann", T, [7])], watches) == [(T, 7, 4.0, True), (T + 9, 7, 9.0, False)]


def test_of_watches_in_the_same_second_the_first_that_came_counts(outcome):
    watches = [watch("ann", "7", T + 4, seconds) for seconds in (5.0, 6.0, 4.0)]
    assert outcome([("p", "ann", T, [7])], watches)[0] == (T, 7, 5.0, True)


@pytest.mark.parametrize(("after", "found"), [(-1, 0.0), (0, 10.0), (DAY, 10.0), (DAY + 1, 0.0)])
def test_a_watch_without_a_page_comes_of_an_answer_of_the_day_before(outcome, after, found):
    rows = outcome([("p", "ann", T, [7])], [watch("ann", "7", T + after)])
    assert [seconds for _, _, seconds, shown in rows if shown] == [found]
    assert sum(seconds for _, _, seconds, _ in rows) == 10.0


def test_a_watch_without_a_page_comes_of_the_latest_answer_with_the_video(outcome):
    answers = [("p", "ann", T, [7]), ("q", "ann", T + 100, [8]), ("r", "ann", T + 200, [7])]
    watches = [watch("ann", "7", T + 199, 1.0), watch("ann", "7", T + 200, 2.0), watch("ann", "7", T + 201, 4.0)]
    assert outcome(answers, watches) == [
        (T, 7, 1.0, True),
        (T + 100, 8, 0.0, True),
        (T + 200, 7, 2.0, True),
        (T + 201, 7, 4.0, False),
    ]


def test_the_page_comes_before_the_time(outcome):
    answers = [("p", "ann", T, [7]), ("q", "ann", T + 100, [7])]
    assert outcome(answers, [watch("ann", "7", T + 110, page_id="p")]) == [(T, 7, 10.0, True), (T + 100, 7, 0.0, True)]
    both = [watch("ann", "7", T + 110, 1.0), watch("ann", "7", T + 120, 2.0, page_id="q")]
    assert outcome([], both) == [(T, 7, 0.0, True), (T + 100, 7, 2.0, True), (T + 110, 7, 1.0, False)]


def test_two_answers_in_one_second_share_no_watch(outcome):
    rows = outcome([("p", "ann", T, [7]), ("q", "ann", T, [7])], [watch("ann", "7", T + 1)])
    assert [seconds for _, _, seconds, _ in rows] == [0.0, 10.0]


def test_a_watch_of_a_page_that_is_not_in_the_log_goes_by_time(outcome):
    assert outcome([("p", "ann", T, [7])], [watch("ann", "7", T + 1, page_id="lost")]) == [(T, 7, 10.0, True)]


def test_a_watch_of_unknown_length_is_told_as_such(outcome):
    assert outcome([("p", "ann", T, [7])], [watch("ann", "7", T, None)]) == [(T, 7, None, True)]


def test_an_impression_of_a_client_stands_for_the_place(exported, table):
    told = [
        event("impression", "ann", "7", T + 1, page_id="p", watch_seconds=5.0, position=4, surface="feed", liked=True),
        event("impression", "ann", "8", T + 1, page_id="p", clicked=True, completed=True),
        event("impression", "ann", "9", T + 1, page_id="p"),
        event("impression", "ann", "9", T + 2, page_id="p", watch_seconds=2.0),
    ]
    assert exported([("p", "ann", T, [7, 8, 9])], told) == Exported(3, 3, 0, 0, 0, 0)
    columns = ("timestamp", "video_id", "watch_seconds", "clicked", "completed", "liked", "position", "surface")
    assert table("impressions", *columns, "bundle") == [
        (T + 1, 7, 5.0, True, None, True, 4, "feed", "abc"),
        (T + 1, 8, 0.0, True, True, False, 2, "home", "abc"),
        (T + 1, 9, 2.0, True, None, False, 3, "home", "abc"),
    ]


def test_a_watch_adds_to_the_impression_of_a_client(outcome):
    told = [
        event("impression", "ann", "7", T, page_id="p", watch_seconds=0.0),
        event("impression", "ann", "8", T, watch_seconds=30.0),
        event("impression", "ann", "9", T, watch_seconds=30.0),
        watch("ann", "7", T + 9, 12.0, page_id="p"),
        watch("ann", "8", T + 9, 12.0),
        watch("ann", "9", T + 9, None),
    ]
    assert outcome([], told) == [(T, 7, 12.0, True), (T, 8, 30.0, True), (T, 9, 30.0, True)]


def test_impressions_without_an_answer_are_rows_of_their_own(outcome):
    told = [
        event("impression", "ann", "7", T + 1, page_id="other"),
        event("impression", "ann", "7", T + 1),
        event("impression", "ann", "7", T + 2),
    ]
    rows = outcome([("p", "ann", T, [7])], told)
    assert rows == [(T, 7, 0.0, True), (T + 1, 7, 0.0, True), (T + 1, 7, 0.0, True), (T + 2, 7, 0.0, True)]


def test_visitors_and_what_concerns_everybody_are_left_out(exported):
    events = [
        event("watch", None, "7"),
        event("impression", None, "7"),
        event("search", None, query="x"),
        event("block", "ann", "7"),
        event("search", "ann", query=" "),
    ]
    assert exported([("p", None, T, [7])], events) == Exported(0, 0, 0, 0, 0, 0)


def test_forgotten_users_are_left_out_up_to_the_moment(exported, table):
    answers = [("p", "eve", T, [7]), ("q", "eve", T + 10, [8]), ("r", "eve", T + 11, [9]), ("s", "ann", T, [7])]
    events = [
        watch("eve", "7", T + 10, page_id="p"),
        watch("eve", "9", T + 12, 5.0, page_id="r"),
        event("search", "eve", timestamp=T + 10, query="old"),
        event("search", "eve", timestamp=T + 11, query="new"),
        event("impression", "eve", "1", T + 10),
    ]
    assert exported(answers, events, {"eve": T + 10, "12": T}) == Exported(2, 1, 0, 1, 0, 2)
    assert table("impressions", "user_id", "video_id", "watch_seconds") == [("ann", 7, 0.0), ("eve", 9, 5.0)]
    assert table("searches", "user_id", "query") == [("eve", "new")]
    assert table("forgotten", "user_id", "forgotten_at") == [("12", T), ("eve", T + 10)]


def test_the_latest_upload_of_a_video_with_all_its_columns(exported, table, tmp_path):
    uploads = [
        {"title": "old"},
        {"title": "2024-01-01", "tags": ["a", "b"], "uploaded_at": T - 5, "duration_seconds": 9, "stars": 4.5},
        {"title": None, "channel_id": "007", "stars": 1, "mood": "calm", "no name": 1, "Mood": "x", "video_id": "y"},
        None,
    ]
    videos = ["7", "7", "8", "9"]
    events = [event("upload", None, video, upload=upload) for video, upload in zip(videos, uploads, strict=True)]
    assert exported([], events).num_videos == 3
    columns = ("video_id", "title", "uploaded_at", "tags", "duration_seconds", "channel_id", "stars")
    assert table("videos", *columns) == [
        (7, "2024-01-01", T - 5, ["a", "b"], 9, None, 4.5),
        (8, None, T, None, None, "007", 1.0),
        (9, None, T, None, None, None, None),
    ]
    assert "no name" not in pq.read_schema(tmp_path / "out" / "videos.parquet").names
    columns = tomllib.loads((tmp_path / "out" / "log.toml").read_text())["videos"]["columns"]
    assert columns == {"Mood": "Mood", "stars": "stars"}


def test_ids_are_integers_only_where_all_of_a_kind_are(exported, table):
    events = [event("search", "12", query="x"), event("upload", None, "007", upload={})]
    exported([("p", "11", T, [7])], events)
    assert table("impressions", "user_id", "video_id") == [(11, "7")]
    assert table("searches", "user_id") == [(12,)] and table("videos", "video_id") == [("007",)]


def test_the_journal_is_read_in_pages_up_to_its_end_of_now(tmp_path):
    class Busy(ListStore):
        def since(self, sequence, limit):
            self.append([event("search", "ann", query="later")])
            return super().since(sequence, limit)

    store = Busy([event("search", "ann", query="x") for _ in range(25_000)])
    assert export(store, tmp_path, tmp_path / "out").num_searches == 25_000
    assert store.pages == [0, 10_000, 20_000]


def test_a_second_export_replaces_the_first(exported, table):
    exported([("p", "ann", T, [7])])
    assert exported([("q", "ann", T, [8])]).num_impressions == 2
    assert table("impressions", "page_id") == [("p",), ("q",)]


def test_prepare_takes_the_export_as_it_is(exported, tmp_path):
    answers = [("p", "1", T, [7, 8, 9]), ("q", "2", T + 100, [7])]
    events = [
        watch("1", "7", T + 5, 40.0, page_id="p", liked=True),
        watch("1", "8", T + 7, None),
        watch("2", "8", T + 150, 35.0),
        watch("2", "9", T + 160, None),
        event("search", "2", timestamp=T + 90, query="red panda"),
        event("upload", None, "10", T, upload={"title": "a red panda", "stars": 4, "mood": "calm"}),
    ]
    counts = exported(answers, events)
    assert counts == Exported(4, 2, 2, 1, 1, 0)
    toml = tmp_path / "out" / "log.toml"
    toml.write_text(
        toml.read_text() + "\n[split]\nranking_share = 0.3\ntest_share = 0\n\n[prepare]\nunwatched_videos = true\n"
    )

    summary = pipeline.check(toml, tmp_path / "rejects.parquet")
    assert summary.rejected == {} and not (tmp_path / "rejects.parquet").exists()
    assert {name: count for name, count in summary.rows.items() if count} == {
        "watches": 2,
        "impressions": 4,
        "searches": 1,
        "videos": 1,
    }

    pipeline.prepare(pipeline.Run(toml, tmp_path / "run"))
    dataset = Dataset.open(tmp_path / "run" / "dataset")
    events = dataset.events
    # one row per event, by user and time: 1 was shown 7, 8 and 9; 2 was shown 7 and watched 8 and 9 on their own
    assert dataset.vocabularies["users"].ids_of(np.array([1, 2])) == [1, 2]
    assert np.asarray(events.segments.offsets).tolist() == [0, 0, 3, 6]
    found = sorted(
        zip(
            np.asarray(events.segments.timestamp - T).tolist(),
            dataset.vocabularies["videos"].ids_of(np.asarray(events.video_row)),
            np.nan_to_num(np.asarray(events.watch_seconds), nan=-1.0).tolist(),
            *(
                np.asarray(column).tolist()
                for column in (events.completed, events.liked, events.shown, events.position)
            ),
            strict=True,
        )
    )
    assert found == [
        (0, 7, 40.0, True, True, True, 1),
        (0, 8, -1.0, False, False, True, 2),
        (0, 9, 0.0, False, False, True, 3),
        (100, 7, 0.0, False, False, True, 1),
        (150, 8, 35.0, True, False, False, 0),
        (160, 9, -1.0, False, False, False, 0),
    ]
    assert dataset.vocabularies["videos"].rows_of([10])[0] > 0
    assert dataset.facts["video_categories"] == ["mood"] and dataset.facts["video_numbers"] == ["stars"]


def test_prepare_takes_it_beside_a_log_of_ones_own(exported, tmp_path):
    exported([("p", "1", T, [7])], [watch("1", "7", T + 5, 40.0)])
    own = tmp_path / "out" / "own.csv"
    own.write_text(f"user_id,video_id,timestamp,watch_seconds\n5,7,{T},50\n")
    toml = tmp_path / "out" / "log.toml"
    toml.write_text(toml.read_text() + '[[impressions]]\nfiles = "own.csv"\n')
    summary = pipeline.check(toml, tmp_path / "rejects.parquet")
    assert summary.rejected == {} and summary.rows["impressions"] == 2 and summary.num_users == 2
