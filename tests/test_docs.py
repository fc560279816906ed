"""The page on one's own log is true: its examples run, its settings are those of the code."""

import json
import re
import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from watchnext import pipeline
from watchnext.events.dataset import Dataset
from watchnext.simulation.world import World

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "your-log.md"
EXAMPLES = {
    re.match(r"# (\S+)\.toml", block).group(1): block
    for block in re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    if "[watches]" in block or "[impressions]" in block
}
USERS, VIDEOS, EVENTS, OCTOBER = 60, 30, 1500, 1_790_812_800
random = np.random.default_rng(0)
USER, VIDEO = random.integers(0, USERS, EVENTS), random.integers(0, VIDEOS, EVENTS)
WHEN, SECONDS = OCTOBER + random.integers(0, 40 * 86_400, EVENTS), random.integers(0, 120, EVENTS)


def write_csv(path: Path, columns: dict[str, object]) -> None:
    pyarrow.csv.write_csv(pa.table(columns), path)


def write_ratings(folder: Path) -> None:
    write_csv(
        folder / "ratings.csv",
        {"user_id": USER, "movie_id": VIDEO, "rating": 1 + SECONDS % 5, "timestamp": WHEN},
    )
    films = np.arange(VIDEOS)
    titles = [f"Film {film}, The" for film in films]
    write_csv(folder / "movies.csv", {"movie_id": films, "title": titles, "genres": ["Action|Drama"] * VIDEOS})
    users = np.arange(USERS)
    people = {"user_id": users, "gender": ["F", "M"] * (USERS // 2), "age": 20 + users, "occupation": users % 20}
    write_csv(folder / "users.csv", people)


def write_feed(folder: Path) -> None:
    (folder / "logs").mkdir()
    feed = pa.table(
        {
            "uid": [f"u{user}" for user in USER],
            "item": [f"i{video}" for video in VIDEO],
            "ts_ms": WHEN * 1000,
            "played_ms": SECONDS * 1000,
            "action": np.where(SECONDS > 20, "play", "skip"),
            "page": np.where(VIDEO % 2, "home", "search"),
            "is_bot": USER == 0,
        }
    )
    pq.write_table(feed.slice(0, EVENTS // 2), folder / "logs" / "2026-10-01.parquet")
    pq.write_table(feed.slice(EVENTS // 2), folder / "logs" / "2026-11-01.parquet")
    searches = [{"uid": f"u{user}", "at": "2026-10-03T08:15:00Z", "query": "jazz piano"} for user in range(USERS)]
    (folder / "searches.jsonl").write_text("\n".join(map(json.dumps, searches)))
    users = [f"u{user}" for user in range(USERS)]
    pq.write_table(
        pa.table({"uid": users, "country": ["is", "no"] * (USERS // 2), "plan": ["free", "paid"] * (USERS // 2)}),
        folder / "users.parquet",
    )
    catalogue = {
        "item": [f"i{video}" for video in range(VIDEOS)],
        "length_ms": [60_000] * VIDEOS,
        "publisher": ["somebody"] * VIDEOS,
        "genre": ["jazz", "talk"] * (VIDEOS // 2),
        "published": ["2025-09-01"] * VIDEOS,
    }
    pq.write_table(pa.table(catalogue), folder / "catalogue.parquet")


def write_watches(folder: Path) -> None:
    viewers = [f"{user:03d}" for user in USER]
    started = [str(np.datetime64(int(when), "s")) for when in WHEN]
    write_csv(folder / "watches.csv", {"viewer": viewers, "clip": VIDEO, "started": started, "seconds": SECONDS})


WRITERS: dict[str, Callable[[Path], None]] = {"ratings": write_ratings, "feed": write_feed, "watches": write_watches}


def test_every_example_of_the_page_is_tested():
    assert EXAMPLES.keys() == WRITERS.keys()


@pytest.mark.parametrize("name", WRITERS)
def test_an_example_of_the_page_runs(name, tmp_path):
    WRITERS[name](tmp_path)
    (tmp_path / "log.toml").write_text(EXAMPLES[name])
    summary = pipeline.check(tmp_path / "log.toml", tmp_path / "rejects.parquet")
    assert summary.problem is None and summary.rejected == {}
    run = pipeline.Run(tmp_path / "log.toml", tmp_path / "run")
    pipeline.prepare(run)
    dataset = Dataset.open(run.part("dataset"))
    users = dataset.vocabularies["users"]
    match name:
        case "ratings":
            assert dataset.user_categories == ["gender", "occupation"]
            assert 0.3 < dataset.facts["num_watches"] / dataset.facts["num_events"] < 0.5
        case "feed":
            assert {"region", "plan"} <= set(dataset.user_categories) and dataset.facts["has_impressions"]
            bot = int(users.rows_of(["u0"])[0])
            assert dataset.events.segments.offsets[bot] == dataset.events.segments.offsets[bot + 1]
            assert len(dataset.searches.token_row) == 3 * USERS
        case "watches":
            assert users.rows_of(["007"])[0] > 0 and users.rows_of(["7"])[0] == 0


def test_the_settings_of_the_page_are_those_of_the_code():
    with_settings = runpy.run_path(str(ROOT / "scripts" / "settings_in_docs.py"))["with_settings"]
    assert PAGE.read_text() == with_settings(PAGE.read_text())


def test_the_python_example_of_the_simulation_page_runs() -> None:
    page = (ROOT / "docs" / "simulation.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, object] = {}
    exec(example, names)
    assert isinstance(names["world"], World)
