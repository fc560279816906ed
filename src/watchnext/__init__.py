"""From watch logs to served recommendations: the two-stage deep recommender of Covington et al. (2016).

import watchnext
run = watchnext.Run("log.toml", "runs/mine")
report = watchnext.run_all(run)
recommender = watchnext.Recommender.open("runs/mine/bundle")
recommender.recommend(user_id=42, k=20)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from watchnext import threads as threads  # first: before anything loads PyTorch

if TYPE_CHECKING:
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

_HOMES = {"WatchnextError": "errors", "Recommender": "serving.recommender"} | dict.fromkeys(
    ("Recommendation", "Visitor", "Watch"), "serving.recommendation"
)


def __getattr__(name: str) -> Any:
    """Gives a promised name from where it lives, the pipeline if nothing else is said.

    It is imported when it is first asked for: `watchnext --help` is not to wait for PyTorch.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'pipeline')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
