"""New uploads: recall on videos that training never saw, by where their vectors come from.

    python benchmarks/uploads.py [--folder runs/uploads] [--seeds 1 2 3]

The default made-up world, a tenth of its videos (by a hash of the id) without any event before the test period. What
users complete of them in the test period is to be found among all videos. Free vectors know nothing of them, popularity
neither; the video tower knows their channel, category, tags, language, duration and title. Ends with one JSON line.
"""

import argparse
import dataclasses
import shutil
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from machine import print_result
from watchnext.config import RetrievalConfig
from watchnext.evaluation.metrics import recall
from watchnext.events.compiling import compile_dataset
from watchnext.events.dataset import Dataset
from watchnext.events.log import read_log
from watchnext.events.mapping import read_log_file
from watchnext.examples.contexts import context_as_of, seen_before
from watchnext.examples.next_watch import targets_between
from watchnext.pipeline.fit_retrieval import fit_once
from watchnext.retrieval.index.exact import ExactIndex
from watchnext.shapes import Array, Int, RowLists
from watchnext.simulation.log import write_log
from watchnext.simulation.settings import WorldConfig

K = 100
_PASSES = 5


def main() -> None:
    """Learns from each world three times and prints recall on old and on new videos."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--folder", type=Path, default=Path("runs/uploads"))
    arguments.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options = arguments.parse_args()
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in options.seeds:
        dataset, config = _prepared(options.folder, seed)
        for name, recalls in _recalls(dataset, config, options.folder / "checkpoints").items():
            found.setdefault(name, []).append(recalls)
    table = Table("vectors", f"recall@{K}, new uploads", f"recall@{K}, known videos")
    for name, pairs in found.items():
        table.add_row(name, *(f"{value:.3f}" for value in np.mean(pairs, axis=0)))
    Console().print(table)
    print_result(
        k=K,
        new_uploads={name: [round(new, 4) for new, _ in recalls] for name, recalls in found.items()},
        known_videos={name: [round(known, 4) for _, known in recalls] for name, recalls in found.items()},
    )


def _prepared(folder: Path, seed: int) -> tuple[Dataset, RetrievalConfig]:
    log = folder / f"log-{seed}"
    write_log(WorldConfig(seed=seed), log, 2)
    mapping, config = read_log_file(log / "log.toml")
    with read_log(mapping, config.prepare.memory_gigabytes) as whole:
        compile_dataset(whole, folder / "whole", config.split, config.prepare)
    moment = Dataset.open(folder / "whole").test_start
    hidden = f"NOT (hash(video_id) % 10 = 0 AND timestamp < {moment})"
    sources = tuple(
        dataclasses.replace(source, where=hidden) if source.table == "impressions" else source
        for source in mapping.sources
    )
    split = dataclasses.replace(config.split, test_start=moment)
    prepare = dataclasses.replace(config.prepare, unwatched_videos=True)
    with read_log(dataclasses.replace(mapping, sources=sources), config.prepare.memory_gigabytes) as log_of_old:
        compile_dataset(log_of_old, folder / "dataset", split, prepare)
    return Dataset.open(folder / "dataset"), config.retrieval


def _recalls(dataset: Dataset, config: RetrievalConfig, checkpoints: Path) -> dict[str, tuple[float, float]]:
    users, targets = targets_between(dataset.events, dataset.test_start, dataset.log_end)
    moments = np.full(len(users), dataset.test_start)
    seen = seen_before(dataset, users, moments)
    context = context_as_of(dataset, users, moments, config.history_length, config.num_search_tokens)
    known = np.asarray(dataset.videos.num_completed) > 0
    popular = np.argsort(-np.asarray(dataset.videos.num_completed), kind="stable")[: K + 1]
    popular = popular[popular > 0][:K]
    shutil.rmtree(checkpoints, ignore_errors=True)
    found = {"popularity": _recall_of(np.tile(popular, (len(users), 1)), targets, seen, known)}
    for kind in ("free", "tower", "both"):
        changed = dataclasses.replace(config, videos=kind)
        network, _ = fit_once(dataset, changed, dataset.test_start, checkpoints / kind, _PASSES)
        model = network.trained()
        lists, _ = ExactIndex(model.video_vectors).search(model.vectors_of(context), K, seen)
        found[kind] = _recall_of(lists, targets, seen, known)
    return found


def _recall_of(lists: Int[Array, "users k"], targets: RowLists, seen: RowLists, known: Array) -> tuple[float, float]:
    """Recall on the targets that training never saw, and on the others."""
    unseen = [np.setdiff1d(rows, struck) for rows, struck in zip(targets, seen, strict=True)]
    new = [rows[~known[rows]] for rows in unseen]
    old = [rows[known[rows]] for rows in unseen]
    return float(np.nanmean(recall(lists, new, K))), float(np.nanmean(recall(lists, old, K)))


if __name__ == "__main__":
    main()
