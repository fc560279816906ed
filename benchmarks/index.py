"""The video index beside libraries: recall against latency, build time and memory, one query at a time on one core.

    python benchmarks/index.py [--videos 1_000_000 | --run RUN] [--k 500] [--libraries scann hnswlib ...]

Vectors are made up: 2,000 Zipf-popular topics (three tenths of the variance), noise with a power-law spectrum
(participation ratio 54 at 256 floats), log-normal norms (sigma 0.3). Queries are mixtures of one to five topics. With
`--run` both come from the retrieval network of a run: its videos, and users as of the beginning of the test period;
with `--learn LOG.toml` too, that network is trained first, from the run's dataset alone and without being kept: ten
million videos then need the memory of training only, and little disk.

300 queries are to choose settings with, 300 others to report. Every engine is measured at ever larger settings; what
counts is the median time at the first one that reaches the target (mean recall, and its 5th percentile over queries) on
the queries to choose with. Building may use all cores. Ours is also measured at 100,000 videos and each ten times as
many, and where only a share of the videos is allowed. Libraries run in `PEERS/index` (`make bench-index` makes it), one
after the other. `--picture FILE` draws the curves. Ends with one JSON line.
"""

import watchnext  # noqa: F401  # isort: skip  # before PyTorch: watchnext.threads

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from machine import print_result
from watchnext.artifacts import open_artifact
from watchnext.config import RetrievalConfig
from watchnext.events.dataset import Dataset
from watchnext.events.mapping import read_log_file
from watchnext.examples.contexts import UserContext, context_as_of
from watchnext.pipeline.fit_retrieval import fit_once
from watchnext.retrieval.index.cell_index import CellIndex
from watchnext.retrieval.index.exact import ExactIndex
from watchnext.retrieval.index.protocol import CurvePoint
from watchnext.retrieval.index.tuning import recalls
from watchnext.retrieval.saved import open_model
from watchnext.shapes import Array

DIM, TOPICS, QUERIES = 256, 2_000, 300
TOPIC_SHARE, NORM_SIGMA, PARTICIPATION_RATIO = 0.3, 0.3, 54.0
ROWS_AT_ONCE = 200_000
NEARLY_ALL = 0.998
ALLOWED_SHARES = (0.5, 0.1, 0.01)
LIBRARIES = ("faiss-ivf-sq8", "faiss-ivf-pq", "faiss-hnsw", "scann", "hnswlib", "usearch", "svs")
Target = tuple[float, float]
Curve = list[tuple[CurvePoint, CurvePoint]]


