"""The ranking network as it serves: 500 candidates of one user on one core, beside the training code.

    python benchmarks/ranker.py [--requests 300] [--precision auto]

A network of the default sizes as it was made, before it learns: the vocabularies of a log of a million videos, the
features of the default settings, a tenth of the values unknown. The limit is what bare products take, of the tower's
sizes, in bfloat16 where the processor has it and else in float32. `cpu` is the thread's own time: where others share
the core, only that says what the code takes, so ratios are of it. Shares are of stages that each follow a whole
request and find its caches. Ends with one JSON line.
"""

import watchnext  # noqa: F401  # isort: skip  # before PyTorch: watchnext.threads

import argparse
import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch

from features import empty_state, videos_like
from machine import print_result
from watchnext.config import RankingConfig
from watchnext.examples.quantiles import Lookup, Quantiles
from watchnext.features.inputs import RankingInputs
from watchnext.features.state import Keys
from watchnext.memory import keep_freed_memory
from watchnext.native import as_array
from watchnext.ranking.network import RankingNetwork, RankingSizes
from watchnext.ranking.products import has_bfloat16
from watchnext.ranking.runtime import Ranker
from watchnext.shapes import Array

SIZES = RankingSizes(
    num_videos=1_000_000,
    num_channels=100_000,
    num_tags=20_000,
    num_surfaces=5,
    user_categories=(3, 5, 8, 10, 12, 20, 30, 50, 50, 80, 100, 100, 120, 200, 250, 300, 400, 500, 1_000, 2_000),
    video_categories=(50, 8),
)
USER_NUMBERS, VIDEO_NUMBERS, SOURCES = 2, 3, 6
CANDIDATES, TAGS, LAST_WATCHES = 500, 5, 10
DISTINCT, WARM_UP, COMPARED = 10, 20, 100


def main() -> None:
    """Makes the network, times it in all ways, and prints the figures."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--requests", type=int, default=300)
    arguments.add_argument("--precision", choices=("auto", "bfloat16", "int8", "float32"), default="auto")
    options = arguments.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    random = np.random.default_rng(1)
    num_query_values, num_values = num_features(random)
    network = network_like(random, num_query_values, num_values)
    ranker = Ranker(network, options.precision)
    # No more than the caches hold: what a request asks for was computed just before.
    requests = [inputs_like(random, num_query_values, num_values) for _ in range(DISTINCT)]

    wall, cpu = timed(ranker.predictions, requests, options.requests)
    _, training = timed(network.predictions, requests, COMPARED)
    width = sum(rows.shape[1] for rows in ranker.candidate_rows(requests[0]))
    _, products = timed(products_of(network, width), requests, COMPARED)
    p50, p99, cpu_p50, products_p50 = (
        float(np.quantile(seconds, level) * 1e3)
        for seconds, level in ((wall, 0.5), (wall, 0.99), (cpu, 0.5), (products, 0.5))
    )
    errors = np.concatenate([relative_errors(ranker, inputs) for inputs in requests])
    print_result(
        precision=ranker.precision,
        candidates=CANDIDATES,
        continuous=num_query_values + num_values,
        inputs=ranker.num_inputs,
        p50_ms=p50,
        p99_ms=p99,
        cpu_p50_ms=cpu_p50,
        cpu_least_ms=float(cpu.min() * 1e3),
        products_cpu_p50_ms=products_p50,
        ratio_to_products=cpu_p50 / products_p50,
        ratio_training_code=float(np.median(training) * 1e3 / cpu_p50),
        mean_relative_error=float(errors.mean()),
        max_relative_error=float(errors.max()),
        **shares(ranker, requests),
    )


def num_features(random: np.random.Generator) -> tuple[int, int]:
    """Gives how many continuous features a request and a candidate have by default."""
    state = empty_state(Keys.of(videos_like(random, 1000), ["category", "language"]))
    num_of_candidates = len(state.names) + VIDEO_NUMBERS + 3 * SOURCES + 2
    return len(state.query_names) + USER_NUMBERS, num_of_candidates


def network_like(random: np.random.Generator, num_query_values: int, num_values: int) -> RankingNetwork:
    """Gives a network of the default settings."""
    values = values_like(random, 20_000, num_query_values + num_values)
    quantiles = Quantiles.fit(values[:, :num_query_values]), Quantiles.fit(values[:, num_query_values:])
    return RankingNetwork(SIZES, RankingConfig(), *quantiles, torch.Generator().manual_seed(1)).eval()


def inputs_like(random: np.random.Generator, num_query_values: int, num_values: int) -> RankingInputs:
    """Gives a request's inputs, its features column by column as they are put together."""
    values = np.asfortranarray(values_like(random, CANDIDATES, num_values))

    def ids(sizes: tuple[int, ...], *shape: int) -> Array:
        return np.stack([random.integers(0, size, shape) for size in sizes], axis=-1)

    return RankingInputs(
        query_ids=ids(SIZES.query_ids, 1),
        last_watched=random.integers(1, SIZES.num_videos, (1, LAST_WATCHES)),
        query_values=values_like(random, 1, num_query_values),
        video_row=random.integers(1, SIZES.num_videos, (1, CANDIDATES)),
        channel_row=random.integers(1, SIZES.num_channels, (1, CANDIDATES)),
        video_ids=ids(SIZES.video_categories, 1, CANDIDATES),
        tag_rows=random.integers(0, SIZES.num_tags, (1, CANDIDATES, TAGS)),
        values=values[None],
        duration_seconds=random.exponential(60.0, (1, CANDIDATES)).astype(np.float32),
    )


