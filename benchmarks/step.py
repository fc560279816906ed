"""The training step of candidate generation at full size: examples a second, share of the machine's limit, memory.

    python benchmarks/step.py [--videos 1_000_000 10_000_000] [--peers .peers] [--mapped FOLDER]

The paper's tower (1024, 512, 256), bags of 50 watches and 50 search tokens, 256 floats everywhere, batches of 4096,
5,000 shared negatives by watch count, tables in bfloat16, example age. Ids are drawn by p(rank) ~ 1/(rank + 50), as the
peers' scripts do. A step is everything that training does: contexts from the mapped log (made in a thread while the
last step runs), negatives, loss, gradients, both optimizers. The limit is a large bfloat16 matrix product on the same
threads, times the products that the step cannot do without.

With `--mapped` the tables are files of a folder made in FOLDER: for sizes that the memory does not hold.

Each peer is run in the same minutes where `--peers` has an environment for it (`make bench-peers` makes them). Ends
with one JSON line.
"""

import watchnext  # noqa: F401  # isort: skip  # before PyTorch: watchnext.threads

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from machine import peak_memory_bytes, print_result
from watchnext.artifacts import Artifact
from watchnext.config import RetrievalConfig
from watchnext.events.dataset import Dataset, SearchTokens, Segments, Timelines, UserEvents, UserTable, VideoTable
from watchnext.examples.next_watch import NextWatchExamples, RetrievalBatch
from watchnext.examples.quantiles import Quantiles
from watchnext.layers.embedding import TableStorage
from watchnext.memory import keep_freed_memory
from watchnext.retrieval.network import RetrievalNetwork
from watchnext.retrieval.sampling import SampledVideos, sampler_for
from watchnext.retrieval.sizes import RetrievalSizes
from watchnext.shapes import Array
from watchnext.training.learner import Learner, Schedule
from watchnext.training.loop import ahead

TOKENS = 1_000_000
USERS, EVENTS_PER_USER = 100_000, 100
CONFIG = RetrievalConfig(batch_size=4096, table_type="bfloat16", examples_per_user=50)
PEERS = {
    "tensorflow_recommenders": "tf",
    "keras_rs": "tf",
    "librecommender": "librec",
    "torch_rechub": "rechub",
}
OPTIONS = {"keras_rs": ["--backend", "tensorflow"], "torch_rechub": ["--tables", "sparse_adagrad"]}


