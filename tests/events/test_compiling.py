from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from watchnext.artifacts import open_artifact
from watchnext.config import PrepareConfig, RetrievalConfig, SplitConfig
from watchnext.errors import ConfigurationError, DataError
from watchnext.events.compiling import accumulate, compile_dataset
from watchnext.events.dataset import Dataset, Segments, Timelines
from watchnext.events.tokens import query_tokens
from watchnext.examples.next_watch import NextWatchExamples

EVENTS = "user_id,video_id,timestamp,watch_seconds\n"
SPLIT = SplitConfig(ranking_start=20, validation_start=30, test_start=90)

# Eight rows, six events, one after test_start = 90. Seconds 40 and more are completed (30 seconds watched).
# Before 90: "b" is completed twice, "a" once, "c" never but seen twice, "d" never and seen once.
WATCHES = EVENTS + (
    "bob,b,50,40\n"
    "ann,a,40,31\n"
    "ann,b,10,30\n"
    "ann,b,10,30\n"  # an exact repeat
    "ann,c,20,2\n"
    "bob,c,60,1\n"
    "bob,d,70,1\n"
    "cid,e,95,99\n"  # the test period
)


@dataclass(frozen=True)
class Compiled:
    dataset: Dataset

    def ids(self, vocabulary: str) -> list[Any]:
        found = self.dataset.vocabularies[vocabulary]
        return found.ids_of(np.arange(1, len(found)))

    def events(self, column: str) -> list[Any]:
        return list(getattr(self.dataset.events, column).tolist())


Compile = Callable[..., Compiled]


@pytest.fixture
def compiled(read: Any, tmp_path: Path) -> Compile:
    def compile_files(
        files: dict[str, str], toml: str = "", split: SplitConfig = SPLIT, folder: str = "dataset", **prepare: Any
    ) -> Compiled:
        tables = "".join(f'{Path(name).stem}.files = "{name}"\n' for name in files)
        compile_dataset(read(tables + toml, files), tmp_path / folder, split, PrepareConfig(**prepare))
        return Compiled(Dataset.open(tmp_path / folder))

    return compile_files


# A log worked by hand


def test_videos_are_ordered_by_completed_watches_then_by_sight(compiled: Compile) -> None:
    assert compiled({"watches.csv": WATCHES}).ids("videos") == ["b", "a", "c", "d"]


def test_each_users_events_are_contiguous_and_in_time_order(compiled: Compile) -> None:
    small = compiled({"watches.csv": WATCHES})
    assert small.ids("users") == ["ann", "bob", "cid"]
    assert small.dataset.events.segments.offsets.tolist() == [0, 0, 3, 6, 7]
    assert small.dataset.events.segments.timestamp.tolist() == [10, 20, 40, 50, 60, 70, 95]
    # b = 1, a = 2, c = 3, d = 4; e is first seen in the test period and has no row.
    assert small.events("video_row") == [1, 3, 2, 1, 3, 4, 0]
    assert small.events("watch_seconds") == [30, 2, 31, 40, 1, 1, 99]
    assert small.events("completed") == [True, False, True, True, False, False, True]


def test_completed_watches_of_known_videos_are_listed(compiled: Compile) -> None:
    events = compiled({"watches.csv": WATCHES}).dataset.events
    assert events.watch_places.tolist() == [0, 2, 3]
    assert events.watches.timestamp.tolist() == [10, 40, 50]
    assert events.watches.offsets.tolist() == [0, 0, 2, 3, 3]


def test_the_facts_count_what_was_compiled(compiled: Compile) -> None:
    facts = compiled({"watches.csv": WATCHES + "dan,a,x,5\n"}).dataset.facts
    expected = {
        "num_events": 7,
        "num_watches": 3,
        "num_timed": 7,
        "num_repeats": 1,
        "num_searches": 0,
        "num_videos_left_out": 1,
        "rejected": 1,
        "has_impressions": False,
    }
    assert {key: facts[key] for key in expected} == expected


