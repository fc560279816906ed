"""One request, from a user id to twenty ranked videos: its time, where it goes, and whether the index is right.

    python benchmarks/serving.py [--bundle runs/benchmark/bundle] [--requests 300]

Ends with one JSON line. `ratio_to_network` compares the whole request with the bare ranking network over as many
candidates, the part that no system with this model can leave out.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from machine import print_result
from watchnext.retrieval.candidates import Wish
from watchnext.retrieval.index.exact import ExactIndex
from watchnext.serving.recommender import Recommender
from watchnext.serving.stages import inputs_of, request_context

K, TOP = 20, 500


def main() -> None:
    """Times requests of users spread over the log."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--bundle", type=Path, default=Path("runs/benchmark/bundle"))
    arguments.add_argument("--requests", type=int, default=300)
    options = arguments.parse_args()
    recommender = Recommender.open(options.bundle)
    bundle, dataset, generator = recommender.bundle, recommender.bundle.dataset, recommender.bundle.generator
    users = np.linspace(1, len(dataset.vocabularies["users"]) - 1, options.requests).astype(np.int64)
    ids = dataset.vocabularies["users"].ids_of(users)
    moments = np.full(len(users), dataset.log_end)
    context = request_context(dataset, users, moments, generator, bundle.features)

    requests = _timed(lambda place: recommender.recommend(ids[place], K), len(users))
    one = context.part(slice(0, 1))
    candidates = generator.candidates(one, Wish(bundle.serving.num_candidates))
    nowhere, videos = np.zeros(1, dtype=np.int64), candidates.video_row
    values = bundle.state.read(dataset.events, users[:1], moments[:1], videos)
    inputs = inputs_of(dataset.videos, one, nowhere, candidates, values, bundle.features)
    features = _timed(
        lambda place: bundle.state.read(dataset.events, users[place : place + 1], moments[:1], videos), len(users)
    )
    network = _timed(lambda place: bundle.ranker.predictions(inputs), len(users))
    gather = _timed(lambda place: generator.candidates(context.part(slice(place, place + 1)), Wish(TOP)), len(users))
    vectors = generator.network.vectors_of(context)
    found, _ = generator.index.search(vectors, TOP)
    truth, _ = ExactIndex(generator.network.video_vectors).search(vectors, TOP)
    overlap = [len(np.intersect1d(a, b)) / TOP for a, b in zip(found, truth, strict=True)]
    print_result(
        videos=dataset.num_videos - 1,
        candidates=candidates.video_row.shape[1],
        request_p50_ms=requests[0],
        request_p99_ms=requests[1],
        candidates_p50_ms=gather[0],
        features_p50_ms=features[0],
        features_p99_ms=features[1],
        network_p50_ms=network[0],
        ratio_to_network=requests[0] / network[0],
        index_recall_at_500=float(np.mean(overlap)),
    )


def _timed(ask: Callable[[int], object], count: int) -> tuple[float, float]:
    """Median and 99th percentile in milliseconds, after a warm-up."""
    ask(0)
    times = []
    for place in range(count):
        began = time.perf_counter()
        ask(place)
        times.append(1000 * (time.perf_counter() - began))
    return float(np.median(times)), float(np.quantile(times, 0.99))


if __name__ == "__main__":
    main()
