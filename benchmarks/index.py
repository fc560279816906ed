"""The video index beside libraries: recall against latency, build time and memory, one query at a time on one core.

    python benchmarks/index.py [--videos 1_000_000] [--target-recall 0.98] [--k 500] [--libraries ivf-sq8 hnsw]

Vectors are made up: 2,000 Zipf-popular topics (three tenths of the variance), noise with a power-law spectrum
(participation ratio 54 at 256 floats), log-normal norms (sigma 0.3). Queries are mixtures of one to five topics: 300
to choose settings with, 300 others to report. Every engine is measured at ever larger settings; what counts is the
median time at the first one that reaches the target on the queries to choose with. Building may use all cores.
`--picture FILE` draws the curves. Ends with one JSON line.
"""

import watchnext  # noqa: F401  # isort: skip  # before PyTorch: watchnext.threads

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch

from machine import print_result
from watchnext.retrieval.index.cell_index import CellIndex
from watchnext.retrieval.index.exact import ExactIndex
from watchnext.retrieval.index.protocol import CurvePoint
from watchnext.retrieval.index.tuning import recalls
from watchnext.shapes import Array

DIM, TOPICS, QUERIES = 256, 2_000, 300
TOPIC_SHARE, NORM_SIGMA, PARTICIPATION_RATIO = 0.3, 0.3, 54.0
ROWS_AT_ONCE = 200_000
Search = Callable[[Array], Array]


