"""From watch logs to served recommendations: the two-stage deep recommender of Covington et al. (2016).

import watchnext
run = watchnext.Run("log.toml", "runs/mine")
report = watchnext.run_all(run)
recommender = watchnext.Recommender.open("runs/mine/bundle")
recommender.recommend(user_id=42, k=20)
"""

from watchnext import threads as threads  # first: before anything loads PyTorch
from watchnext.errors import WatchnextError
from watchnext.pipeline import (
    Run,
    build_index,
    check,
    evaluate,
    make_bundle,
    prepare,
    run_all,
    train_ranking,
    train_retrieval,
)
from watchnext.serving.recommendation import Recommendation, Visitor, Watch
from watchnext.serving.recommender import Recommender

__all__ = [
    "Recommendation",
    "Recommender",
    "Run",
    "Visitor",
    "Watch",
    "WatchnextError",
    "build_index",
    "check",
    "evaluate",
    "make_bundle",
    "prepare",
    "run_all",
    "train_ranking",
    "train_retrieval",
]