def test_the_periods_are_kept(compiled: Compile) -> None:
    small = compiled({"watches.csv": WATCHES}).dataset
    periods = (small.facts["log_start"], small.ranking_start, small.validation_start, small.test_start, small.log_end)
    assert periods == (10, 20, 30, 90, 96)


def test_completed_watches_before_the_test_period_are_counted(compiled: Compile) -> None:
    late = WATCHES + "cid,d,96,99\n"
    assert compiled({"watches.csv": late}).dataset.videos.num_completed.tolist() == [0, 2, 1, 0, 0]


def test_integer_ids_stay_integers(compiled: Compile) -> None:
    numbered = EVENTS + "7,70,10,30\n7,71,40,30\n8,70,50,30\n7,70,99,1\n"
    assert compiled({"watches.csv": numbered}).ids("videos") == [70, 71]


def test_max_videos_keeps_the_most_frequent(compiled: Compile) -> None:
    small = compiled({"watches.csv": WATCHES}, max_videos=2)
    assert (small.ids("videos"), small.events("video_row")) == (["b", "a"], [1, 0, 2, 1, 0, 0, 0])
    assert small.dataset.facts["num_videos_left_out"] == 3
    assert small.dataset.events.watch_places.tolist() == [0, 2, 3]


# Watches and impressions


def test_watches_alone_are_shown_and_clicked(compiled: Compile) -> None:
    # Where the log has no impressions, each watch stands for one.
    small = compiled({"watches.csv": WATCHES})
    assert (small.events("shown"), small.events("clicked")) == ([True] * 7, [True] * 7)


def test_impressions_alone_give_the_watches(compiled: Compile) -> None:
    small = compiled({"impressions.csv": WATCHES.replace("bob,d,70,1", "bob,d,70,0")})
    assert small.events("shown") == [True] * 7
    assert small.events("clicked") == [True] * 5 + [False, True]
    assert small.dataset.events.watch_places.tolist() == [0, 2, 3]
    assert small.dataset.facts["has_impressions"] is True


def test_a_watch_that_is_also_an_impression_is_one_event(compiled: Compile) -> None:
    impressions = EVENTS + "ann,b,10,0\nann,b,11,0\ncid,a,91,0\n"
    small = compiled({"watches.csv": WATCHES, "impressions.csv": impressions})
    # ann's events at 10 (both), 11 (impression only), 20 and 40 (watches only).
    assert small.dataset.events.segments.timestamp[:4].tolist() == [10, 11, 20, 40]
    assert small.events("watch_seconds")[:4] == [30, 0, 2, 31]
    assert small.events("clicked")[:4] == [True, False, True, True]
    assert small.events("shown")[:4] == [True, True, False, False]
    assert small.dataset.facts["num_repeats"] == 2


def test_likes_and_positions_are_those_of_the_impressions(compiled: Compile) -> None:
    header = EVENTS.replace("seconds\n", "seconds,liked,position\n")
    impressions = header + "ann,b,10,0,true,3\nann,b,11,0,,\nann,c,20,2,false,1\nbob,a,95,9,1,2\n"
    small = compiled({"watches.csv": WATCHES, "impressions.csv": impressions})
    # ann at 10 (both), 11, 20 (both) and 40, bob at 50, 60, 70 and 95, cid at 95.
    assert small.events("liked") == [True, False, False, False, False, False, False, True, False]
    assert small.events("position") == [3, 0, 1, 0, 0, 0, 0, 2, 0]
    assert (small.dataset.events.liked.dtype, small.dataset.events.position.dtype) == (bool, np.int16)


def test_of_repeats_one_like_counts_and_the_later_position(compiled: Compile) -> None:
    header = EVENTS.replace("seconds\n", "seconds,liked,position\n")
    lines = "ann,a,10,30,false,2\nann,a,10,30,true,\nann,a,10,30,,7\nann,a,40,30,,\nbob,a,95,30,,\n"
    small = compiled({"impressions.csv": header + lines})
    assert (small.events("liked"), small.events("position")) == ([True, False, False], [7, 0, 0])