def main() -> None:
    """Makes the vectors, measures every engine, and prints the figures."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--videos", type=int, default=1_000_000)
    arguments.add_argument("--run", type=Path, help="vectors of this run's network instead")
    arguments.add_argument("--learn", type=Path, metavar="LOG.toml", help="with --run: train by these settings first")
    arguments.add_argument("--target-recall", type=float, default=0.98)
    arguments.add_argument("--target-recall-p5", type=float, default=0.93)
    arguments.add_argument("--k", type=int, default=500)
    arguments.add_argument("--libraries", nargs="*", default=LIBRARIES, choices=LIBRARIES)
    arguments.add_argument("--peers", type=Path, default=Path(".peers"))
    arguments.add_argument("--picture", type=Path)
    options = arguments.parse_args()
    target = (options.target_recall, options.target_recall_p5)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.run:
            write_vectors_of(options.run, options.learn, folder)
        else:
            World(np.random.default_rng(7)).write_vectors(folder, options.videos)
        measured = {"watchnext": measured_at_all_sizes(folder, options.k, target)}
        measured |= measured_libraries(options.libraries, options.peers / "index", folder, target)
    if options.picture:
        draw({name: one["curve"] for name, one in measured.items()}, options.picture)
    figures = told("watchnext", measured.pop("watchnext"), target)
    del figures["engine"]
    points = {name: at_target(one["curve"], target) for name, one in measured.items()}
    reached = {name: reported.p50_ms for name, (chosen, reported) in points.items() if enough(chosen, target)}
    best = min(reached, key=lambda name: reached[name], default=None)
    print_result(
        **figures, best_library=best, ratio_to_best_library=reached[best] / figures["p50_ms"] if best else None
    )


class World:
    """Topics and the noise around them."""

    def __init__(self, random: np.random.Generator) -> None:
        scale = np.sqrt(spectrum(DIM, PARTICIPATION_RATIO))
        turn = np.linalg.qr(random.normal(size=(DIM, DIM)))[0]
        self.random = random
        self.noise = (scale[:, None] * turn).astype(np.float32)
        self.topics = (random.normal(size=(TOPICS, DIM)) @ self.noise * np.sqrt(TOPIC_SHARE)).astype(np.float32)
        self.popularity = 1.0 / np.arange(1, TOPICS + 1)
        self.popularity /= self.popularity.sum()

    def write_vectors(self, folder: Path, count: int) -> None:
        """Writes those of videos, row 0 nobody, and those of users."""
        vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (count + 1, DIM))
        for start in range(0, count + 1, ROWS_AT_ONCE):
            part = vectors[start : start + ROWS_AT_ONCE]
            noise = self.random.standard_normal(part.shape, dtype=np.float32) @ self.noise
            topic = self.topics[self.random.choice(TOPICS, len(part), p=self.popularity)]
            part[:] = topic + np.float32(np.sqrt(1.0 - TOPIC_SHARE)) * noise
            norms = np.exp(NORM_SIGMA * self.random.standard_normal(len(part)))
            part *= (norms / np.linalg.norm(part, axis=1))[:, None].astype(np.float32)
        vectors[0] = 0.0
        vectors.flush()
        np.save(folder / "queries.npy", self.queries(2 * QUERIES))

    def queries(self, count: int) -> Array:
        """Gives users who like one to five topics."""
        users = np.empty((count, DIM), dtype=np.float32)
        for user in range(count):
            liked = self.random.choice(TOPICS, self.random.integers(1, 6), p=self.popularity, replace=False)
            users[user] = self.random.dirichlet(np.ones(len(liked))) @ self.topics[liked]
        units: Array = users / np.linalg.norm(users, axis=1, keepdims=True)
        return units


def spectrum(dim: int, participation_ratio: float) -> Array:
    """Gives variances i ** -a that sum to 1, with the participation ratio 1 / sum of squares."""
    low, high = 0.0, 3.0
    for _ in range(60):
        power = (low + high) / 2
        variances: Array = np.arange(1, dim + 1.0) ** -power
        variances /= variances.sum()
        low, high = (power, high) if 1.0 / (variances**2).sum() > participation_ratio else (low, power)
    return variances


def write_vectors_of(run: Path, log_file: Path | None, folder: Path) -> None:
    """Writes the vectors of a run's videos, and of some of its users."""
    dataset = Dataset.open(run / "dataset", verify=False)
    offsets, moment = dataset.events.segments.offsets, dataset.test_start
    everyone = np.arange(1, len(offsets) - 1)
    known = everyone[dataset.events.segments.ends_before(everyone, np.full(len(everyone), moment)) > offsets[1:-1]]
    users = np.random.default_rng(7).choice(known, 2 * QUERIES, replace=False)

    def context(config: RetrievalConfig) -> UserContext:
        moments = np.full(len(users), moment)
        return context_as_of(dataset, users, moments, config.history_length, config.num_search_tokens)

    if log_file is None:
        model = open_model(open_artifact(run / "retrieval", "retrieval", verify=False), dataset.videos)
        np.save(folder / "vectors.npy", model.video_vectors)
        np.save(folder / "queries.npy", model.vectors_of(context(model.config)))
        return
    config = read_log_file(log_file)[1].retrieval
    network, _ = fit_once(dataset, config, moment, folder / "checkpoints", config.max_epochs)
    shutil.rmtree(folder / "checkpoints")
    network.eval()
    np.save(folder / "queries.npy", network.users.vectors_of(context(config)))
    with torch.inference_mode():
        shape = (dataset.num_videos, config.tower[-1])
        vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, shape)
        for start in range(0, len(vectors), ROWS_AT_ONCE):
            rows = torch.arange(start, min(start + ROWS_AT_ONCE, len(vectors)))
            vectors[start : start + len(rows)] = network.videos(rows).float().numpy()
        vectors[0] = 0.0
        vectors.flush()


