"""Recall against latency of one nearest-neighbour library, one query at a time on one thread: a peer of index.py.

    python nearest_neighbours.py LIBRARY FOLDER [--k 500] [--threads 2]

FOLDER holds `vectors.npy` (float32; row 0 is nobody and is left out), `queries.npy` (the first half to choose settings
with, the other half to report) and `right.npy` (the rows of the true best of every query). Ends with one JSON line:
seconds to build, bytes of the index as its library saves it, and the curve, in points like `CurvePoint`. With two
parameters a library is measured on a grid; the curve keeps each setting that finds more than all the faster ones.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np

WARMUP_QUERIES = 20
NEARLY_ALL, TOO_SLOW_MS, NO_GAIN = 0.998, 40.0, 0.0005
Setting = dict[str, float]
Search = Callable[[np.ndarray], np.ndarray]


class Engine(Protocol):
    """A library's index, built when made; ids count from the first vector."""

    distribution: str

    def sweeps(self, k: int) -> list[list[Setting]]:
        """Gives settings to measure: in each list, the later ones look harder."""
        ...

    def search_at(self, setting: Setting, k: int) -> Search:
        """Gives what finds the ids of the k best of one query, from now on and with this setting."""
        ...

    def save(self, folder: Path) -> None:
        """Writes the index, all of it, into an empty folder."""
        ...


@dataclass(frozen=True)
class Point:
    """What a search finds at some setting, and how long it takes: mean and 5th percentile of recall over queries."""

    effort: str
    recall: float
    recall_p5: float
    p50_ms: float
    p99_ms: float