def test_impressions_of_one_page_share_a_number(compiled: Compile) -> None:
    header = EVENTS.replace("seconds\n", "seconds,page_id\n")
    impressions = header + "ann,a,10,30,first\nann,b,11,0,first\nann,c,12,0,second\nbob,a,95,9,\n"
    small = compiled({"watches.csv": WATCHES, "impressions.csv": impressions})
    # ann at 10 (b of the watches, and a), 11, 12, 20 and 40, bob at 50, 60, 70 and 95, cid at 95.
    unknown, first, also_first, second, *others = small.dataset.page.tolist()
    assert first == also_first > 0 and second > 0 and first != second
    assert [unknown, *others] == [0] * 8
    assert small.dataset.page.dtype == np.int32


@pytest.mark.parametrize("table", ["watches.csv", "impressions.csv"])
def test_a_log_without_likes_and_positions_has_none(compiled: Compile, table: str) -> None:
    small = compiled({table: WATCHES})
    assert (small.events("liked"), small.events("position")) == ([False] * 7, [0] * 7)


@pytest.mark.parametrize(
    ("given", "position"),
    [("1", 1), ("2.9", 2), ("0.99", 0), ("0", 0), ("-3", 0), ("", 0), ("NaN", 0), ("-inf", 0),
     ("32767", 32_767), ("32768", 32_767), ("1e300", 32_767), ("inf", 32_767)],
)  # fmt: skip
def test_a_position_counts_from_one_and_is_clipped(compiled: Compile, given: str, position: int) -> None:
    header = EVENTS.replace("seconds\n", "seconds,position\n")
    small = compiled({"impressions.csv": f"{header}ann,a,10,30,{given}\nann,a,40,30,4.0\nbob,a,95,30,5.0\n"})
    assert small.events("position") == [position, 4, 5]


def test_the_rule_may_use_duration_and_clicks(compiled: Compile) -> None:
    files = {"watches.csv": WATCHES, "videos.csv": "video_id,duration_seconds\nc,4\nd,4\n"}
    halves = compiled(files).events("completed")
    assert halves == [True, True, True, True, False, False, True]
    assert compiled(files, 'log.completed = "clicked"', folder="other").events("completed") == [True] * 7


def test_a_completed_column_wins_over_the_rule(compiled: Compile) -> None:
    lines = (
        "user_id,video_id,timestamp,watch_seconds,completed\n" + "ann,a,10,99,false\nann,b,40,0,true\nbob,a,95,99,\n"
    )
    assert compiled({"watches.csv": lines}).events("completed") == [False, True, True]


def test_unknown_watch_times_are_nan_and_not_counted(compiled: Compile) -> None:
    lines = "user_id,video_id,timestamp\nann,a,10\nann,a,40\nann,a,95\n"
    small = compiled({"watches.csv": lines}, 'watches.columns = {watch_seconds = "NULL", completed = "true"}')
    assert np.isnan(small.dataset.events.watch_seconds).all()
    assert small.dataset.facts["num_timed"] == 0
    assert small.dataset.video_timelines.watch_seconds.tolist() == [0, 0, 0]
    assert small.dataset.video_timelines.num_timed.tolist() == [0, 0, 0]
    assert small.dataset.video_timelines.completed.tolist() == [1, 2, 3]


def test_surfaces_have_rows_by_frequency(compiled: Compile) -> None:
    lines = EVENTS.replace("seconds\n", "seconds,surface\n")
    lines += "ann,a,10,30,tv\nann,b,40,30,web\nbob,a,50,30,web\nbob,b,51,30,\nbob,a,95,30,app\n"
    small = compiled({"watches.csv": lines})
    assert (small.ids("surfaces"), small.events("surface_row")) == (["web", "tv"], [2, 1, 1, 0, 0])


# Users, videos, searches

VIDEOS = (
    "video_id,channel_id,category,tags,title,duration_seconds,uploaded_at,rating,language\n"
    "a,x,news,t|u|v,A title,10,5,1.5,\n"
    "b,y,film,u,B,20,,,\n"
    "c,y,film,,,,7,2.5,\n"
    "e,z,late,w,E,50,9,9,\n"
)


