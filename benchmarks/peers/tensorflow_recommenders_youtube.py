"""Training-step benchmark of the YouTube candidate generator built with TensorFlow Recommenders.

The user tower is a ``tfrs.Model`` with two ``tf.keras.layers.Embedding`` bags, three ReLU layers and an output table.
Two losses are offered: ``tf.nn.sampled_softmax_loss`` and ``tfrs.tasks.Retrieval``, which scores the positives of the
batch plus extra sampled candidates.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

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
    parser.add_argument("--loss", choices=("sampled_softmax", "retrieval"), default="sampled_softmax")
    parser.add_argument("--pooling", choices=("layer", "lookup_sparse"), default="lookup_sparse")
    parser.add_argument("--optimizer", choices=("adagrad", "adam", "sgd"), default="adagrad")
    return parser.parse_args()


def zipf_probabilities(count: int) -> np.ndarray:
    """Probability of every rank, proportional to ``1 / (rank + 50)``."""
    weights = 1.0 / (np.arange(count) + 50.0)
    return weights / weights.sum()


def zipf_ids(rng: np.random.Generator, probabilities: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Draw ids from 1 upwards (0 is padding), the most frequent first."""
    ranks = np.searchsorted(np.cumsum(probabilities), rng.random(shape))
    return np.minimum(ranks, len(probabilities) - 1).astype(np.int64) + 1


class CandidateGenerator(tfrs.Model):
    """User tower over watched videos and search tokens with an output table of one row per video."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        """Create the tables, the tower and the loss."""
        super().__init__()
        self.arguments = arguments
        self.rows = arguments.videos + 1
        token_rows = (arguments.tokens or arguments.videos) + 1
        self.watched = tf.keras.layers.Embedding(self.rows, arguments.dim, mask_zero=True, name="watched")
        self.searched = tf.keras.layers.Embedding(token_rows, arguments.dim, mask_zero=True, name="searched")
        self.candidates = tf.keras.layers.Embedding(self.rows, arguments.dim, name="candidates")
        for layer in (self.watched, self.searched, self.candidates):
            layer.build(None)
        self.average = tf.keras.layers.GlobalAveragePooling1D()
        self.tower = tf.keras.Sequential(
            [tf.keras.layers.Dense(width, activation="relu") for width in (1024, 512, arguments.dim)]
        )
        self.biases = tf.Variable(tf.zeros([self.rows]), trainable=False, name="biases")
        self.task = tfrs.tasks.Retrieval(remove_accidental_hits=True)
        self.probabilities = tf.constant(
            np.concatenate([[0.0], zipf_probabilities(arguments.videos)]), dtype=tf.float32
        )

    def pool(self, layer: tf.keras.layers.Embedding, ids: tf.Tensor) -> tf.Tensor:
        """Average the rows of the ids that are not padding."""
        if self.arguments.pooling == "lookup_sparse":
            return tf.nn.safe_embedding_lookup_sparse(layer.embeddings, tf.sparse.from_dense(ids), combiner="mean")
        return self.average(layer(ids))

    def call(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """Compute one vector per user."""
        bags = [self.pool(self.watched, features["watched"]), self.pool(self.searched, features["searched"])]
        return self.tower(tf.concat(bags, axis=1))

    def compute_loss(self, features: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Sampled softmax over the output table."""
        users = self(features)
        labels = features["label"]
        if self.arguments.loss == "sampled_softmax":
            losses = tf.nn.sampled_softmax_loss(
                weights=self.candidates.embeddings,
                biases=self.biases,
                labels=labels[:, tf.newaxis],
                inputs=users,
                num_sampled=self.arguments.negatives,
                num_classes=self.rows,
            )
            return tf.reduce_mean(losses)
        ids = tf.concat([labels, features["extra"]], axis=0)
        return self.task(
            users,
            self.candidates(ids),
            candidate_sampling_probability=tf.gather(self.probabilities, ids),
            candidate_ids=ids,
            compute_metrics=False,
            compute_batch_metrics=False,
        )


class StepTimer(tf.keras.callbacks.Callback):
    """Record the time between the ends of successive training batches."""

    def __init__(self) -> None:
        """Start with no measurement."""
        super().__init__()
        self.ends: list[float] = []

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Note the end of a step."""
        self.ends.append(time.perf_counter())


def make_batches(arguments: argparse.Namespace) -> tf.data.Dataset:
    """Draw one batch per step."""
    rng = np.random.default_rng(0)
    steps = arguments.steps + WARMUP_STEPS
    videos = zipf_probabilities(arguments.videos)
    tokens = zipf_probabilities(arguments.tokens or arguments.videos)
    features = {
        "watched": zipf_ids(rng, videos, (steps, arguments.batch, arguments.history)),
        "searched": zipf_ids(rng, tokens, (steps, arguments.batch, arguments.history)),
        "label": zipf_ids(rng, videos, (steps, arguments.batch)),
    }
    if arguments.loss == "retrieval":
        features["extra"] = zipf_ids(rng, videos, (steps, max(arguments.negatives + 1 - arguments.batch, 0)))
    return tf.data.Dataset.from_tensor_slices(features)


def main() -> None:
    """Train a few steps and print the measurements as one JSON line."""
    arguments = parse_arguments()
    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    tf.config.threading.set_inter_op_parallelism_threads(arguments.threads)
    optimizer = {
        "adagrad": tf.keras.optimizers.Adagrad,
        "adam": tf.keras.optimizers.Adam,
        "sgd": tf.keras.optimizers.SGD,
    }[arguments.optimizer](0.01)
    model = CandidateGenerator(arguments)
    model.compile(optimizer=optimizer)
    timer = StepTimer()
    history = model.fit(make_batches(arguments), epochs=1, verbose=0, callbacks=[timer])
    step = statistics.median(np.diff(timer.ends)[WARMUP_STEPS - 1 :])
    if arguments.loss == "sampled_softmax":
        deviation = f"tf.nn.sampled_softmax_loss with its log-uniform sampler, {arguments.optimizer} optimizer"
    else:
        extra = max(arguments.negatives + 1 - arguments.batch, 0)
        deviation = (
            f"tfrs.tasks.Retrieval: {arguments.batch - 1} in-batch negatives plus {extra} sampled, "
            f"{arguments.optimizer} optimizer"
        )
    print(
        json.dumps(
            {
                "peer": f"tensorflow-recommenders ({arguments.loss}, {arguments.pooling}, {arguments.optimizer})",
                "version": f"{tfrs.__version__.lstrip('v')} (tensorflow {tf.__version__})",
                "examples_per_second": round(arguments.batch / step, 1),
                "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "deviation": deviation,
                "seconds_per_step": round(step, 4),
                "final_loss": round(float(np.sum(history.history["loss"][-1])), 4),
            }
        )
    )


if __name__ == "__main__":
    main()
