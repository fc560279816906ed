import dataclasses
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from watchnext import pipeline
from watchnext.artifacts import writing
from watchnext.errors import ArtifactError
from watchnext.simulation import log
from watchnext.simulation.log import open_world, write_log
from watchnext.simulation.settings import WorldConfig
from watchnext.simulation.visits import Visits, visits_of_day
from watchnext.simulation.words import Words
from watchnext.simulation.world import World

START, DAY = 1_699_920_000, 86_400
TINY = WorldConfig(videos=100, users=20, events=503, days=3, page_size=4, seed=9)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def names_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def read(folder: Path, table: str) -> dict[str, np.ndarray]:
    """Gives the columns of a table, days in order."""
    files = sorted((folder / table).iterdir()) if (folder / table).is_dir() else [folder / f"{table}.parquet"]
    whole = pa.concat_tables([pq.read_table(file) for file in files])
    return {name: np.asarray(whole[name].to_pylist(), dtype=object) for name in whole.column_names}


@pytest.fixture(scope="module")
def impressions(small_log: Path) -> dict[str, np.ndarray]:
    columns = read(small_log, "impressions")
    return {name: column if name == "surface" else column.astype(float) for name, column in columns.items()}


@pytest.fixture(scope="module")
def places(impressions: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """User, video, moment and position of every impression; the world counts positions from 0, a log from 1."""
    user, video, moment, position = (
        impressions[name].astype(int) for name in ("user_id", "video_id", "timestamp", "position")
    )
    return user, video, moment, position - 1


# The files.


def test_a_log_has_two_files_a_day_and_four_more(small_log: Path) -> None:
    days = {f"{table}/day-000{day}.parquet" for table in ("impressions", "searches") for day in range(8)}
    assert set(files_of(small_log)) == days | {"log.toml", "manifest.json", "users.parquet", "videos.parquet"}


def test_nothing_is_left_beside_the_log(small_log: Path) -> None:
    assert names_in(small_log.parent) == ["log"]


def test_the_log_file_names_the_seed_and_the_tables(small_log: Path) -> None:
    text = (small_log / "log.toml").read_text()
    assert 'name = "simulated world, seed 2"' in text
    for table in ("impressions", "searches", "users", "videos"):
        assert f'[{table}]\nfiles = "{table}' in text


def test_every_row_is_accepted_when_the_log_is_read(small_log: Path, tmp_path: Path) -> None:
    summary = pipeline.check(small_log / "log.toml", tmp_path / "rejects.parquet")
    num_searches = sum(pq.read_metadata(file).num_rows for file in (small_log / "searches").iterdir())
    expected = {"watches": 0, "impressions": 3_007, "searches": num_searches, "users": 300, "videos": 600}
    assert summary.rows == expected and num_searches > 30
    assert (summary.rejected, summary.problem, summary.timed_share) == ({}, None, 1.0)
    assert summary.first_event.startswith("2023-11-14 0")
    assert not (tmp_path / "rejects.parquet").exists()


# 503 events on pages of 4: 126 pages, the last of which holds 3.
@pytest.mark.parametrize("workers", [1, 3])
def test_the_same_seed_gives_the_same_bytes_with_any_number_of_workers(tmp_path: Path, workers: int) -> None:
    write_log(TINY, tmp_path / "one", 2)
    write_log(TINY, tmp_path / "two", workers)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def test_another_seed_gives_other_bytes_in_every_file(tmp_path: Path) -> None:
    write_log(TINY, tmp_path / "one", 2)
    write_log(dataclasses.replace(TINY, seed=10), tmp_path / "two", 2)
    first, second = files_of(tmp_path / "one"), files_of(tmp_path / "two")
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] == second[name]] == []


def test_every_day_has_its_own_luck(small_log: Path) -> None:
    # The first three days have 75 pages each: with the same luck the same users would come in the same order.
    files = sorted((small_log / "impressions").iterdir())[:3]
    assert len({tuple(pq.read_table(file)["user_id"].to_pylist()) for file in files}) == 3


def test_a_log_comes_with_the_settings_that_made_it(small_log: Path, small_world: World) -> None:
    manifest = json.loads((small_log / "manifest.json").read_text())
    assert manifest["kind"] == "simulation"
    assert manifest["settings"] == dataclasses.asdict(small_world.config)


# Impressions.