def described(compiled: Compile, **prepare: Any) -> Compiled:
    return compiled({"watches.csv": WATCHES, "videos.csv": VIDEOS}, 'videos.columns = {rating = "rating"}\n', **prepare)


def test_videos_carry_their_columns(compiled: Compile) -> None:
    small = described(compiled)
    videos = small.dataset.videos
    # Rows: none, b, a, c, d; the video "e" is outside the vocabulary, and so are its channel, category and tag.
    assert (small.ids("channels"), videos.channel_row.tolist()) == (["y", "x"], [0, 1, 2, 1, 0])
    assert small.dataset.video_categories == ["category"]
    assert (small.ids("videos.category"), videos.categorical.tolist()) == (["film", "news"], [[0], [1], [2], [1], [0]])
    assert videos.uploaded_at.tolist() == [0, 0, 5, 7, 0]
    assert small.dataset.facts["video_numbers"] == ["duration_seconds", "rating"]
    nan = np.nan
    expected = [[nan, nan], [20, nan], [10, 1.5], [nan, 2.5], [nan, nan]]
    np.testing.assert_array_equal(videos.continuous, np.array(expected, dtype=np.float32))
    assert small.dataset.titles.to_pylist() == ["B", "A title", None, None]


def test_tags_are_padded_and_cut(compiled: Compile) -> None:
    small = described(compiled, max_tags=2)
    assert small.ids("tags") == ["u", "t", "v"]
    assert small.dataset.videos.tag_rows.tolist() == [[0, 0], [1, 0], [2, 1], [0, 0], [0, 0]]


def test_titles_are_words_by_frequency(compiled: Compile) -> None:
    titles = "video_id,title\na,Jazz piano!\nb,Late jazz - LIVE\nc,jazz  jazz\nd,...\ne,zither zither zither\n"
    small = compiled({"watches.csv": WATCHES, "videos.csv": titles})
    # "jazz" stands four times in the titles of b, a and c, the others once; video "e" is outside the vocabulary.
    assert small.ids("title_tokens") == ["jazz", "late", "live", "piano"]
    # Rows: none, b, a, c, d.
    assert small.dataset.videos.title_rows.tolist() == [
        [0, 0, 0], [2, 1, 3], [1, 4, 0], [1, 1, 0], [0, 0, 0],
    ]  # fmt: skip


@pytest.mark.parametrize("most", [1, 2, 5])
def test_the_first_words_of_a_title_are_kept(compiled: Compile, most: int) -> None:
    titles = "video_id,title\na,one two three\nb,three\n"
    small = compiled({"watches.csv": WATCHES, "videos.csv": titles}, max_title_words=most)
    words = small.ids("title_tokens")
    kept = [words[row - 1] for row in small.dataset.videos.title_rows[2] if row]
    assert small.dataset.videos.title_rows.shape == (5, min(most, 3))  # none is longer
    assert kept == ["one", "two", "three"][:most]


def test_rare_title_words_fall_to_row_zero_and_leave_their_place(compiled: Compile) -> None:
    titles = "video_id,title\na,new song\nb,song\n"
    small = compiled({"watches.csv": WATCHES, "videos.csv": titles}, max_search_tokens=1)
    assert small.ids("title_tokens") == ["song"]
    assert small.dataset.videos.title_rows[:, :2].tolist() == [[0, 0], [1, 0], [0, 1], [0, 0], [0, 0]]


def test_a_log_without_titles_has_none(compiled: Compile) -> None:
    small = compiled({"watches.csv": WATCHES}, max_title_words=3)
    assert small.ids("title_tokens") == []
    assert small.dataset.videos.title_rows.tolist() == [[0]] * 5


UPLOADS = "video_id,channel_id,tags,title\na,x,t,A\nnew,y,u,New upload\ne,z,w,E\nalso,x,t,Also new\n"


