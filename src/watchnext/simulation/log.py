"""A world's log as Parquet files: impressions and searches by day, users, videos, and the log.toml that names them."""

from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from watchnext.artifacts import open_artifact, writing
from watchnext.config import from_mapping
from watchnext.progress import Bar, bar
from watchnext.shapes import Array
from watchnext.simulation.audience import DEVICES, GENDERS, REGIONS
from watchnext.simulation.policy import LoggingPolicy, Shelves
from watchnext.simulation.settings import WorldConfig
from watchnext.simulation.visits import Visits, visits_of_day
from watchnext.simulation.words import CATEGORIES, LANGUAGES, Words
from watchnext.simulation.world import START_SECOND, World

_KIND = "simulation"
_PAGES_AT_ONCE = 16_384
_ROWS_AT_ONCE = 1_000_000
_TITLES, _DAYS = 2, 3  # streams of random numbers; 0 and 1 make the world
_LOG_TOML = """\
# A made-up log (watchnext simulate): learn from it with `watchnext run log.toml`.
[log]
name = "simulated world, seed {seed}"

[impressions]
files = "impressions/*.parquet"

[searches]
files = "searches/*.parquet"

[users]
files = "users.parquet"

[videos]
files = "videos.parquet"
"""
_SMALL_LOG_EVENTS = 1_000_000
_SMALL_LOG_SETTINGS = """
# Settings for a log as small as this one; a larger one does better with the defaults.
[retrieval]
tower = [64, 32]
embedding_dim = 32
batch_size = 256
learning_rate = 0.002

[features]
habit_lag_days = 0

[ranking]
tower = [128, 64]
batch_size = 256
learning_rate = 0.002
embedding_learning_rate = 0.002
dropout = 0.1
max_watch_seconds = 600
max_epochs = 4
patience = 3
max_impressions = 60_000

[serving]
num_candidates = 200
"""


def write_log(config: WorldConfig, folder: Path, workers: int) -> None:
    """Writes the log of the world that `config` describes: whole, or not at all.

    Every day draws from a generator of its own, so the bytes do not depend on the number of `workers`.

    Raises:
        OSError: the disk is full, or `folder` cannot be written; nothing half-written stays.
    """
    with writing(folder, _KIND, settings=config) as aside, bar("simulating", config.events) as progress:
        progress.say("making the world")
        world = World.build(config)
        settings = _SMALL_LOG_SETTINGS if config.events <= _SMALL_LOG_EVENTS else ""
        (aside / "log.toml").write_text(_LOG_TOML.format(seed=config.seed) + settings)
        _write_users(world, aside / "users.parquet")
        _write_videos(world, aside / "videos.parquet")
        progress.say("")
        _write_days(world, aside, workers, progress)


def open_world(folder: Path) -> World:
    """Makes again the world whose log lies in `folder`.

    Raises:
        ArtifactError: `folder` holds no whole log of a simulation.
    """
    settings = open_artifact(folder, _KIND, verify=False).settings
    return World.build(from_mapping(WorldConfig, settings, "world"))


def _write_days(world: World, folder: Path, workers: int, progress: Bar) -> None:
    for table in ("impressions", "searches"):
        (folder / table).mkdir()
    shelves = Shelves.of(world)
    words = Words.of(world.config.num_topics)
    with ThreadPoolExecutor(workers) as pool:
        days = [
            pool.submit(_write_day, world, shelves, words, day, folder, progress) for day in range(world.config.days)
        ]
        try:
            for day in as_completed(days):
                day.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _write_day(world: World, shelves: Shelves, words: Words, day: int, folder: Path, progress: Bar) -> None:
    random = np.random.default_rng([world.config.seed, _DAYS, day])
    before, after = (_pages_before(world.config, bound) for bound in (day, day + 1))
    visits = visits_of_day(world, day, after - before, random)
    searches = _searches(visits, words, random)
    pq.write_table(searches, folder / "searches" / f"day-{day:04}.parquet", compression="zstd")
    policy = LoggingPolicy.of_day(world, shelves, day)
    most = world.config.events - before * world.config.page_size  # the last page of the log may be cut
    with pq.ParquetWriter(folder / "impressions" / f"day-{day:04}.parquet", _IMPRESSIONS, compression="zstd") as writer:
        for start in range(0, len(visits), _PAGES_AT_ONCE):
            part = visits.part(slice(start, start + _PAGES_AT_ONCE))
            rows = _impressions(world, policy, part, before + start, random)
            writer.write_table(rows.slice(0, most - start * world.config.page_size))
            progress.advance(rows.num_rows)


