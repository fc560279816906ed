"""The ways to learn watch time, by name."""

from collections.abc import Callable

from watchnext.config import OBJECTIVES, RankingConfig
from watchnext.ranking.bucketed import ErrorAdaptive, Ordinal, Tree
from watchnext.ranking.duration_quantiles import DurationQuantiles
from watchnext.ranking.objectives import LogSquared, Objective, Tweedie, WeightedLogistic

_KINDS: dict[str, Callable[[RankingConfig], Objective]] = {
    "weighted_logistic": WeightedLogistic,
    "tweedie": Tweedie,
    "log_squared": LogSquared,
    "ordinal": Ordinal,
    "tree": Tree,
    "error_adaptive": ErrorAdaptive,
    "duration_quantiles": DurationQuantiles,
}
assert tuple(_KINDS) == OBJECTIVES


def objective_of(name: str, config: RankingConfig) -> Objective:
    """Makes the objective of that name."""
    return _KINDS[name](config)