def test_videos_that_were_only_described_get_rows_where_they_are_asked_for(compiled: Compile) -> None:
    files = {"watches.csv": WATCHES, "videos.csv": UPLOADS}
    without, asked = compiled(files, folder="one"), compiled(files, folder="two", unwatched_videos=True)
    assert without.ids("videos") == ["b", "a", "c", "d"]
    # Those that were watched keep their rows; "e" was seen in the test period alone, and is described.
    assert asked.ids("videos") == ["b", "a", "c", "d", "also", "e", "new"]
    videos = asked.dataset.videos
    assert videos.num_completed.tolist() == [0, 2, 1, 0, 0, 0, 0, 0]
    assert asked.dataset.titles.to_pylist() == [None, "A", None, None, "Also new", "E", "New upload"]
    assert [asked.ids("channels")[row - 1] for row in videos.channel_row[5:]] == ["x", "z", "y"]
    assert (videos.title_rows[5:] > 0).sum(axis=1).tolist() == [2, 1, 2]
    assert len(asked.dataset.video_timelines.segments.offsets) == 9
    assert (without.dataset.facts["num_videos_left_out"], asked.dataset.facts["num_videos_left_out"]) == (1, 0)


def test_what_was_only_described_is_never_a_target(compiled: Compile) -> None:
    asked = compiled({"watches.csv": WATCHES, "videos.csv": UPLOADS}, unwatched_videos=True).dataset
    config = RetrievalConfig(unwatched_weight=0.5, horizon=3)
    for before, unwatched in ((asked.test_start, [5, 6, 7]), (asked.log_end, [5, 7])):
        wanted = NextWatchExamples(asked, config, before).num_wanted(asked.num_videos)
        assert wanted[[1, 2, 3, 4]].all() and not wanted[unwatched].any()


def test_max_videos_keeps_the_watched_before_the_described(compiled: Compile) -> None:
    files = {"watches.csv": WATCHES, "videos.csv": UPLOADS}
    small = compiled(files, folder="one", unwatched_videos=True, max_videos=5)
    assert small.ids("videos") == ["b", "a", "c", "d", "also"]
    assert compiled(files, folder="two", unwatched_videos=True, max_videos=3).ids("videos") == ["b", "a", "c"]


def test_unwatched_videos_of_a_log_that_describes_none_change_nothing(compiled: Compile) -> None:
    without, asked = (
        compiled({"watches.csv": WATCHES}, folder=str(flag), unwatched_videos=flag).ids("videos")
        for flag in (False, True)
    )
    assert without == asked


def test_rare_categories_and_tags_fall_to_row_zero(compiled: Compile) -> None:
    small = described(compiled, max_categories=1)
    assert (small.ids("videos.category"), small.ids("tags")) == (["film"], ["u"])
    assert small.dataset.videos.categorical.tolist() == [[0], [1], [0], [1], [0]]
    assert small.dataset.videos.tag_rows[2].tolist() == [0, 1]


def test_users_carry_their_columns(compiled: Compile) -> None:
    users = "user_id,age,gender,region,device\nann,30,f,,\nbob,,f,,\nzoe,50,m,,\n"
    small = compiled({"watches.csv": WATCHES, "users.csv": users})
    assert small.ids("users") == ["ann", "bob", "cid", "zoe"]
    assert small.dataset.user_categories == ["gender"]
    assert small.dataset.users.categorical.tolist() == [[0], [1], [1], [0], [2]]
    expected = np.array([[np.nan], [30], [np.nan], [np.nan], [50]], dtype=np.float32)
    np.testing.assert_array_equal(small.dataset.users.continuous, expected)


