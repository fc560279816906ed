"""A small world with an obvious answer, written as a log, compiled, and trained once per session.

Sixty videos in four topics; each user loves one topic. What is shown is mostly of that topic; shown videos of the
topic are watched to the end, others are left after two seconds. Searches name the topic.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from watchnext import pipeline
from watchnext.events.dataset import Dataset

NUM_USERS, NUM_VIDEOS, NUM_TOPICS, EVENTS_PER_USER = 240, 60, 4, 24
FIRST_SECOND, DAYS = 1_700_000_000, 20

SETTINGS = """
[retrieval]
tower = [32, 16]
embedding_dim = 16
batch_size = 256
max_epochs = 4
dropout = 0.1

[ranking]
tower = [32, 16]
batch_size = 128
max_epochs = 8
max_watch_seconds = 60

[evaluation]
cutoffs = [5, 10]
bootstrap_draws = 50

[serving]
num_candidates = 20
"""


def topic_of_video(video: np.ndarray) -> np.ndarray:
    return video % NUM_TOPICS


def topic_of_user(user: np.ndarray) -> np.ndarray:
    return user % NUM_TOPICS


def write_small_log(folder: Path, seed: int = 0) -> Path:
    """Writes the world's log as Parquet files and gives its TOML file."""
    random = np.random.default_rng(seed)
    user = np.repeat(np.arange(NUM_USERS), EVENTS_PER_USER)
    when = FIRST_SECOND + random.integers(0, DAYS * 86_400, len(user))
    loved = random.random(len(user)) < 0.6
    anything = random.integers(0, NUM_VIDEOS, len(user))
    of_topic = random.integers(0, NUM_VIDEOS // NUM_TOPICS, len(user)) * NUM_TOPICS + topic_of_user(user)
    video = np.where(loved, of_topic, anything)
    likes = topic_of_video(video) == topic_of_user(user)
    seconds = np.where(likes, 40.0 + random.integers(0, 10, len(user)), 2.0)
    seconds[~likes & (random.random(len(user)) < 0.5)] = 0.0
    events = pa.table(
        {
            "user_id": user,
            "video_id": video,
            "timestamp": when,
            "watch_seconds": seconds,
            "clicked": seconds > 0,
            "completed": likes,
            "surface": np.where(random.random(len(user)) < 0.5, "home", "watch page"),
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(events, folder / "events.parquet")
    users = np.arange(NUM_USERS)
    pq.write_table(
        pa.table({"user_id": users, "age": 20.0 + users % 50, "region": np.where(users % 2, "north", "south")}),
        folder / "users.parquet",
    )
    videos = np.arange(NUM_VIDEOS)
    pq.write_table(
        pa.table(
            {
                "video_id": videos,
                "channel_id": [f"channel {topic}" for topic in topic_of_video(videos)],
                "category": [f"topic {topic}" for topic in topic_of_video(videos)],
                "tags": [[f"topic {topic}", "all"] for topic in topic_of_video(videos)],
                "title": [f"Video {video} of topic {topic_of_video(video)}" for video in videos],
                "duration_seconds": 50.0 + videos,
                "uploaded_at": np.full(NUM_VIDEOS, FIRST_SECOND - 86_400),
            }
        ),
        folder / "videos.parquet",
    )
    pq.write_table(
        pa.table(
            {
                "user_id": users,
                "timestamp": FIRST_SECOND + users,
                "query": [f"more topic{topic}" for topic in topic_of_user(users)],
            }
        ),
        folder / "searches.parquet",
    )
    tables = "".join(
        f'[{table}]\nfiles = "{file}.parquet"\n'
        for table, file in (
            ("impressions", "events"),
            ("users", "users"),
            ("videos", "videos"),
            ("searches", "searches"),
        )
    )
    toml = folder / "log.toml"
    toml.write_text('[log]\nname = "small world"\n' + tables + SETTINGS)
    return toml


@dataclass(frozen=True)
class SmallRun:
    """The small world after every step of the pipeline."""

    run: pipeline.Run
    report: pipeline.Report

    @property
    def bundle(self) -> Path:
        return self.run.part("bundle")


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """Trained once; tests must not change it (copy the folder to damage it)."""
    folder = tmp_path_factory.mktemp("small")
    run = pipeline.Run(write_small_log(folder / "log"), folder / "run")
    return SmallRun(run, pipeline.run_all(run))


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The small world compiled, without training."""
    folder = tmp_path_factory.mktemp("dataset")
    run = pipeline.Run(write_small_log(folder / "log"), folder / "run")
    pipeline.prepare(run)
    return Dataset.open(run.part("dataset"))


LogWriter = Callable[..., Path]


@pytest.fixture(scope="session")
def quick_log(tmp_path_factory: pytest.TempPathFactory) -> LogWriter:
    """Gives `quick_log((old, new), …, seed=0)`: the small world's TOML file, one pass of training, text replaced."""

    def write(*replacements: tuple[str, str], seed: int = 0) -> Path:
        toml = write_small_log(tmp_path_factory.mktemp("quick"), seed)
        text = re.sub(r"max_epochs = \d", "max_epochs = 1", toml.read_text())
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        toml.write_text(text)
        return toml

    return write


FOREIGN_NAMES = {"user_id": "uid", "video_id": "item", "timestamp": "ts_ms", "watch_seconds": "played"}
FOREIGN_COLUMNS = f"""files = "events.parquet"
[impressions.columns]
user_id = "uid"
video_id = "item"
timestamp = "ts_ms / 1000"
watch_seconds = "played"
[split]
ranking_start = {FIRST_SECOND + 9 * 86_400}
validation_start = {FIRST_SECOND + 16 * 86_400}
test_start = {FIRST_SECOND + 18 * 86_400}
"""


@pytest.fixture(scope="session")
def foreign_log(quick_log: LogWriter) -> LogWriter:
    """Gives `foreign_log(later=False)`: another world whose events have their own column names and fixed periods.

    With `later=True` all of it happens a second time, after the end of the first.
    """

    def write(later: bool = False) -> Path:
        toml = quick_log(('files = "events.parquet"\n', FOREIGN_COLUMNS), seed=7)
        events = pq.read_table(toml.parent / "events.parquet")
        when = events["timestamp"].to_numpy()
        tables = [events.set_column(2, "timestamp", pa.array(when * 1000))]
        if later:
            tables.append(events.set_column(2, "timestamp", pa.array((when + DAYS * 86_400) * 1000)))
        events = pa.concat_tables(tables).rename_columns(
            [FOREIGN_NAMES.get(name, name) for name in events.column_names]
        )
        pq.write_table(events, toml.parent / "events.parquet")
        return toml

    return write


@pytest.fixture(scope="session")
def foreign_run(foreign_log: LogWriter, tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """The foreign log after every step."""
    run = pipeline.Run(foreign_log(), tmp_path_factory.mktemp("foreign") / "run")
    return SmallRun(run, pipeline.run_all(run))