def main() -> None:
    """Times our step at each size, then the peers', and prints the figures."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--videos", type=int, nargs="*", default=[1_000_000, 10_000_000])
    arguments.add_argument("--steps", type=int, default=40)
    arguments.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments.add_argument("--peers", type=Path, default=Path(".peers"))
    arguments.add_argument("--mapped", type=Path, help="where the files of mapped tables are to lie for a while")
    arguments.add_argument("--one", type=int, help="one size, in this process: what the others start")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    if options.one:
        with tempfile.TemporaryDirectory(dir=options.mapped) as folder:
            print(json.dumps(measured(options.one, options.steps, Path(folder) if options.mapped else None)))
        return
    figures: dict[str, Any] = {}
    for videos in options.videos:
        command = ["python", __file__, "--one", str(videos), "--steps", str(options.steps)]
        command += ["--threads", str(options.threads)]
        ours = _json_of([*command, "--mapped", str(options.mapped)] if options.mapped else command)
        print(json.dumps({"videos": videos, **ours}))
        name = f"{videos // 1_000_000}m"
        figures[f"examples_per_second_{name}"] = ours["examples_per_second"]
        figures[f"peak_memory_bytes_{name}"] = ours["peak_memory_bytes"]
        figures.setdefault("share_of_matrix_limit", ours["share_of_matrix_limit"])
        figures.setdefault("matrix_limit_flops", ours["matrix_limit_flops"])
    peers = peers_of(options.peers, options.threads)
    if peers:
        best = max(peers, key=lambda name: peers[name])
        figures |= {"peers": peers, "best_peer": best}
        figures["ratio_to_best_peer"] = figures["examples_per_second_1m"] / peers[best]
    print_result(**figures)


def measured(videos: int, steps: int, folder: Path | None) -> dict[str, float]:
    """Gives the figures of one size."""
    keep_freed_memory()
    dataset = made_up(videos)
    examples = NextWatchExamples(dataset, CONFIG, dataset.log_end)
    sizes = RetrievalSizes(videos, TOKENS, 1, 1, 1, (), (), 0, 0, False, 30.0)
    nothing = Quantiles(np.zeros((0, 2)), np.zeros((0, 2)))
    storage = TableStorage(torch.bfloat16, folder)
    network = RetrievalNetwork(
        sizes, CONFIG, nothing, nothing, dataset.videos, torch.Generator().manual_seed(1), storage
    ).train()
    sampler = sampler_for(CONFIG, np.asarray(dataset.videos.num_completed), np.zeros(videos), len(examples))

    def batches() -> Iterator[tuple[RetrievalBatch, SampledVideos]]:
        for number, batch in enumerate(examples.batches(np.random.default_rng(1), 0)):
            yield batch, sampler.sample(np.random.default_rng([1, number]), batch.target_row.numpy())

    learner = Learner(network, Schedule(1, 1, CONFIG.learning_rate, CONFIG.embedding_learning_rate, 1))
    seconds, losses = [], []
    for number, batch in zip(range(steps + 5), ahead(batches()), strict=False):
        began = time.monotonic()
        losses.append(learner.step(lambda pair: network.loss(*pair), batch, number, 0.0).item())
        seconds.append(time.monotonic() - began)
    step = float(np.median(seconds[5:]))
    limit = matrix_limit()
    return {
        "examples_per_second": CONFIG.batch_size / step,
        "step_seconds": step,
        "share_of_matrix_limit": CONFIG.batch_size * flops_per_example(network) / step / limit,
        "matrix_limit_flops": limit,
        "peak_memory_bytes": peak_memory_bytes(),
        "first_loss": losses[0],
        "last_loss": losses[-1],
    }


def flops_per_example(network: RetrievalNetwork) -> float:
    """Gives the multiplications and additions of the matrix products, forward and twice backward."""
    tower = sum(parameter.numel() for name, parameter in network.users.tower.named_parameters() if "weight" in name)
    return 6.0 * (tower + CONFIG.num_negatives * CONFIG.tower[-1])


def matrix_limit() -> float:
    """Gives the operations a second of a large bfloat16 matrix product."""
    left = torch.randn(4096, 1024, dtype=torch.bfloat16)
    right = torch.randn(1024, 1024, dtype=torch.bfloat16)
    seconds = _best_of(20, lambda: left @ right)
    return 2.0 * 4096 * 1024 * 1024 / seconds


def made_up(videos: int) -> Dataset:
    """Gives a dataset of random watches and searches: nothing to learn but which ids are frequent."""
    random = np.random.default_rng(1)
    total = USERS * EVENTS_PER_USER
    offsets = np.arange(USERS + 1) * EVENTS_PER_USER
    timestamp = np.sort(random.integers(1, 30 * 86_400, (USERS, EVENTS_PER_USER)), axis=1).ravel()
    segments = Segments(offsets, timestamp)
    watched = np.ones(total, dtype=bool)
    events = UserEvents(
        segments,
        _zipf(random, videos, total),
        np.ones(total, dtype=np.float32),
        watched,
        watched,
        np.zeros(total, dtype=bool),
        watched,
        np.zeros(total, dtype=np.int16),
        np.zeros(total, dtype=np.int16),
        segments,
        np.arange(total),
    )
    searches = SearchTokens(segments, _zipf(random, TOKENS, total))
    nobody = np.zeros((USERS, 0))
    counts = np.bincount(events.video_row, minlength=videos)
    none = np.zeros(0, dtype=np.int64)
    table = VideoTable(none, np.zeros((0, 0)), np.zeros((0, 0)), np.zeros((0, 0)), np.zeros((0, 0)), none, counts)
    timelines = Timelines(segments, none, none, none)
    facts = {"log_end": int(timestamp.max()) + 1, "has_impressions": False}
    artifact = Artifact(Path(), "dataset", "", {}, {}, facts)
    users = UserTable(nobody.astype(np.int32), nobody)
    page = np.zeros(total, dtype=np.int32)
    return Dataset(artifact, events, page, searches, users, table, timelines, timelines, {}, pa.array([]))


def peers_of(folder: Path, threads: int) -> dict[str, float]:
    """Gives the examples a second of every peer that has an environment."""
    found = {}
    for peer, environment in PEERS.items():
        python = folder / environment / "bin" / "python"
        if not python.exists():
            continue
        script = Path(__file__).parent / "peers" / f"{peer}_youtube.py"
        told = _json_of([str(python), str(script), "--steps", "5", "--threads", str(threads), *OPTIONS.get(peer, [])])
        print(json.dumps(told))
        found[peer] = float(told["examples_per_second"])
    return found


def _zipf(random: np.random.Generator, count: int, size: int) -> Array:
    shares = np.cumsum(1.0 / (np.arange(count - 1) + 50.0))
    rows: Array = (np.searchsorted(shares, random.random(size) * shares[-1]) + 1).astype(np.int32)
    return rows


def _best_of(times: int, act: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(times):
        began = time.monotonic()
        act()
        seconds.append(time.monotonic() - began)
    return min(seconds)


def _json_of(command: list[str]) -> dict[str, Any]:
    """The last line of what a command prints, in a process of its own, whose memory is its own."""
    command = [sys.executable if part == "python" else part for part in command]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return told


if __name__ == "__main__":
    main()