@pytest.mark.parametrize("table", ["users", "videos"])
def test_numbers_that_are_none_are_unknown(compiled: Compile, table: str) -> None:
    key, ids = {"users": ("user_id", ("ann", "bob", "cid")), "videos": ("video_id", "abc")}[table]
    told = f"{key},size,age\n{ids[0]},inf,NaN\n{ids[1]},-inf,1e39\n{ids[2]},4,-1e300\n"
    toml = f'{table}.columns = {{size = "CAST(size AS DOUBLE)", age = "age"}}\n'
    small = compiled({"watches.csv": WATCHES, f"{table}.csv": told}, toml).dataset
    numbers = getattr(small, table).continuous
    named = dict(zip(small.facts[f"{table[:-1]}_numbers"], numbers.T, strict=True))
    assert np.isnan(named["age"]).all()
    assert np.isnan(named["size"]).sum() == len(numbers) - 1 and np.nansum(named["size"]) == 4
    assert small.facts["rejected"] == 0


SEARCHES = "user_id,timestamp,query\nbob,30,Jazz piano!\nann,35,jazz\nann,20,  \nann,92,late jazz\ndan,40,JAZZ\n"


def test_searches_become_unigrams_and_bigrams(compiled: Compile) -> None:
    small = compiled({"watches.csv": WATCHES, "searches.csv": SEARCHES})
    assert small.ids("search_tokens") == ["jazz", "jazz piano", "piano"]
    searches = small.dataset.searches
    # Users ann, bob, cid, dan: ann searched "jazz" twice (the word "late" came too late), bob three tokens at once.
    assert searches.segments.offsets.tolist() == [0, 0, 2, 5, 5, 6]
    assert searches.segments.timestamp.tolist() == [35, 92, 30, 30, 30, 40]
    assert searches.token_row.tolist() == [1, 1, 1, 2, 3, 1]
    assert small.dataset.facts["num_searches"] == 4  # the blank one is rejected


def test_rare_search_tokens_are_left_out(compiled: Compile) -> None:
    small = compiled({"watches.csv": WATCHES, "searches.csv": SEARCHES}, max_search_tokens=1)
    assert (small.ids("search_tokens"), small.dataset.searches.token_row.tolist()) == (["jazz"], [1] * 4)


@pytest.mark.parametrize(
    ("query", "tokens"),
    [
        ("Jazz  piano-trio", ["jazz", "piano", "trio", "jazz piano", "piano trio"]),
        ("one", ["one"]),
        ("", []),
        (" -- ", []),
        ("a a a", ["a", "a", "a", "a a", "a a"]),
        ("ÉTÉ 2024, 東京!", ["été", "2024", "東京", "été 2024", "2024 東京"]),
    ],
)
def test_a_query_has_the_tokens_that_a_log_stores_for_it(compiled: Compile, query: str, tokens: list[str]) -> None:
    assert query_tokens([query]) == [tokens]
    small = compiled({"watches.csv": WATCHES, "searches.csv": f'user_id,timestamp,query\nann,30,"{query}"\nbob,30,x\n'})
    stored = small.dataset.searches.token_row[: small.dataset.searches.segments.offsets[2]]
    assert sorted(small.dataset.vocabularies["search_tokens"].ids_of(np.asarray(stored))) == sorted(tokens)


# Timelines


def random_log(seed: int, num_events: int = 300) -> str:
    random = np.random.default_rng(seed)
    return EVENTS + "".join(
        f"u{random.integers(9)},v{random.integers(12)},{random.integers(1, 100)},{random.integers(60)}\n"
        for _ in range(num_events)
    )


def slow_past(small: Dataset, owner_of_event: np.ndarray, owner: int, moment: int) -> tuple[int, float, int]:
    events = small.events
    past = (owner_of_event == owner) & (events.segments.timestamp < moment)
    return int(events.completed[past].sum()), float(events.watch_seconds[past].sum()), int(past.sum())


def past_of(timelines: Timelines, owner: int, moment: int) -> tuple[int, float, int]:
    [end] = timelines.segments.ends_before(np.array([owner]), np.array([moment]))
    if end == timelines.segments.offsets[owner]:
        return 0, 0.0, 0
    place = end - 1
    return int(timelines.completed[place]), float(timelines.watch_seconds[place]), int(timelines.num_timed[place])