def main() -> None:
    """Builds the index, measures it, and prints the figures."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("library", choices=list(ENGINES))
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--k", type=int, default=500)
    arguments.add_argument("--threads", type=int, default=1, help="for building; searching takes one")
    options = arguments.parse_args()
    vectors = np.load(options.folder / "vectors.npy", mmap_mode="r")[1:]
    queries = np.load(options.folder / "queries.npy")
    right = np.load(options.folder / "right.npy")[:, : options.k] - 1
    began = time.perf_counter()
    engine = ENGINES[options.library](vectors, options.threads)
    built = time.perf_counter() - began
    curve = measured(engine, queries, right)
    figures = {"library": options.library, "version": version(engine.distribution), "videos": len(vectors)}
    figures |= {"build_seconds": built, "build_threads": options.threads, "memory_bytes": saved_bytes(engine)}
    print(json.dumps(figures | {"curve": [[asdict(point) for point in pair] for pair in curve]}))


def measured(engine: Engine, queries: np.ndarray, right: np.ndarray) -> list[tuple[Point, Point]]:
    """Measures every setting on the queries to choose with, and those on the frontier on the queries to report."""
    k, half = right.shape[1], len(queries) // 2
    settings, points = [], []
    for sweep in engine.sweeps(k):
        before = 0.0
        for setting in sweep:
            one = point(setting, engine.search_at(setting, k), queries[:half], right[:half])
            print(json.dumps(asdict(one)), flush=True)
            settings.append(setting)
            points.append(one)
            if one.recall > NEARLY_ALL or one.recall < before + NO_GAIN or one.p50_ms > TOO_SLOW_MS:
                break
            before = one.recall
    return [
        (points[at], point(settings[at], engine.search_at(settings[at], k), queries[half:], right[half:]))
        for at in frontier(points)
    ]


def point(setting: Setting, search: Search, queries: np.ndarray, right: np.ndarray) -> Point:
    """Measures one setting."""
    for query in queries[:WARMUP_QUERIES]:
        search(query)
    found, seconds = [], []
    for query in queries:
        began = time.perf_counter()
        found.append(search(query))
        seconds.append(time.perf_counter() - began)
    share = np.array([np.isin(best, ids).mean() for best, ids in zip(right, found, strict=True)])
    p50, p99 = np.quantile(seconds, [0.5, 0.99]) * 1e3
    return Point(as_text(setting), float(share.mean()), float(np.quantile(share, 0.05)), float(p50), float(p99))


def frontier(points: list[Point]) -> list[int]:
    """Gives where the points are that find more than every faster one, fastest first.

    >>> frontier([Point("", 0.9, 0.8, 3.0, 4.0), Point("", 0.8, 0.7, 1.0, 2.0), Point("", 0.8, 0.7, 2.0, 2.0)])
    [1, 0]
    """
    kept: list[int] = []
    for at in sorted(range(len(points)), key=lambda at: points[at].p50_ms):
        if not kept or points[at].recall > points[kept[-1]].recall:
            kept.append(at)
    return kept


def as_text(setting: Setting) -> str:
    """Gives a setting as text, the way Faiss reads it: `nprobe=8,k_factor_rf=2`."""
    return ",".join(f"{name}={value}" for name, value in setting.items())


def saved_bytes(engine: Engine) -> int:
    """Gives the size of all that the library needs to have its index again."""
    with tempfile.TemporaryDirectory() as folder:
        engine.save(Path(folder))
        return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())


def growing(low: float, high: float, factor: float = 1.4) -> list[int]:
    """Gives whole numbers from low, each greater by the factor, up to high."""
    count = int(np.log(high / low) / np.log(factor)) + 1
    return [round(low * factor**power) for power in range(count)]


class Faiss:
    """Any kind of Faiss index, told by its description; its partitions are 4 times the square root of the vectors."""

    distribution = "faiss-cpu"

    def __init__(self, vectors: np.ndarray, threads: int, description: str) -> None:
        import faiss

        self.faiss = faiss
        self.is_graph, self.is_refined = "HNSW" in description, "Refine" in description
        self.partitions = int(4 * np.sqrt(len(vectors)))
        description = description.format(partitions=self.partitions)
        self.index = faiss.index_factory(vectors.shape[1], description, faiss.METRIC_INNER_PRODUCT)
        if self.is_graph:
            self.index.hnsw.efConstruction = 200  # as the other graphs
        faiss.omp_set_num_threads(threads)
        self.index.train(vectors[: 64 * self.partitions])
        self.index.add(vectors)
        faiss.omp_set_num_threads(1)

    def sweeps(self, k: int) -> list[list[Setting]]:
        """Grows efSearch from k, or nprobe; and for each k_factor anew where there is a refinement."""
        if self.is_graph:
            return [[{"efSearch": effort} for effort in growing(k, 16 * k)]]
        efforts = growing(8, self.partitions)
        if not self.is_refined:
            return [[{"nprobe": effort} for effort in efforts]]
        return [[{"k_factor_rf": factor, "nprobe": effort} for effort in efforts] for factor in (2, 4, 8, 12, 16)]

    def search_at(self, setting: Setting, k: int) -> Search:
        """Sets the index's own parameters."""
        self.faiss.ParameterSpace().set_index_parameters(self.index, as_text(setting))
        return lambda query: self.index.search(query[None], k)[1][0]

    def save(self, folder: Path) -> None:
        """Writes one file."""
        self.faiss.write_index(self.index, str(folder / "index"))


class ScaNN:
    """Tree, anisotropic 4-bit codes of two dimensions each, and reordering by half-precision floats (bfloat16)."""

    distribution = "scann"

    def __init__(self, vectors: np.ndarray, threads: int) -> None:
        from scann import ReorderType, scann_ops_pybind

        self.leaves = int(2 * np.sqrt(len(vectors)))
        builder = scann_ops_pybind.builder(vectors, 10, "dot_product").set_n_training_threads(threads)
        builder = builder.tree(self.leaves, 100, training_sample_size=64 * self.leaves)
        builder = builder.score_ah(2, anisotropic_quantization_threshold=0.2)
        self.searcher = builder.reorder(100, quantize=ReorderType.BFLOAT16).build()

    def sweeps(self, k: int) -> list[list[Setting]]:
        """Grows the leaves for each number of reordered ids."""
        kept = [round(factor * k) for factor in (2, 4, 8, 12, 16)]
        return [[{"reordered": count, "leaves": leaves} for leaves in growing(8, self.leaves)] for count in kept]

    def search_at(self, setting: Setting, k: int) -> Search:
        """Passes both numbers with each query."""
        reordered, leaves = setting["reordered"], setting["leaves"]
        return lambda query: self.searcher.search(query, k, reordered, leaves)[0]

    def save(self, folder: Path) -> None:
        """Writes codes, tree and vectors."""
        self.searcher.serialize(str(folder))


