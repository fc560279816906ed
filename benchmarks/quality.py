"""Candidate generation judged on public logs, unsampled, from a committed configuration.

    python benchmarks/quality.py kuairand --config configs/kuairand.toml
    python benchmarks/quality.py ml1m --config configs/ml1m.toml --folder PATH/TO/ml1m [--split val] [--seeds 3]

`kuairand`: the bundled log; what users complete after a moment, from what they did before it, videos seen before
struck out. `ml1m`: the next liked film (4 stars or more), all but each user's last liked film known; the folder holds
events.parquet (user_id, movie_id, rating, timestamp), movies.parquet and users.parquet. Settings are to be chosen with
`--split val`, where the model learns from less; `test` is for one run at the end. With `--referee FOLDER` the lists
are judged by the referee.py there, else by the same figures computed here. Ends with one JSON line.
"""

import argparse
import dataclasses
import json
import tempfile
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from machine import print_result
from referee import Referee
from watchnext.cli.demonstration import sample_log
from watchnext.config import RetrievalConfig, SplitConfig, from_mapping, read_toml
from watchnext.evaluation.metrics import ndcg, recall
from watchnext.events.compiling import compile_dataset
from watchnext.events.dataset import Dataset
from watchnext.events.log import read_log
from watchnext.events.mapping import read_log_file
from watchnext.examples.contexts import context_as_of, seen_before
from watchnext.examples.next_watch import targets_between
from watchnext.pipeline.fit_retrieval import fit_once
from watchnext.retrieval.index.exact import ExactIndex
from watchnext.shapes import Array, Int, RowLists

_USERS_AT_ONCE = 256
_ML1M = """
[log]
name = "MovieLens-1M, liked films"
completed = "true"
[[watches]]
files = "watches.parquet"
[users]
files = "users.parquet"
[users.columns]
age = "CAST(age AS VARCHAR)"
occupation = "CAST(occupation AS VARCHAR)"
[videos]
files = "movies.parquet"
[videos.columns]
video_id = "movie_id"
tags = "genres"
"""


@dataclass(frozen=True)
class Case:
    """A log to learn from before a moment, and whom to judge by what."""

    dataset: Dataset
    before: int
    users: Int[Array, "users"]
    struck: RowLists
    targets: RowLists
    k: int
    cutoffs: tuple[int, ...]