@pytest.mark.parametrize("seed", [1, 2])
def test_timelines_are_sums_of_the_past(compiled: Compile, seed: int) -> None:
    videos = "video_id,channel_id\n" + "".join(f"v{video},c{video % 3}\n" for video in range(10))
    small = compiled({"watches.csv": random_log(seed), "videos.csv": videos}).dataset
    video_row = np.asarray(small.events.video_row)
    channel_row = np.asarray(small.videos.channel_row)[video_row]
    for timelines, owners in ((small.video_timelines, video_row), (small.channel_timelines, channel_row)):
        for owner in range(1, int(owners.max()) + 1):
            for moment in (1, 2, 30, 50, 51, 99, 200):
                assert past_of(timelines, owner, moment) == slow_past(small, owners, owner, moment)


def slow_sums(owners: list[list[float]]) -> list[float]:
    """Running sums of each owner's own rows, one by one."""
    return [sum(rows[: place + 1]) for rows in owners for place in range(len(rows))]


def sums_by_block_size(owners: list[list[float]], kind: str) -> list[np.ndarray]:
    """With blocks of one row, which every owner is larger than, to blocks larger than the column."""
    found = []
    for block_rows in range(1, sum(map(len, owners)) + 2):
        found.append(np.array([value for rows in owners for value in rows], dtype=kind))
        accumulate(found[-1], np.cumsum([0, *map(len, owners)]), block_rows)
    return found


@pytest.mark.parametrize("kind", ["<i4", "<f8"])
@settings(max_examples=60)
@given(owners=st.lists(st.lists(st.integers(0, 86_400), max_size=6), max_size=6))
@example(owners=[])
@example(owners=[[], [], []])
@example(owners=[[], [1] * 6, [], [2], []])
def test_running_sums_are_those_of_each_owner_whatever_the_blocks(owners: list[list[float]], kind: str) -> None:
    expected = np.array(slow_sums(owners), dtype=kind).tobytes()
    assert {sums.tobytes() for sums in sums_by_block_size(owners, kind)} == {expected}


@settings(max_examples=60)
@given(st.lists(st.lists(st.floats(0, 86_400), max_size=6), max_size=6))
def test_running_sums_of_any_seconds_are_right_to_the_microsecond(owners: list[list[float]]) -> None:
    for sums in sums_by_block_size(owners, "<f8"):
        np.testing.assert_allclose(sums, slow_sums(owners), rtol=0, atol=1e-6)


def test_running_sums_are_written_through_to_the_file(tmp_path: Path) -> None:
    np.save(tmp_path / "column.npy", np.array([1, 2, 3, 4], dtype="<i4"))
    accumulate(np.load(tmp_path / "column.npy", mmap_mode="r+"), np.array([0, 0, 3, 4]), 2)
    assert np.load(tmp_path / "column.npy").tolist() == [1, 3, 6, 4]


def test_compiling_twice_gives_the_same_bytes(compiled: Compile) -> None:
    first, second = (compiled({"watches.csv": random_log(3, 3000)}, folder=name) for name in ("one", "two"))
    assert first.dataset.artifact.fingerprint == second.dataset.artifact.fingerprint


@pytest.mark.parametrize("max_videos", [100, 2])
def test_the_order_of_the_lines_changes_nothing(compiled: Compile, max_videos: int) -> None:
    header, *lines = random_log(4, 2000).splitlines(keepends=True)
    first = compiled({"watches.csv": header + "".join(lines)}, folder="one", max_videos=max_videos)
    second = compiled({"watches.csv": header + "".join(lines[::-1])}, folder="two", max_videos=max_videos)
    assert first.dataset.artifact.fingerprint == second.dataset.artifact.fingerprint


# No leakage, nothing half done


def segments_end(segments: Segments) -> int:
    return int(segments.offsets[-1])