def measured_at_all_sizes(folder: Path, k: int, target: Target) -> dict[str, Any]:
    """Measures ours at ever more of the videos, at last at all of them and under filters."""
    vectors, queries = np.load(folder / "vectors.npy", mmap_mode="c"), np.load(folder / "queries.npy")
    everyone = len(vectors) - 1
    for videos in sorted({everyone, *(10**power for power in range(5, 9) if 10**power < everyone)}):
        part = vectors[: videos + 1]
        began = time.perf_counter()
        right, _ = ExactIndex(part).search(queries, k)
        exact_ms = 1e3 * (time.perf_counter() - began) / len(queries)
        figures, index = ours(part, queries, right)
        print(json.dumps({**told("watchnext", figures, target), "exact_batch_ms_a_query": exact_ms}), flush=True)
    np.save(folder / "right.npy", right)
    chosen = index.with_effort(at_target(figures["curve"], target)[1].effort)
    for share in ALLOWED_SHARES:
        print(json.dumps({"allowed": share, **asdict(where_allowed(chosen, queries, k, share))}), flush=True)
    return figures


def ours(vectors: Array, queries: Array, right: Array) -> tuple[dict[str, Any], CellIndex]:
    """Builds and measures the cells."""
    began = time.perf_counter()
    index = CellIndex.build(vectors)
    figures: dict[str, Any] = {"videos": len(vectors) - 1, "build_seconds": time.perf_counter() - began}
    figures["memory_bytes"] = index.num_bytes
    curve: Curve = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for effort in index.efforts():
        at = index.with_effort(effort)
        curve.append((point(at, queries[:QUERIES], right[:QUERIES]), point(at, queries[QUERIES:], right[QUERIES:])))
        if curve[-1][0].recall > NEARLY_ALL:
            break
    torch.set_num_threads(threads)
    return figures | {"curve": curve}, index


def where_allowed(index: CellIndex, queries: Array, k: int, share: float) -> CurvePoint:
    """Measures queries that may find a random share of the videos only."""
    allowed = np.random.default_rng(1).random(len(index.vectors)) < share
    right, _ = ExactIndex(index.vectors).search(queries[QUERIES:], k, allowed=allowed)
    return point(index, queries[QUERIES:], right, allowed)


def measured_libraries(names: list[str], environment: Path, folder: Path, target: Target) -> dict[str, dict[str, Any]]:
    """Runs each library in its own process."""
    python, found = environment / "bin" / "python", {}
    if names and not python.exists():
        print(f"no libraries: there is no {python}; make {environment.parent}/.index installs them")
        return {}
    script = Path(__file__).parent / "peers" / "nearest_neighbours.py"
    for name in names:
        command = [str(python), str(script), name, str(folder), "--threads", str(torch.get_num_threads())]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        figures = json.loads(output.splitlines()[-1])
        figures["curve"] = [tuple(CurvePoint(**one) for one in pair) for pair in figures["curve"]]
        found[name] = figures
        print(json.dumps(told(name, figures, target)), flush=True)
    return found


def point(index: CellIndex, queries: Array, right: Array, allowed: Array | None = None) -> CurvePoint:
    """Measures one setting."""
    k = right.shape[1]
    for query in queries[:20]:
        index.search(query[None], k, allowed=allowed)
    rows, seconds = [], []
    for query in queries:
        began = time.perf_counter()
        rows.append(index.search(query[None], k, allowed=allowed)[0][0])
        seconds.append(time.perf_counter() - began)
    share = recalls(np.array(rows), right)
    p50, p99 = np.quantile(seconds, [0.5, 0.99]) * 1e3
    return CurvePoint(index.effort, float(share.mean()), float(np.quantile(share, 0.05)), float(p50), float(p99))


def enough(measured: CurvePoint, target: Target) -> bool:
    """Says whether the target is reached."""
    return measured.recall >= target[0] and measured.recall_p5 >= target[1]


def at_target(curve: Curve, target: Target) -> tuple[CurvePoint, CurvePoint]:
    """Gives the first setting that reaches the target on the queries to choose with, or else the hardest one."""
    return next((pair for pair in curve if enough(pair[0], target)), curve[-1])


def told(name: str, measured: dict[str, Any], target: Target) -> dict[str, Any]:
    """Gives what is printed of one engine."""
    figures = {key: value for key, value in measured.items() if key != "curve"}
    return {"engine": name, **figures, **asdict(at_target(measured["curve"], target)[1])}


def draw(curves: dict[str, Curve], file: Path) -> None:
    """Draws recall against latency."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.4), dpi=110, layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        points = sorted((pair[1].p50_ms, pair[1].recall) for pair in curve)
        axes.plot([ms for ms, _ in points], [recall for _, recall in points], marker="o", markersize=3, label=name)
    axes.set(xscale="log", xlabel="median milliseconds of a search", ylabel="recall", ylim=(0.7, 1.0))
    axes.legend(frameon=False)
    figure.savefig(file)


if __name__ == "__main__":
    main()