def main() -> None:
    """Makes the vectors, measures every engine, and prints the figures."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--videos", type=int, default=1_000_000)
    arguments.add_argument("--target-recall", type=float, default=0.98)
    arguments.add_argument("--k", type=int, default=500)
    arguments.add_argument("--libraries", nargs="*", default=list(LIBRARIES), choices=list(LIBRARIES))
    arguments.add_argument("--picture", type=Path)
    options = arguments.parse_args()
    world = World(np.random.default_rng(7))
    vectors, queries = world.videos(options.videos), world.queries(2 * QUERIES)
    right, _ = ExactIndex(vectors).search(queries, options.k)
    engines = {"watchnext": ours, **{name: LIBRARIES[name] for name in options.libraries}}
    found = {}
    for name, measure in engines.items():
        found[name] = measure(vectors, queries, right)
        told = at_target(found[name], options.target_recall)
        print(json.dumps({"engine": name, **{key: told[key] for key in told if key != "curve"}}), flush=True)
    if options.picture:
        draw(found, options.picture)
    us = at_target(found.pop("watchnext"), options.target_recall)
    reached = {name: at_target(one, options.target_recall) for name, one in found.items()}
    reached = {name: one for name, one in reached.items() if one["tuning_recall"] >= options.target_recall}
    best = min(reached, key=lambda name: reached[name]["p50_ms"], default=None)
    figures = {"videos": options.videos, **{name: us[name] for name in us if name != "curve"}}
    figures |= {"best_library": best, "ratio_to_best_library": reached[best]["p50_ms"] / us["p50_ms"] if best else None}
    print_result(**figures)


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

    def videos(self, count: int) -> Array:
        """Gives the vectors of the videos; row 0 is nobody."""
        vectors = np.empty((count + 1, DIM), dtype=np.float32)
        for start in range(0, count + 1, ROWS_AT_ONCE):
            part = vectors[start : start + ROWS_AT_ONCE]
            noise = self.random.standard_normal(part.shape, dtype=np.float32) @ self.noise
            topic = self.topics[self.random.choice(TOPICS, len(part), p=self.popularity)]
            part[:] = topic + np.float32(np.sqrt(1.0 - TOPIC_SHARE)) * noise
            norms = np.exp(NORM_SIGMA * self.random.standard_normal(len(part)))
            part *= (norms / np.linalg.norm(part, axis=1))[:, None].astype(np.float32)
        vectors[0] = 0.0
        return vectors

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


def ours(vectors: Array, queries: Array, right: Array) -> dict[str, Any]:
    """Measures the cells."""
    began = time.perf_counter()
    index = CellIndex.build(vectors)
    built = time.perf_counter() - began

    def search_at(effort: int) -> Search:
        at = index.with_effort(effort)
        return lambda query: at.search(query, right.shape[1])[0]

    return curves(index.efforts(), search_at, queries, right) | {
        "build_seconds": built,
        "memory_bytes": index.num_bytes,
    }


def faiss_index(description: str, setting: str, settings: list[int]) -> Callable[[Array, Array, Array], dict[str, Any]]:
    """Gives what measures one kind of Faiss index at ever larger values of its setting."""

    def measure(vectors: Array, queries: Array, right: Array) -> dict[str, Any]:
        faiss.omp_set_num_threads(torch.get_num_threads())
        began = time.perf_counter()
        name = description.format(partitions=int(4 * np.sqrt(len(vectors))))
        index = faiss.index_factory(DIM, name, faiss.METRIC_INNER_PRODUCT)
        index.train(vectors[1 : 1 + 64 * int(4 * np.sqrt(len(vectors)))])
        index.add(vectors[1:])
        built = time.perf_counter() - began
        faiss.omp_set_num_threads(1)

        def search_at(value: int) -> Search:
            def search(query: Array) -> Array:
                rows: Array = index.search(query, right.shape[1])[1] + 1
                return rows

            faiss.ParameterSpace().set_index_parameter(index, setting, value)
            return search

        found = curves(settings, search_at, queries, right)
        return found | {"build_seconds": built, "memory_bytes": len(faiss.serialize_index(index))}

    return measure


PROBES = [8, 16, 32, 64, 128, 256, 512, 1024, 2048]
LIBRARIES = {
    "ivf-sq8": faiss_index("IVF{partitions},SQ8", "nprobe", PROBES),
    "hnsw": faiss_index("HNSW32,SQ8", "efSearch", [500, 700, 1000, 1400, 2000, 2800, 4000]),
}


def curves(
    settings: list[int], search_at: Callable[[int], Search], queries: Array, right: Array
) -> dict[str, list[tuple[CurvePoint, CurvePoint]]]:
    """Measures each setting on the queries to choose with and on those to report, until nearly all is found."""
    curve = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for setting in settings:
        search = search_at(setting)
        chosen_by = point(setting, search, queries[:QUERIES], right[:QUERIES])
        curve.append((chosen_by, point(setting, search, queries[QUERIES:], right[QUERIES:])))
        if curve[-1][0].recall > 0.998:
            break
    torch.set_num_threads(threads)
    return {"curve": curve}


def point(setting: int, search: Search, queries: Array, right: Array) -> CurvePoint:
    """Measures one setting."""
    for query in queries[:20]:
        search(query[None])
    rows, seconds = [], []
    for query in queries:
        began = time.perf_counter()
        rows.append(search(query[None])[0])
        seconds.append(time.perf_counter() - began)
    share = recalls(np.array(rows), right)
    p50, p99 = np.quantile(seconds, [0.5, 0.99]) * 1e3
    return CurvePoint(setting, float(share.mean()), float(np.quantile(share, 0.05)), float(p50), float(p99))


def at_target(measured: dict[str, Any], target: float) -> dict[str, Any]:
    """Gives what was reported at the first setting that reaches the target, or at the last."""
    chosen, reported = next(
        (pair for pair in measured["curve"] if pair[0].recall >= target),
        measured["curve"][-1],
    )
    return {**measured, **asdict(reported), "tuning_recall": chosen.recall}


def draw(found: dict[str, Any], file: Path) -> None:
    """Draws recall against latency."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.4), dpi=110, layout="constrained")
    axes = figure.subplots()
    for name, measured in found.items():
        points = [pair[1] for pair in measured["curve"]]
        axes.plot([one.p50_ms for one in points], [one.recall for one in points], marker="o", label=name)
    axes.set(xscale="log", xlabel="median milliseconds of a search", ylabel="recall", ylim=(0.7, 1.0))
    axes.legend(frameon=False)
    figure.savefig(file)


if __name__ == "__main__":
    main()
