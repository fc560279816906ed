"""Scoring predicted watch time: every predictor sees the same impressions."""

from collections.abc import Mapping

import numpy as np

from watchnext.config import EvaluationConfig
from watchnext.evaluation.bootstrap import Estimate, ratio_estimate
from watchnext.evaluation.reliability import calibration_error
from watchnext.evaluation.watch_time import (
    mean_absolute_error,
    root_mean_squared_error,
    sum_ratio,
    weighted_loss,
    xauc,
    xauc_within_users,
)
from watchnext.examples.impressions import Impressions
from watchnext.shapes import Array, Float

_PRIOR_IMPRESSIONS = 10.0


def score_predictions(
    predictions: Mapping[str, Float[Array, "rows"]], truth: Impressions, config: EvaluationConfig
) -> dict[str, dict[str, Estimate | float]]:
    """Gives weighted loss, XAUC (over all and within users), MAE, RMSE, sum ratio and calibration error of each."""
    scored: dict[str, dict[str, Estimate | float]] = {}
    watched = truth.watch_seconds
    for name, predicted in predictions.items():
        loss = weighted_loss(truth.page_of_user, truth.user_row, watched, truth.completed, predicted)
        within = xauc_within_users(truth.user_row, watched, predicted)
        scored[name] = {
            "weighted_loss": ratio_estimate(loss.counted, loss.total, config.bootstrap_draws, config.seed),
            "xauc": xauc(watched, predicted, config.seed),
            "xauc_within_users": ratio_estimate(within.counted, within.total, config.bootstrap_draws, config.seed),
            "mae_seconds": mean_absolute_error(watched, predicted),
            "rmse_seconds": root_mean_squared_error(watched, predicted),
            "sum_ratio": sum_ratio(watched, predicted),
            "calibration_error": calibration_error(watched, predicted),
        }
    return scored


def baseline_predictions(past: Impressions, truth: Impressions) -> dict[str, Float[Array, "rows"]]:
    """Gives two predictors that know only past impressions: each video's mean watch time, and everybody's."""
    mean = float(past.watch_seconds.mean())
    rows = int(max(past.video_row.max(), truth.video_row.max())) + 1
    total = np.bincount(past.video_row, weights=past.watch_seconds, minlength=rows)
    count = np.bincount(past.video_row, minlength=rows)
    smoothed = (total + _PRIOR_IMPRESSIONS * mean) / (count + _PRIOR_IMPRESSIONS)
    return {"per-video mean": smoothed[truth.video_row], "global mean": np.full(len(truth), mean)}
