"""Scoring lists: every system sees the same users as of the same moment, over the full catalogue."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np

from watchnext.config import EvaluationConfig
from watchnext.evaluation.bootstrap import Estimate, mean_estimate
from watchnext.evaluation.metrics import mrr, ndcg, recall
from watchnext.examples.contexts import UserContext
from watchnext.progress import bar
from watchnext.shapes import Array, Int, RowLists

_USERS_AT_ONCE = 512


@runtime_checkable
class System(Protocol):
    """Anything that recommends: a network, a baseline, the whole funnel."""

    def __call__(self, context: UserContext, k: int, excluded: RowLists) -> Int[Array, "batch k"]:
        """Gives k rows for each user, best first, none of them excluded, padded with row 0."""
        ...


def score_lists(
    systems: Mapping[str, System],
    context: UserContext,
    targets: RowLists,
    excluded: RowLists,
    config: EvaluationConfig,
) -> dict[str, dict[str, Estimate]]:
    """Gives recall@k and ndcg@k for every cut-off, and mrr, for each system, with 95 % intervals.

    Excluded videos are struck from the targets as from the lists; users without targets left are not counted.
    """
    wanted = [np.setdiff1d(rows, struck) for rows, struck in zip(targets, excluded, strict=True)]
    return {name: _score(name, system, context, wanted, excluded, config) for name, system in systems.items()}


def _score(
    name: str,
    system: System,
    context: UserContext,
    targets: RowLists,
    excluded: RowLists,
    config: EvaluationConfig,
) -> dict[str, Estimate]:
    longest = max(config.cutoffs)
    values: dict[str, list[Array]] = {}
    with bar(f"scoring {name}", len(context)) as progress:
        for start in range(0, len(context), _USERS_AT_ONCE):
            part = slice(start, start + _USERS_AT_ONCE)
            lists = system(context.part(part), longest, excluded[part])
            for k in config.cutoffs:
                values.setdefault(f"recall@{k}", []).append(recall(lists, targets[part], k))
            for k in config.cutoffs:
                values.setdefault(f"ndcg@{k}", []).append(ndcg(lists, targets[part], k))
            values.setdefault("mrr", []).append(mrr(lists, targets[part], longest))
            progress.advance(len(lists))
    return {
        metric: mean_estimate(np.concatenate(parts), config.bootstrap_draws, config.seed)
        for metric, parts in values.items()
    }