class HnswLib:
    """The first HNSW: a graph over whole floats."""

    distribution = "hnswlib"

    def __init__(self, vectors: np.ndarray, threads: int) -> None:
        import hnswlib

        self.index = hnswlib.Index(space="ip", dim=vectors.shape[1])
        self.index.init_index(max_elements=len(vectors), M=32, ef_construction=200, random_seed=7)
        self.index.add_items(vectors, num_threads=threads)
        self.index.set_num_threads(1)

    def sweeps(self, k: int) -> list[list[Setting]]:
        """Grows the candidates of a search from k."""
        return [[{"ef": effort} for effort in growing(k, 16 * k)]]

    def search_at(self, setting: Setting, k: int) -> Search:
        """Sets the index's own parameter."""
        self.index.set_ef(setting["ef"])
        return lambda query: self.index.knn_query(query, k)[0][0].astype(np.int64)

    def save(self, folder: Path) -> None:
        """Writes one file."""
        self.index.save_index(str(folder / "index"))


class USearch:
    """HNSW over bfloat16 (its 8-bit integers keep no norms, which an inner product needs)."""

    distribution = "usearch"

    def __init__(self, vectors: np.ndarray, threads: int) -> None:
        from usearch.index import Index

        self.index = Index(ndim=vectors.shape[1], metric="ip", dtype="bf16", connectivity=32, expansion_add=200)
        self.index.add(np.arange(len(vectors)), vectors, threads=threads)

    def sweeps(self, k: int) -> list[list[Setting]]:
        """Grows the candidates of a search from k."""
        return [[{"expansion": effort} for effort in growing(k, 16 * k)]]

    def search_at(self, setting: Setting, k: int) -> Search:
        """Sets the index's own parameter."""
        self.index.expansion_search = setting["expansion"]
        return lambda query: self.index.search(query, k, threads=1).keys.astype(np.int64)

    def save(self, folder: Path) -> None:
        """Writes one file."""
        self.index.save(str(folder / "index"))


class SVS:
    """A Vamana graph over half-precision floats.

    Its compressed vectors (LVQ) are not for every machine: the library ends the process where the processor is not
    Intel's.
    """

    distribution = "scalable-vs"

    def __init__(self, vectors: np.ndarray, threads: int) -> None:
        import svs

        parameters = svs.VamanaBuildParameters(alpha=0.95, graph_max_degree=64, window_size=200)
        self.index = svs.Vamana.build(parameters, vectors.astype(np.float16), svs.DistanceType.MIP, threads)
        self.index.num_threads = 1

    def sweeps(self, k: int) -> list[list[Setting]]:
        """Grows the candidates of a search from k."""
        return [[{"window": effort} for effort in growing(k, 16 * k)]]

    def search_at(self, setting: Setting, k: int) -> Search:
        """Sets the index's own parameter."""
        self.index.search_window_size = setting["window"]
        return lambda query: self.index.search(query, k)[0][0].astype(np.int64)

    def save(self, folder: Path) -> None:
        """Writes configuration, graph and vectors."""
        self.index.save(*(str(folder / part) for part in ("config", "graph", "data")))


ENGINES: dict[str, Callable[[np.ndarray, int], Engine]] = {
    "faiss-hnsw": lambda vectors, threads: Faiss(vectors, threads, "HNSW32,SQ8"),
    "faiss-ivf-sq8": lambda vectors, threads: Faiss(vectors, threads, "IVF{partitions},SQ8"),
    "faiss-ivf-pq": lambda vectors, threads: Faiss(vectors, threads, "IVF{partitions},PQ128x4fs,Refine(SQ8)"),
    "scann": ScaNN,
    "hnswlib": HnswLib,
    "usearch": USearch,
    "svs": SVS,
}


if __name__ == "__main__":
    main()