@pytest.mark.parametrize("at_once", [7, 75, 16_384])
def test_the_log_has_exactly_the_wanted_events(
    small_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(log, "_PAGES_AT_ONCE", at_once)
    # 602 pages in 8 days, 602 * day // 8 before each: 0, 75, 150, 225, 301, 376, 451, 526. The last page has 2 of 5.
    write_log(small_world.config, tmp_path / "log", 2)
    files = sorted((tmp_path / "log" / "impressions").iterdir())
    pages = [75, 75, 75, 76, 75, 75, 75, 76]
    expected = [5 * number for number in pages[:-1]] + [5 * 76 - 3]
    assert [pq.read_metadata(file).num_rows for file in files] == expected and sum(expected) == 3_007
    page_ids = read(tmp_path / "log", "impressions")["page_id"].tolist()
    assert page_ids == [row // 5 for row in range(3_007)]


@pytest.mark.parametrize(("events", "days", "page_size"), [(12, 3, 4), (13, 3, 4), (15, 3, 4), (3, 3, 1), (50, 1, 50)])
def test_the_smallest_logs_have_exactly_the_wanted_events(
    tmp_path: Path, events: int, days: int, page_size: int
) -> None:
    config = dataclasses.replace(TINY, events=events, days=days, page_size=page_size, new_share=0.0)
    write_log(config, tmp_path / "log", 1)
    rows = [pq.read_metadata(file).num_rows for file in sorted((tmp_path / "log" / "impressions").iterdir())]
    assert sum(rows) == events and len(rows) == days and min(rows) >= 1


def test_a_page_is_one_users_at_one_moment_on_one_surface_and_shows_nothing_twice(
    impressions: dict[str, np.ndarray],
) -> None:
    assert np.unique(impressions["page_id"]).tolist() == list(range(602))
    bounds = np.flatnonzero(np.diff(impressions["page_id"])) + 1
    for name in ("user_id", "timestamp", "surface"):
        assert all(len(set(page.tolist())) == 1 for page in np.split(impressions[name], bounds))
    positions = [page.tolist() for page in np.split(impressions["position"], bounds)]
    assert positions == [[1, 2, 3, 4, 5]] * 601 + [[1, 2]]
    assert all(len(set(page.tolist())) == len(page) for page in np.split(impressions["video_id"], bounds))


def test_every_day_has_its_own_moments_in_time_order(small_log: Path) -> None:
    for day, file in enumerate(sorted((small_log / "impressions").iterdir())):
        moments = pq.read_table(file)["timestamp"].to_numpy() - START
        assert (np.diff(moments) >= 0).all()
        assert moments[0] >= day * DAY + 2 and moments[0] < (day + 1) * DAY


def test_nothing_is_shown_before_it_is_uploaded(
    small_log: Path, places: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
) -> None:
    uploaded_at = read(small_log, "videos")["uploaded_at"].astype(int)
    _, video, moment, _ = places
    assert (uploaded_at[video] <= moment).all()
    assert (uploaded_at[video] > START).sum() > 100


def test_videos_are_clicked_and_watched_as_the_world_expects(
    small_world: World,
    impressions: dict[str, np.ndarray],
    places: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    clicks = small_world.click_probability(*places).astype(float)
    seconds = impressions["watch_seconds"]
    # Within four standard deviations, and told from anybody else's clicks by as many.
    deviation = np.sqrt((clicks * (1 - clicks)).sum())
    assert abs(impressions["clicked"].sum() - clicks.sum()) < 4 * deviation
    expected = small_world.expected_watch_seconds(*places).astype(float)
    assert abs(seconds.sum() - expected.sum()) < 4 * seconds.std() * np.sqrt(len(seconds))
    # Who was shown a video matters: the clicks fit the right users far better than shifted ones.
    user, *rest = places
    strangers = small_world.click_probability(np.roll(user, 5), *rest).astype(float)
    likelihoods = [np.where(seconds > 0, np.log(p + 1e-9), np.log1p(-p)).sum() for p in (clicks, strangers)]
    assert likelihoods[0] > likelihoods[1] + 30


def test_what_was_watched_stands_beside_what_was_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(
        world: World, user: np.ndarray, video: np.ndarray, moment: np.ndarray, position: np.ndarray, luck: np.ndarray
    ) -> np.ndarray:
        return (2_000.0 * position + 100 * user + video + moment % 7 / 8).astype(np.float32)

    monkeypatch.setattr(World, "outcome", told)
    write_log(TINY, tmp_path / "log", 1)
    columns = read(tmp_path / "log", "impressions")
    expected = 2_000.0 * (columns["position"] - 1) + 100 * columns["user_id"] + columns["video_id"]
    expected = expected + columns["timestamp"] % 7 / 8
    assert columns["watch_seconds"].tolist() == expected.tolist()


def test_a_click_is_a_watch_no_longer_than_the_video(
    small_world: World,
    impressions: dict[str, np.ndarray],
    places: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    seconds, duration = impressions["watch_seconds"], small_world.catalogue.videos["duration_seconds"][places[1]]
    assert ((seconds > 0) == impressions["clicked"]).all()
    assert (seconds >= 0).all() and (seconds <= duration).all()
    # Half a minute, or half of the video.
    completed = (seconds > 0) & ((seconds >= 30) | (seconds >= duration / 2))
    assert (completed == impressions["completed"]).all()
    assert 0 < completed.sum() < (seconds > 0).sum()


# Searches.


def test_every_search_page_answers_the_search_of_two_seconds_before(
    small_world: World, small_log: Path, impressions: dict[str, np.ndarray]
) -> None:
    searches = read(small_log, "searches")
    first = impressions["position"] == 1
    found = first & (impressions["surface"] == "search")
    assert set(impressions["surface"].tolist()) == {"home", "search"}
    pages = zip(impressions["user_id"][found], impressions["timestamp"][found] - 2, strict=True)
    assert list(zip(searches["user_id"], searches["timestamp"], strict=True)) == list(pages)
    searchers = small_world.audience.users["search_rate"][searches["user_id"].astype(int)]
    assert len(searchers) > 30 and (searchers > 0).all()


def test_a_query_is_two_words_of_a_taste_and_its_page_begins_with_that_topic(
    small_world: World, small_log: Path, impressions: dict[str, np.ndarray]
) -> None:
    words = Words.of(12).words.to_pylist()
    searches = read(small_log, "searches")
    first_of_page = (impressions["surface"] == "search") & (impressions["position"] == 1)
    begins_with = small_world.catalogue.videos[impressions["video_id"][first_of_page].astype(int)]
    filled = 0
    for user, moment, query, video in zip(
        searches["user_id"], searches["timestamp"], searches["query"], begins_with, strict=True
    ):
        first, second = query.split(" ")
        topic = words.index(first) // 8
        assert words.index(second) // 8 == topic and first != second
        assert topic in small_world.audience.users["tastes"][user]
        videos, language = small_world.catalogue.videos, small_world.audience.users["language"][user]
        uploaded = videos["uploaded_second"] <= (moment - START) // DAY * DAY
        if (uploaded & (videos["main_topic"] == topic) & (videos["language"] == language)).any():
            assert (video["main_topic"], video["language"]) == (topic, language)
            filled += 1
    assert 15 < filled < len(searches["query"])


# Users and videos.


def test_users_are_told_with_the_names_of_what_they_are(small_world: World, small_log: Path) -> None:
    columns, users = read(small_log, "users"), small_world.audience.users
    assert columns["user_id"].tolist() == list(range(300))
    assert columns["age"].tolist() == users["age"].tolist()
    names = {
        "gender": ["female", "male", "other"],
        "region": ["north", "east", "south", "west", "coast", "islands"],
        "device": ["phone", "desktop", "tv"],
    }
    for column, of_code in names.items():
        assert columns[column].tolist() == [of_code[code] for code in users[column]]


@pytest.mark.parametrize("at_once", [17, 600, 1_000_000])
def test_videos_are_told_as_they_are(
    small_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(log, "_ROWS_AT_ONCE", at_once)
    write_log(small_world.config, tmp_path / "log", 2)
    columns, videos = read(tmp_path / "log", "videos"), small_world.catalogue.videos
    words = Words.of(12).words.to_pylist()
    assert columns["video_id"].tolist() == list(range(600))
    assert columns["uploaded_at"].tolist() == (START + videos["uploaded_second"].astype(int)).tolist()
    assert columns["duration_seconds"].tolist() == videos["duration_seconds"].tolist()
    assert columns["channel_id"].tolist() == videos["channel"].tolist()
    assert columns["language"].tolist() == [("en", "es", "hi", "pt")[code] for code in videos["language"]]
    categories = (
        "music", "games", "cooking", "science", "sport", "travel", "news", "comedy", "film", "cars", "animals",
        "fashion",
    )  # fmt: skip
    assert columns["category"].tolist() == [categories[topic] for topic in videos["main_topic"]]
    topics = zip(videos["main_topic"], videos["second_topic"], strict=True)
    assert columns["tags"].tolist() == [[words[8 * main], words[8 * second]] for main, second in topics]
    for title, topic, episode in zip(
        columns["title"], videos["main_topic"], small_world.catalogue.episode(np.arange(600)), strict=True
    ):
        first, second, ending = title.split(" ", maxsplit=2)
        assert {first, second} <= set(words[8 * topic : 8 * topic + 8])
        assert (ending == f"episode {episode}") == (episode > 0)


def test_topics_beyond_the_sixteenth_share_their_categories(tmp_path: Path) -> None:
    write_log(dataclasses.replace(TINY, videos=2_000, topics=20), tmp_path / "log", 1)
    world = open_world(tmp_path / "log")
    main_topic = world.catalogue.videos["main_topic"]
    category = read(tmp_path / "log", "videos")["category"]
    assert (main_topic == 16).any() and set(category[main_topic % 16 == 0].tolist()) == {"music"}


# Opening.


def test_an_opened_world_is_the_one_that_was_written(small_world: World, small_log: Path) -> None:
    opened = open_world(small_log)
    assert opened.config == small_world.config
    assert (opened.catalogue.videos == small_world.catalogue.videos).all()
    assert (opened.catalogue.channels == small_world.catalogue.channels).all()
    assert (opened.audience.users == small_world.audience.users).all()
    assert (opened.audience.activity == small_world.audience.activity).all()


def test_where_no_log_is_there_is_no_world(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds no simulation"):
        open_world(tmp_path)


def test_another_artifact_is_no_world(tmp_path: Path) -> None:
    with writing(tmp_path / "index", "index"):
        pass
    with pytest.raises(ArtifactError, match="holds a index, but a simulation was expected"):
        open_world(tmp_path / "index")


# Whole or absent.

FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from watchnext.simulation.log import write_log
from watchnext.simulation.settings import WorldConfig

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = Path(sys.argv[1])
sizes = {"users": (20_000, 100, 200), "videos": (20, 20_000, 200), "impressions": (20, 100, 100_000)}
resource.setrlimit(resource.RLIMIT_FSIZE, (80_000, resource.RLIM_INFINITY))
for name, (users, videos, events) in sizes.items():
    try:
        write_log(WorldConfig(users=users, videos=videos, events=events, days=2, new_share=0.0), folder / name, 2)
    except OSError as full:
        print(name, full.errno, sorted(file.name for file in folder.iterdir()))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no limits of resources")
def test_on_a_full_disk_nothing_is_left(tmp_path: Path) -> None:
    # 80 kB a file: too small for 20,000 users, for 20,000 videos, and for 50,000 impressions of a day.
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    # 27 is EFBIG.
    assert done.stdout == "users 27 []\nvideos 27 []\nimpressions 27 []\n"
    assert names_in(tmp_path) == []


def failing(method: Callable[..., Any], error: BaseException, day: int = 1) -> Callable[..., Any]:
    """Gives `method`, a slow one, that fails on one day."""

    def visits(world: World, of_day: int, num_pages: int, random: np.random.Generator) -> Visits:
        if of_day == day:
            raise error
        time.sleep(0.01)
        visits.days.append(of_day)
        return method(world, of_day, num_pages, random)

    visits.days = []
    return visits


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_on_one_day_stops_the_others_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    broken = failing(visits_of_day, OSError(28, "No space left on device"))
    monkeypatch.setattr(log, "visits_of_day", broken)
    with pytest.raises(OSError, match="No space left"):
        write_log(dataclasses.replace(TINY, days=100), tmp_path / "log", workers)
    assert 0 in broken.days and len(broken.days) < 50
    assert names_in(tmp_path) == []
    assert not any("ThreadPool" in thread.name for thread in threading.enumerate())


def test_an_error_leaves_the_old_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_log(TINY, tmp_path / "log", 1)
    old = files_of(tmp_path / "log")
    monkeypatch.setattr(log, "visits_of_day", failing(visits_of_day, RuntimeError("stopped")))
    with pytest.raises(RuntimeError, match="stopped"):
        write_log(dataclasses.replace(TINY, seed=10), tmp_path / "log", 1)
    assert files_of(tmp_path / "log") == old and names_in(tmp_path) == ["log"]


@pytest.mark.parametrize("batches", [0, 1])
def test_an_error_among_the_videos_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    told, titles = [], Words.titles

    def broken(*arguments: Any) -> pa.Array:
        if len(told) == batches:
            raise MemoryError
        told.append(arguments)
        return titles(*arguments)

    monkeypatch.setattr(log, "_ROWS_AT_ONCE", 60)
    monkeypatch.setattr(Words, "titles", broken)
    with pytest.raises(MemoryError):
        write_log(TINY, tmp_path / "log", 1)
    assert names_in(tmp_path) == []