def test_events_of_the_test_period_change_no_vocabulary(compiled: Compile) -> None:
    late = "".join(f"cid,{video},95,99\n" for video in "ccddddnew") + "ann,a,96,99\n" * 3
    files = {"watches.csv": WATCHES, "videos.csv": VIDEOS, "searches.csv": SEARCHES}
    changed = {
        **files,
        "watches.csv": WATCHES + late,
        "searches.csv": SEARCHES + "ann,93,piano late\nann,94,piano late\nann,95,piano late\n",
    }
    before, after = compiled(files, folder="one"), compiled(changed, folder="two")
    assert segments_end(after.dataset.events.segments) > segments_end(before.dataset.events.segments)
    for name in before.dataset.vocabularies:
        assert after.ids(name) == before.ids(name)
    assert after.dataset.videos.num_completed.tolist() == before.dataset.videos.num_completed.tolist()


def test_an_exception_leaves_no_dataset(compiled: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the disk is full")

    monkeypatch.setattr("watchnext.events.compiling._write_timelines", broken)
    with pytest.raises(RuntimeError):
        compiled({"watches.csv": WATCHES})
    assert {file.name for file in tmp_path.iterdir()} == {"watches.csv", "log.toml"}


def test_an_exception_leaves_the_old_dataset_untouched(
    compiled: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = compiled({"watches.csv": WATCHES}).dataset.artifact
    with pytest.raises(DataError):
        compiled({"watches.csv": EVENTS + "ann,a,10,30\n"})
    assert open_artifact(tmp_path / "dataset", "dataset") == old


# Logs that cannot be compiled


@pytest.mark.parametrize(
    "rule", ["watch_second > 3", "watch_seconds >", "nope(watch_seconds)", "video_id = 3", "sum(watch_seconds) > 3"]
)
def test_a_rule_that_is_no_condition_is_refused(compiled: Compile, rule: str) -> None:
    with pytest.raises(ConfigurationError, match=r"\[log\] completed = .* is not an SQL condition on watch_seconds"):
        compiled({"watches.csv": WATCHES}, f'log.completed = "{rule}"')


@pytest.mark.parametrize("lines", [WATCHES, EVENTS])
def test_a_log_in_which_nothing_is_completed_is_refused(compiled: Compile, lines: str) -> None:
    with pytest.raises(DataError, match="no watch counts as completed under the rule 'watch_seconds > 100'"):
        compiled({"watches.csv": lines}, 'log.completed = "watch_seconds > 100"')


def test_a_log_too_short_to_split_is_refused(compiled: Compile) -> None:
    with pytest.raises(DataError, match="leave a period without events"):
        compiled({"watches.csv": EVENTS + "ann,a,10,30\n"}, split=SplitConfig())


def test_a_log_of_one_user_is_compiled(compiled: Compile) -> None:
    lines = "".join(f"ann,v{second % 3},{second},30\n" for second in range(1, 41))
    small = compiled({"watches.csv": EVENTS + lines}, split=SplitConfig())
    assert small.dataset.events.segments.offsets.tolist() == [0, 0, 40]


def test_a_log_without_searches_users_or_videos_has_empty_tables(compiled: Compile) -> None:
    small = compiled({"watches.csv": WATCHES}).dataset
    assert small.searches.segments.offsets.tolist() == [0] * 5
    assert (small.users.categorical.shape, small.videos.continuous.shape) == ((4, 0), (5, 0))
    assert small.channel_timelines.segments.offsets.tolist() == [0, 0]
    assert small.titles.to_pylist() == [None] * 4


def test_further_columns_may_be_called_id_row_and_value(compiled: Compile) -> None:
    files = {
        "watches.csv": WATCHES,
        "users.csv": "user_id,a,b,c\nann,x,1,p\nbob,y,2,q\n",
        "videos.csv": "video_id,a,b,c\na,x,1,p\nb,y,2,q\n",
    }
    columns = '{id = "a", row = "b", value = "c"}'
    small = compiled(files, f"users.columns = {columns}\nvideos.columns = {columns}\n")
    assert small.dataset.user_categories == small.dataset.video_categories == ["id", "value"]
    assert small.dataset.users.continuous[1:3, 0].tolist() == [1.0, 2.0]
    assert dict(zip(small.ids("videos"), small.dataset.videos.continuous[1:, 0].tolist(), strict=True))["b"] == 2.0
