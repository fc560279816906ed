"""Training-step benchmark of the YouTube candidate generator built with Keras Recommenders (keras-rs).

Bags are ``keras_rs.layers.EmbedReduce``; the loss scores the positives of the batch plus extra sampled candidates with
``SamplingProbabilityCorrection`` and ``RemoveAccidentalHits`` before a categorical cross-entropy.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from typing import Any

import numpy as np

WARMUP_STEPS = 2


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
    parser.add_argument("--backend", choices=("jax", "tensorflow", "torch"), default="jax")
    parser.add_argument("--optimizer", choices=("adagrad", "adam", "sgd"), default="adagrad")
    return parser.parse_args()


def configure(backend: str, threads: int) -> None:
    """Choose the Keras backend and its number of threads, before Keras is imported."""
    os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if backend == "jax":
        multi_thread = "true" if threads > 1 else "false"
        os.environ.setdefault("XLA_FLAGS", f"--xla_cpu_multi_thread_eigen={multi_thread}")
        os.environ.setdefault("NPROC", str(threads))
    elif backend == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    else:
        import torch

        torch.set_num_threads(threads)


def zipf_probabilities(count: int) -> np.ndarray:
    """Probability of every rank, proportional to ``1 / (rank + 50)``."""
    weights = 1.0 / (np.arange(count) + 50.0)
    return weights / weights.sum()


def zipf_ids(rng: np.random.Generator, probabilities: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Draw ids from 0 upwards, the most frequent first."""
    ranks = np.searchsorted(np.cumsum(probabilities), rng.random(shape))
    return np.minimum(ranks, len(probabilities) - 1).astype(np.int32)


def build_model(arguments: argparse.Namespace) -> Any:
    """Create the training model: its output is the loss of every example."""
    import keras
    import keras_rs

    class CandidateGenerator(keras.Model):
        """User tower over watched videos and search tokens with an output table of one row per video."""

        def __init__(self) -> None:
            """Create the tables, the tower and the layers of the loss."""
            super().__init__()
            tokens = arguments.tokens or arguments.videos
            self.watched = keras_rs.layers.EmbedReduce(arguments.videos, arguments.dim, combiner="mean")
            self.searched = keras_rs.layers.EmbedReduce(tokens, arguments.dim, combiner="mean")
            self.candidates = keras.layers.Embedding(arguments.videos, arguments.dim)
            self.tower = keras.Sequential(
                [keras.layers.Dense(width, activation="relu") for width in (1024, 512, arguments.dim)]
            )
            self.correction = keras_rs.layers.SamplingProbabilityCorrection(epsilon=1e-9)
            self.remove_accidental_hits = keras_rs.layers.RemoveAccidentalHits()

        def call(self, features: dict[str, Any]) -> Any:
            """Score the candidates of the batch for every user."""
            bags = [self.watched(features["watched"]), self.searched(features["searched"])]
            users = self.tower(keras.ops.concatenate(bags, axis=1))
            # Every row of "candidates" is the same list: the positives of the batch, then the extra ones.
            ids = features["candidates"][0]
            logits = keras.ops.matmul(users, keras.ops.transpose(self.candidates(ids)))
            logits = self.correction(logits, features["probabilities"][0])
            labels = keras.ops.eye(arguments.batch, ids.shape[0])
            return self.remove_accidental_hits(logits, labels, ids)

    return CandidateGenerator()


def make_batches(arguments: argparse.Namespace) -> list[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Draw one batch per step: features and the column of every positive."""
    rng = np.random.default_rng(0)
    videos = zipf_probabilities(arguments.videos)
    tokens = zipf_probabilities(arguments.tokens or arguments.videos)
    candidates = max(arguments.negatives + 1, arguments.batch)
    batches = []
    for _ in range(arguments.steps + WARMUP_STEPS):
        ids = zipf_ids(rng, videos, (1, candidates))
        features = {
            "watched": zipf_ids(rng, videos, (arguments.batch, arguments.history)),
            "searched": zipf_ids(rng, tokens, (arguments.batch, arguments.history)),
            "candidates": ids,
            "probabilities": videos[ids].astype(np.float32),
        }
        batches.append((features, np.arange(arguments.batch, dtype=np.int32)))
    return batches


def main() -> None:
    """Train a few steps and print the measurements as one JSON line."""
    arguments = parse_arguments()
    configure(arguments.backend, arguments.threads)
    import keras
    import keras_rs

    model = build_model(arguments)
    optimizer = {
        "adagrad": keras.optimizers.Adagrad,
        "adam": keras.optimizers.Adam,
        "sgd": keras.optimizers.SGD,
    }[arguments.optimizer](0.01)
    model.compile(optimizer=optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    ends = []
    loss = float("nan")
    for features, labels in make_batches(arguments):
        loss = float(model.train_on_batch(features, labels))
        ends.append(time.perf_counter())
    step = statistics.median(np.diff(ends)[WARMUP_STEPS - 1 :])
    extra = max(arguments.negatives + 1 - arguments.batch, 0)
    print(
        json.dumps(
            {
                "peer": f"keras-rs ({arguments.backend}, {arguments.optimizer})",
                "version": f"{keras_rs.__version__} (keras {keras.__version__})",
                "examples_per_second": round(arguments.batch / step, 1),
                "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "deviation": f"{arguments.batch - 1} in-batch negatives plus {extra} sampled, dense table gradients "
                f"on jax and torch, {arguments.optimizer} optimizer",
                "seconds_per_step": round(step, 4),
                "final_loss": round(loss, 4),
            }
        )
    )


if __name__ == "__main__":
    main()