def main() -> None:
    """Trains, makes the lists, judges them, and prints the figures."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("data", choices=("kuairand", "ml1m"))
    arguments.add_argument("--config", type=Path)
    arguments.add_argument("--folder", type=Path, help="where MovieLens-1M lies")
    arguments.add_argument("--split", choices=("val", "test"), default="test")
    arguments.add_argument("--seeds", type=int, default=1, help="so many trainings; figures are their means")
    arguments.add_argument("--referee", type=Path, help="a folder with referee.py and splits.py")
    arguments.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings to change, as TOML")
    arguments.add_argument("--keep", type=Path, help="a file that receives the figures too")
    chosen = arguments.parse_args()
    config = _config(chosen.config or Path("configs") / f"{chosen.data}.toml", chosen.set)
    with tempfile.TemporaryDirectory() as scratch:
        case = CASES[chosen.data](chosen.folder, chosen.split, Path(scratch))
        referee = _referee(chosen, Path(scratch) / "splits") if chosen.referee else None
        runs = [
            _run(
                case, dataclasses.replace(config, seed=config.seed + place), chosen, referee, Path(scratch) / str(place)
            )
            for place in range(chosen.seeds)
        ]
    figures = {key: float(np.mean([run[key] for run in runs])) for key in runs[0]}
    spread = {f"{key}_seeds": [round(run[key], 4) for run in runs] for key in runs[0]} if len(runs) > 1 else {}
    told = dict(data=chosen.data, split=chosen.split, **figures, **spread)
    if chosen.keep:
        chosen.keep.write_text(json.dumps(told))
    print_result(**told)


def _config(file: Path, changes: list[str]) -> RetrievalConfig:
    table = read_toml(file)["retrieval"] | tomllib.loads("\n".join(changes))
    return from_mapping(RetrievalConfig, table, "retrieval")


def _referee(chosen: argparse.Namespace, splits: Path) -> Referee:
    data = (chosen.folder or chosen.referee.parent / "data" / "ml1m").parent
    return Referee.with_splits(chosen.referee, data, splits)


def _run(
    case: Case, config: RetrievalConfig, chosen: argparse.Namespace, referee: Referee | None, folder: Path
) -> dict[str, float]:
    began = time.monotonic()
    network, _ = fit_once(case.dataset, config, case.before, folder, config.max_epochs)
    seconds = time.monotonic() - began
    model = network.trained()
    index = ExactIndex(model.video_vectors)
    lists = []
    for start in range(0, len(case.users), _USERS_AT_ONCE):
        part = case.users[start : start + _USERS_AT_ONCE]
        moments = np.full(len(part), case.before)
        context = context_as_of(case.dataset, part, moments, config.history_length, config.num_search_tokens)
        lists.append(index.search(model.vectors_of(context), case.k, case.struck[start : start + _USERS_AT_ONCE])[0])
    found = np.concatenate(lists)
    figures = {f"recall@{k}": float(np.nanmean(recall(found, case.targets, k))) for k in case.cutoffs}
    figures |= {f"ndcg@{k}": float(np.nanmean(ndcg(found, case.targets, k))) for k in case.cutoffs[:2]}
    if referee:
        figures |= _refereed(case, found, chosen, referee)
    return figures | {"train_seconds": seconds}


def _refereed(case: Case, lists: Array, chosen: argparse.Namespace, referee: Referee) -> dict[str, float]:
    """What an independent program says of the same lists."""
    item = "movie_id" if chosen.data == "ml1m" else "video_id"
    vocabularies = case.dataset.vocabularies
    users, places = np.nonzero(lists)
    table = pa.table(
        {
            "user_id": pa.array(vocabularies["users"].ids_of(case.users[users])),
            item: pa.array(vocabularies["videos"].ids_of(lists[users, places])),
            "rank": pa.array(places + 1),
        }
    )
    return {f"referee_{key}": value for key, value in referee.judge(chosen.data, table, chosen.split).items()}


def _kuairand(folder: Path | None, split: str, scratch: Path) -> Case:
    dataset = _compiled(sample_log(), scratch, None)
    periods = {"val": (dataset.validation_start, dataset.test_start), "test": (dataset.test_start, dataset.log_end)}
    start, end = periods[split]
    users, wanted = targets_between(dataset.events, start, end)
    seen = seen_before(dataset, users, np.full(len(users), start))
    targets = [np.setdiff1d(rows, struck) for rows, struck in zip(wanted, seen, strict=True)]
    return Case(dataset, start, users, seen, targets, 1000, (50, 100, 500))


def _ml1m(folder: Path | None, split: str, scratch: Path) -> Case:
    if folder is None or not (folder / "events.parquet").exists():
        raise SystemExit(
            "--folder must name a folder with MovieLens-1M as events.parquet, movies.parquet, users.parquet"
        )
    known_from = {"val": 2, "test": 1}[split]
    connection = duckdb.connect()
    # Order is by (timestamp, movie_id); times are spread so that no two likes of a user share a second.
    connection.execute(
        f"""
        CREATE TABLE likes AS
        SELECT user_id, movie_id, nth + max(timestamp - nth) OVER (PARTITION BY user_id ORDER BY nth) AS timestamp,
               total - nth AS back
        FROM (SELECT user_id, movie_id, timestamp,
                     row_number() OVER (PARTITION BY user_id ORDER BY timestamp, movie_id) AS nth,
                     count(*) OVER (PARTITION BY user_id) AS total
              FROM '{folder}/events.parquet' WHERE rating >= 4) WHERE total >= 5
        """
    )
    connection.execute(
        "COPY (SELECT user_id, movie_id AS video_id, timestamp, 1 AS watch_seconds FROM likes "
        f"WHERE back >= {known_from}) TO '{scratch}/watches.parquet'"
    )
    for name in ("users", "movies"):
        connection.execute(f"COPY (FROM '{folder}/{name}.parquet') TO '{scratch}/{name}.parquet'")
    (scratch / "log.toml").write_text(_ML1M)
    dataset = _compiled(scratch / "log.toml", scratch, SplitConfig(validation_share=0.0, test_share=0.0))
    wanted = connection.sql(f"SELECT user_id, movie_id FROM likes WHERE back = {known_from - 1} ORDER BY user_id")
    rows = wanted.fetchnumpy()
    candidates = connection.sql("SELECT DISTINCT movie_id FROM likes WHERE back >= 2").fetchnumpy()["movie_id"]
    videos = dataset.vocabularies["videos"]
    users = dataset.vocabularies["users"].rows_of(rows["user_id"].tolist())
    foreign = np.setdiff1d(np.arange(1, dataset.num_videos), videos.rows_of(candidates.tolist()))
    seen = seen_before(dataset, users, np.full(len(users), dataset.log_end))
    struck = [np.union1d(row, foreign) for row in seen]
    # A film that is no candidate counts as a miss.
    targets = [np.array([row or dataset.num_videos]) for row in videos.rows_of(rows["movie_id"].tolist())]
    return Case(dataset, dataset.log_end, users, struck, targets, 100, (10, 50, 100))


def _compiled(log_file: Path, scratch: Path, split: SplitConfig | None) -> Dataset:
    mapping, config = read_log_file(log_file)
    with read_log(mapping, config.prepare.memory_gigabytes) as log:
        compile_dataset(log, scratch / "dataset", split or config.split, config.prepare)
    return Dataset.open(scratch / "dataset")


CASES: dict[str, Callable[[Path | None, str, Path], Case]] = {"kuairand": _kuairand, "ml1m": _ml1m}

if __name__ == "__main__":
    main()