def _pages_before(config: WorldConfig, day: int) -> int:
    """How many pages the days before `day` have together."""
    return -(-config.events // config.page_size) * day // config.days


_IMPRESSIONS = pa.schema(
    [
        ("user_id", pa.int32()),
        ("video_id", pa.int32()),
        ("timestamp", pa.int64()),
        ("watch_seconds", pa.float32()),
        ("clicked", pa.bool_()),
        ("completed", pa.bool_()),
        ("position", pa.int8()),
        ("surface", pa.dictionary(pa.int8(), pa.string())),
        ("page_id", pa.int64()),
    ]
)


def _impressions(
    world: World, policy: LoggingPolicy, visits: Visits, first_page: int, random: np.random.Generator
) -> pa.Table:
    videos = policy.pages(visits, random)
    num_pages, size = videos.shape
    position = np.tile(np.arange(size, dtype=np.int8), num_pages)
    user, moment = (np.repeat(column, size) for column in (visits.user, visits.moment))
    luck = random.random((2, num_pages * size), dtype=np.float32)
    seconds = world.outcome(user, videos.ravel(), moment, position, luck)
    surface = np.repeat((visits.topic >= 0).astype(np.int8), size)
    columns = [
        user.astype(np.int32),
        videos.ravel().astype(np.int32),
        moment,
        seconds,
        seconds > 0,
        world.completed(videos.ravel(), seconds),
        position + 1,
        pa.DictionaryArray.from_arrays(surface, ["home", "search"]),
        np.repeat(first_page + np.arange(num_pages), size),
    ]
    return pa.table(columns, schema=_IMPRESSIONS)


def _searches(visits: Visits, words: Words, random: np.random.Generator) -> pa.Table:
    pages = visits.searched
    return pa.table(
        {
            "user_id": visits.user[pages].astype(np.int32),
            "timestamp": visits.search_moment(pages),
            "query": words.queries(visits.topic[pages], random),
        }
    )


def _write_users(world: World, path: Path) -> None:
    users = world.audience.users
    columns = {
        "user_id": np.arange(len(users), dtype=np.int32),
        "age": users["age"],
        "gender": _named(users["gender"], GENDERS),
        "region": _named(users["region"], REGIONS),
        "device": _named(users["device"], DEVICES),
    }
    pq.write_table(pa.table(columns), path, compression="zstd")


def _write_videos(world: World, path: Path) -> None:
    """Streams the table of videos, as ten million titles at once would take gigabytes."""
    words = Words.of(world.config.num_topics)
    random = np.random.default_rng([world.config.seed, _TITLES])
    writer = None
    try:
        for start in range(0, world.config.videos, _ROWS_AT_ONCE):
            rows = np.arange(start, min(start + _ROWS_AT_ONCE, world.config.videos), dtype=np.int64)
            table = _videos(world, words, rows, random)
            writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _videos(world: World, words: Words, rows: Array, random: np.random.Generator) -> pa.Table:
    videos = world.catalogue.videos[rows]
    topics = np.stack([videos["main_topic"], videos["second_topic"]], axis=1)
    return pa.table(
        {
            "video_id": rows.astype(np.int32),
            "uploaded_at": START_SECOND + videos["uploaded_second"].astype(np.int64),
            "duration_seconds": videos["duration_seconds"],
            "channel_id": videos["channel"],
            "category": _named(videos["main_topic"] % len(CATEGORIES), CATEGORIES),
            "tags": words.tags(topics),
            "title": words.titles(videos["main_topic"], world.catalogue.episode(rows), random),
            "language": _named(videos["language"], LANGUAGES),
        }
    )


def _named(codes: Array, names: tuple[str, ...]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int8)), pa.array(names))
