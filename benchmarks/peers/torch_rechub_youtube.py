"""Training-step benchmark of ``torch_rechub.models.matching.YoutubeDNN`` trained by its ``MatchTrainer``.

The library lists the negatives of every example in the data (list-wise mode); it can also take the other examples of
the batch as negatives, which this model supports when its list of negatives is empty. Embedding tables have dense
gradients unless an initializer returns sparse ones.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch_rechub.basic.features import SequenceFeature, SparseFeature
from torch_rechub.models.matching import YoutubeDNN
from torch_rechub.trainers import MatchTrainer

WARMUP_STEPS = 2
Batch = tuple[dict[str, torch.Tensor], torch.Tensor]


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=1_000_000)
    parser.add_argument("--tokens", type=int, default=None, help="search tokens, as many as videos by default")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--negatives", type=int, default=5000)
    parser.add_argument("--history", type=int, default=50)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--mode", choices=("in_batch", "listed"), default="in_batch")
    parser.add_argument("--listed", type=int, default=100, help="most negatives listed per example (memory)")
    parser.add_argument("--tables", choices=("dense_adam", "sparse_adagrad"), default="dense_adam")
    return parser.parse_args()


def zipf_probabilities(count: int) -> np.ndarray:
    """Probability of every rank, proportional to ``1 / (rank + 50)``."""
    weights = 1.0 / (np.arange(count) + 50.0)
    return weights / weights.sum()


def zipf_ids(rng: np.random.Generator, probabilities: np.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
    """Draw ids from 1 upwards (0 is padding), the most frequent first."""
    ranks = np.searchsorted(np.cumsum(probabilities), rng.random(shape))
    return torch.from_numpy(np.minimum(ranks, len(probabilities) - 1).astype(np.int64) + 1)


class SparseNormal:
    """Initializer that makes embedding tables with sparse gradients."""

    def __call__(self, vocab_size: int, embed_dim: int, padding_idx: int | None = None) -> torch.nn.Embedding:
        """Create one table."""
        table = torch.nn.Embedding(vocab_size, embed_dim, padding_idx=padding_idx, sparse=True)
        torch.nn.init.normal_(table.weight, 0.0, 0.0001)
        return table


class TimedBatches:
    """Iterable of ready batches that notes when the trainer asks for each."""

    def __init__(self, batches: list[Batch]) -> None:
        """Keep the batches."""
        self.batches = batches
        self.times: list[float] = []

    def __len__(self) -> int:
        """Count the batches."""
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches; the last time is that of the end of the last step."""
        for batch in self.batches:
            self.times.append(time.perf_counter())
            yield batch
        self.times.append(time.perf_counter())


def make_batches(arguments: argparse.Namespace, listed: int) -> list[Batch]:
    """Draw one batch per step; negatives come from the distribution of the positives."""
    rng = np.random.default_rng(0)
    videos = zipf_probabilities(arguments.videos)
    tokens = zipf_probabilities(arguments.tokens or arguments.videos)
    size = arguments.batch
    return [
        (
            {
                "watched": zipf_ids(rng, videos, (size, arguments.history)),
                "searched": zipf_ids(rng, tokens, (size, arguments.history)),
                "item_id": zipf_ids(rng, videos, (size,)),
                "neg_items": zipf_ids(rng, videos, (size, listed)),
            },
            torch.zeros(size, dtype=torch.long),
        )
        for _ in range(arguments.steps + WARMUP_STEPS)
    ]


def build_model(arguments: argparse.Namespace) -> YoutubeDNN:
    """Describe the features and create the model."""
    table: dict[str, Any] = {"embed_dim": arguments.dim}
    if arguments.tables == "sparse_adagrad":
        table["initializer"] = SparseNormal()
    rows = arguments.videos + 1
    token_rows = (arguments.tokens or arguments.videos) + 1
    return YoutubeDNN(
        user_features=[
            SequenceFeature("watched", vocab_size=rows, pooling="mean", padding_idx=0, **table),
            SequenceFeature("searched", vocab_size=token_rows, pooling="mean", padding_idx=0, **table),
        ],
        item_features=[SparseFeature("item_id", vocab_size=rows, **table)],
        neg_item_feature=[
            SequenceFeature("neg_items", vocab_size=rows, pooling="concat", shared_with="item_id", **table)
        ],
        user_params={"dims": [1024, 512, arguments.dim], "activation": "relu"},
        temperature=0.02,
    )


def main() -> None:
    """Train a few steps and print the measurements as one JSON line."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    in_batch = arguments.mode == "in_batch"
    listed = 0 if in_batch else min(arguments.negatives, arguments.listed)
    model = build_model(arguments)
    optimizer: dict[str, Any] = {}
    if arguments.tables == "sparse_adagrad":
        optimizer = {"optimizer_fn": torch.optim.Adagrad, "optimizer_params": {"lr": 1e-2}}
    trainer = MatchTrainer(model, mode=2, in_batch_neg=in_batch, n_epoch=1, device="cpu", **optimizer)
    batches = TimedBatches(make_batches(arguments, listed))
    loss = trainer.train_one_epoch(batches)
    step = statistics.median(np.diff(batches.times)[WARMUP_STEPS:])
    negatives = f"{arguments.batch - 1} in-batch negatives" if in_batch else f"{listed} negatives listed per example"
    print(
        json.dumps(
            {
                "peer": f"torch-rechub ({arguments.mode}, {arguments.tables})",
                "version": f"{version('torch-rechub')} (torch {torch.__version__})",
                "examples_per_second": round(arguments.batch / step, 1),
                "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "deviation": f"{negatives}, no log q correction, cosine scores, batch norm in the tower",
                "seconds_per_step": round(step, 4),
                "final_loss": round(float(loss), 4),
            }
        )
    )


if __name__ == "__main__":
    main()
