"""LightGBM on what watchnext's ranker reads of each impression: the peer of ranking_quality.py.

    python lightgbm_ranking.py INPUTS.npz PREDICTIONS.npz [--threads 1]

INPUTS has `values` (numbers, NaN for unknown) and `ids` (codes from 0) of all rows; `watch_seconds` and `validates` of
the first ones, which are to be learnt from: the others are to be predicted. Each target is learnt on what does not
validate until the error on what does stops falling, then on all of it with as many trees. PREDICTIONS receives the
expected watch seconds of the other rows by target; ends with one JSON line: trees and seconds of each.

- l2: squared error of the seconds.
- tweedie: their deviance, of power 1.5.
- log: squared error of log(1 + seconds), turned into seconds by isotonic regression on what validates.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
from scipy.optimize import isotonic_regression

TARGETS = {"l2": "regression", "tweedie": "tweedie", "log": "regression"}
MOST_TREES, PATIENCE = 2000, 50


def main() -> None:
    """Learns each target, writes the predictions and prints the figures."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("inputs", type=Path)
    arguments.add_argument("predictions", type=Path)
    arguments.add_argument("--threads", type=int, default=1)
    options = arguments.parse_args()
    given = dict(np.load(options.inputs))
    rows = np.concatenate([given["values"], given["ids"]], axis=1, dtype=np.float32)
    num_learnt = len(given["watch_seconds"])
    predictions, figures = {}, {"peer": f"lightgbm {lightgbm.__version__}"}
    for name, objective in TARGETS.items():
        began = time.monotonic()
        parameters = {
            "objective": objective, "learning_rate": 0.05, "num_leaves": 31, "num_threads": options.threads,
            "seed": 1, "deterministic": True, "verbose": -1,
        }  # fmt: skip
        predictions[name], trees = predicted(
            parameters, rows[:num_learnt], given["watch_seconds"], given["validates"], rows[num_learnt:], name == "log"
        )
        figures |= {f"{name}_trees": trees, f"{name}_seconds": round(time.monotonic() - began, 1)}
    np.savez(options.predictions, **predictions)
    print(json.dumps(figures))


def predicted(
    parameters: dict[str, Any],
    rows: np.ndarray,
    watch_seconds: np.ndarray,
    validates: np.ndarray,
    others: np.ndarray,
    by_logarithm: bool,
) -> tuple[np.ndarray, int]:
    """Gives the expected watch seconds of the other rows, and the number of trees."""
    target = np.log1p(watch_seconds) if by_logarithm else watch_seconds
    learning = lightgbm.Dataset(rows[~validates], target[~validates])
    validation = lightgbm.Dataset(rows[validates], target[validates], reference=learning)
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    search = lightgbm.train(parameters, learning, MOST_TREES, valid_sets=[validation], callbacks=[stop])
    trees = search.best_iteration
    final = lightgbm.train(parameters, lightgbm.Dataset(rows, target), trees)
    scores: np.ndarray = final.predict(others)
    if by_logarithm:
        scores = isotonic(search.predict(rows[validates]), watch_seconds[validates], scores)
    return scores, trees


def isotonic(known_scores: np.ndarray, known_seconds: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Gives the seconds at each score on the rising curve with the least squared error, straight between its knots."""
    knots, place, counts = np.unique(known_scores, return_inverse=True, return_counts=True)
    means = np.bincount(place, known_seconds) / counts
    return np.interp(scores, knots, isotonic_regression(means, weights=counts).x)


if __name__ == "__main__":
    main()