def values_like(random: np.random.Generator, rows: int, features: int) -> Array:
    """Gives skewed values, a tenth of them unknown."""
    values = random.lognormal(size=(rows, features)).astype(np.float32)
    values[random.random(values.shape) < 0.1] = np.nan
    return values


def products_of(network: RankingNetwork, width: int) -> Callable[[RankingInputs], object]:
    """Gives what multiplies rows of the tower's widths and does nothing else."""
    widths = (width, *network.config.tower)
    dtype = torch.bfloat16 if has_bfloat16() else torch.float32
    weights = [torch.randn(*sizes).to(dtype) for sizes in pairwise(widths)]
    rows = [torch.rand(CANDIDATES, size).to(dtype) for size in widths[:-1]]
    return lambda _: [torch.mm(*factors) for factors in zip(rows, weights, strict=True)]


def relative_errors(ranker: Ranker, inputs: RankingInputs) -> Array:
    """Gives by what share each expected watch time differs from the training code's."""
    expected = ranker.network.predictions(inputs).expected_watch_seconds
    errors: Array = np.abs(ranker.predictions(inputs).expected_watch_seconds / expected - 1.0)
    return errors


def shares(ranker: Ranker, requests: list[RankingInputs]) -> dict[str, float]:
    """Gives what share of a request its stages take."""
    lookup, meaning = Lookup.of(ranker.network.quantiles, np.float32, exact=False), ranker.network.meaning
    outputs = torch.zeros(1, CANDIDATES, ranker.network.outputs.out_features)
    target = as_array(ranker.candidate_rows(requests[0])[-1])

    def look_up(inputs: RankingInputs) -> None:
        lookup.write(inputs.values[0], target, 0, powers=True)

    stages = (ranker.predictions, look_up, ranker.candidate_rows, ranker.query_rows, lambda one: meaning(outputs, one))
    whole, values, candidates, query, said = (
        float(np.median(timed(stage, requests, COMPARED, after=ranker.predictions)[1])) for stage in stages
    )
    parts = dict(values=values, embeddings=candidates - values, query=query, meaning=said)
    parts["products"] = whole - sum(parts.values())
    return {f"share_{name}": seconds / whole for name, seconds in parts.items()}


@torch.inference_mode()
def timed(
    answer: Callable[[RankingInputs], object],
    requests: list[RankingInputs],
    count: int,
    after: Callable[[RankingInputs], object] | None = None,
) -> tuple[Array, Array]:
    """Gives seconds on the wall and of the thread for each request, `after` answered it first if given."""
    seconds = []
    for place in range(-WARM_UP, count):
        inputs = requests[place % len(requests)]
        if after is not None:
            after(inputs)
        began, worked = time.perf_counter(), time.thread_time()
        answer(inputs)
        seconds.append((time.perf_counter() - began, time.thread_time() - worked))
    wall, cpu = np.array(seconds[WARM_UP:]).T
    return wall, cpu


if __name__ == "__main__":
    main()
