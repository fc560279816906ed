"""Training-step benchmark of LibRecommender's ``YouTubeRetrieval``.

The library builds histories from an interaction table, so the script makes one in which every video and every search
token occurs: users that cover the catalogue, and ``batch`` users whose interactions are drawn Zipf-like. Search tokens
are a ``multi_sparse`` user feature. Training runs on the last interaction rows, one batch per step.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from importlib.metadata import version
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pandas as pd
from libreco.algorithms import YouTubeRetrieval
from libreco.data import DatasetFeat, DatasetPure
from libreco.data.transformed import TransformedSet

WARMUP_STEPS = 2


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=1_000_000)
    parser.add_argument("--tokens", type=int, default=None, help="search tokens, 0 for none (default: as videos)")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--negatives", type=int, default=5000)
    parser.add_argument("--history", type=int, default=50)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def zipf_ids(rng: np.random.Generator, count: int, shape: tuple[int, ...]) -> np.ndarray:
    """Draw ids from 0 upwards with probability proportional to ``1 / (id + 50)``, the most frequent first."""
    weights = 1.0 / (np.arange(count) + 50.0)
    ranks = np.searchsorted(np.cumsum(weights / weights.sum()), rng.random(shape))
    return np.minimum(ranks, count - 1).astype(np.int32)


def distinct_zipf_rows(rng: np.random.Generator, count: int, rows: int, width: int) -> np.ndarray:
    """Draw rows of Zipf-like ids without repetition inside a row (the library drops repeated interactions)."""
    result = np.empty((rows, width), dtype=np.int32)
    for row, draw in enumerate(zipf_ids(rng, count, (rows, 4 * width))):
        _, first = np.unique(draw, return_index=True)
        result[row] = draw[np.sort(first)[:width]]
    return result


def covering_rows(rng: np.random.Generator, count: int, rows: int, width: int) -> np.ndarray:
    """Spread all the ids over rows, so that every one of them occurs."""
    ids = np.arange(rows * width, dtype=np.int32) % count
    rng.shuffle(ids)
    return ids.reshape(rows, width)


def make_interactions(arguments: argparse.Namespace, tokens: int) -> pd.DataFrame:
    """Make the table: histories first, then the covering users, then one batch of labels per step."""
    rng = np.random.default_rng(0)
    steps = arguments.steps + WARMUP_STEPS
    users = arguments.batch
    watched = distinct_zipf_rows(rng, arguments.videos, users, arguments.history + steps)
    covering = -(-max(arguments.videos, tokens) // arguments.history)
    user = np.concatenate(
        [
            np.repeat(np.arange(users), arguments.history),
            np.repeat(np.arange(users, users + covering), arguments.history),
            np.tile(np.arange(users), steps),
        ]
    ).astype(np.int32)
    item = np.concatenate(
        [
            watched[:, : arguments.history].ravel(),
            covering_rows(rng, arguments.videos, covering, arguments.history).ravel(),
            watched[:, arguments.history :].T.ravel(),
        ]
    )
    columns: dict[str, np.ndarray] = {"user": user, "item": item, "label": np.ones(len(user), dtype=np.int32)}
    if tokens:
        searched = np.concatenate(
            [
                zipf_ids(rng, tokens, (users, arguments.history)),
                covering_rows(rng, tokens, covering, arguments.history),
            ]
        )
        columns |= {f"token_{index}": searched[user, index] for index in range(arguments.history)}
    return pd.DataFrame(columns)


class EnoughSteps(Exception):
    """Raised after the last measured step."""


class TimedSession:
    """TensorFlow session that notes the end of every training step."""

    def __init__(self, session: Any, steps: int) -> None:
        """Wrap a session and stop the training after some steps."""
        self.session = session
        self.steps = steps
        self.ends: list[float] = []
        self.loss = float("nan")
        self.peak_memory_bytes = 0

    def __getattr__(self, name: str) -> Any:
        """Pass everything else to the session."""
        return getattr(self.session, name)

    def run(self, fetches: Any, feed_dict: Any = None) -> Any:
        """Run the fetches; the trainer asks for a pair (loss, training operation)."""
        result = self.session.run(fetches, feed_dict)
        if isinstance(fetches, tuple) and len(fetches) == 2:
            self.ends.append(time.perf_counter())
            self.peak_memory_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            self.loss = float(result[0])
            if len(self.ends) == self.steps:
                raise EnoughSteps
        return result


def main() -> None:
    """Train a few steps and print the measurements as one JSON line."""
    arguments = parse_arguments()
    tokens = arguments.videos if arguments.tokens is None else arguments.tokens
    table = make_interactions(arguments, tokens)
    if tokens:
        names = [f"token_{index}" for index in range(arguments.history)]
        data, information = DatasetFeat.build_trainset(
            table, user_col=names, item_col=[], sparse_col=[], dense_col=[], multi_sparse_col=[names], pad_val=[-1]
        )
    else:
        data, information = DatasetPure.build_trainset(table)
    del table
    rows = slice(len(data) - (arguments.steps + WARMUP_STEPS) * arguments.batch, None)
    sparse = data.sparse_indices[rows] if tokens else None
    batches = TransformedSet(data.user_indices[rows], data.item_indices[rows], data.labels[rows], sparse, None)
    model = YouTubeRetrieval(
        task="ranking",
        data_info=information,
        loss_type="sampled_softmax",
        embed_size=arguments.dim,
        n_epochs=1,
        batch_size=arguments.batch,
        use_bn=False,
        hidden_units=(1024, 512),
        num_sampled_per_batch=arguments.negatives,
        sampler="log_uniform",
        recent_num=arguments.history,
        multi_sparse_combiner="mean",
        tf_sess_config={
            "intra_op_parallelism_threads": arguments.threads,
            "inter_op_parallelism_threads": arguments.threads,
        },
    )
    model.sess = session = TimedSession(model.sess, arguments.steps + WARMUP_STEPS)
    try:
        model.fit(batches, neg_sampling=True, verbose=0, shuffle=False)
    except EnoughSteps:
        pass
    step = statistics.median(np.diff(session.ends)[WARMUP_STEPS - 1 :])
    searches = "tokens a static user feature" if tokens else "no search tokens"
    print(
        json.dumps(
            {
                "peer": "LibRecommender YouTubeRetrieval",
                "version": f"{version('LibRecommender')} (tensorflow {version('tensorflow')})",
                "examples_per_second": round(arguments.batch / step, 1),
                "peak_memory_bytes": session.peak_memory_bytes,
                "deviation": f"sqrtn instead of mean for the history, {searches}, item biases, linear last layer, "
                "Adam (the only optimizer), tf.nn.sampled_softmax_loss with the log-uniform sampler",
                "seconds_per_step": round(step, 4),
                "final_loss": round(session.loss, 4),
            }
        )
    )


if __name__ == "__main__":
    main()
