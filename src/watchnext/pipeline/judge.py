"""Judging a run on its test period: the networks beside baselines, on the same users and impressions."""

from dataclasses import asdict, replace
from typing import Any

import numpy as np

from watchnext.bundle.bundle import Bundle
from watchnext.config import EvaluationConfig
from watchnext.errors import DataError
from watchnext.evaluation.lists import System, score_lists
from watchnext.evaluation.predictions import baseline_predictions, score_predictions
from watchnext.evaluation.reliability import GroupReliability, reliability, reliability_by_group
from watchnext.evaluation.report import Report
from watchnext.events.dataset import Dataset
from watchnext.examples.contexts import UserContext, seen_before
from watchnext.examples.impressions import Impressions, impressions_between
from watchnext.examples.next_watch import targets_between
from watchnext.features.spec import empty_state
from watchnext.pipeline.fit_ranking import compute_inputs
from watchnext.pipeline.groups import impression_groups
from watchnext.progress import bar
from watchnext.retrieval.candidates import CandidateSource, without
from watchnext.retrieval.index.protocol import TunableIndex
from watchnext.serving.stages import request_context
from watchnext.shapes import Array, Float, Int, RowLists


def judge(bundle: Bundle, config: EvaluationConfig, settings: dict[str, Any], training: dict[str, Any]) -> Report:
    """Gives the report on the bundle's test period.

    Raises:
        DataError: the dataset keeps no test period, or nobody completed anything in it.
    """
    dataset = bundle.dataset
    if dataset.test_start >= dataset.log_end:
        raise DataError("this dataset keeps no test period ([split] test_share = 0): there is nothing to judge by.")
    retrieval = _judge_retrieval(bundle, config)
    ranking, deciles, by_group = _judge_ranking(bundle, config)
    index = bundle.generator.index
    curve = [asdict(point) for point in index.curve] if isinstance(index, TunableIndex) else []
    log, notes = _log_facts(dataset), _notes(dataset)
    return Report(log, retrieval, ranking, deciles, by_group, training, settings, notes, curve)


def _log_facts(dataset: Dataset) -> dict[str, Any]:
    names = ("name", "num_events", "num_watches", "num_timed", "num_searches", "rejected", "num_repeats")
    sizes = {"videos": dataset.num_videos - 1, "users": len(dataset.vocabularies["users"]) - 1}
    return {name: dataset.facts[name] for name in names} | sizes


def _notes(dataset: Dataset) -> list[str]:
    """What a reader must know to read the figures rightly."""
    events = dataset.events
    in_test = np.asarray(events.segments.timestamp) >= dataset.test_start
    new = int((in_test & events.completed & (events.video_row == 0)).sum())
    notes = [
        f"{new:,} of the test period's {int((in_test & events.completed).sum()):,} completed watches are of videos "
        "that the vocabulary does not hold. No system here can find them, and recall does not count them."
    ]
    if not dataset.facts["has_impressions"]:
        notes.append(
            "The log has no impressions: the ranker learnt from watches beside unwatched candidates of our own, so its "
            "figures rank videos but are not watch times of real impressions."
        )
    return notes


def _judge_retrieval(bundle: Bundle, config: EvaluationConfig) -> dict[str, Any]:
    dataset, generator = bundle.dataset, bundle.generator
    users, targets = targets_between(dataset.events, dataset.test_start, dataset.log_end)
    if not len(users):
        raise DataError("nobody completed a video in the test period: choose an earlier [split] test_start.")
    moments = np.full(len(users), dataset.test_start)
    context = request_context(dataset, users, moments, generator, bundle.features)
    nothing = [np.zeros(0, dtype=np.int64)] * len(users)
    excluded = seen_before(dataset, users, moments) if config.exclude_seen else nothing
    if not any(len(np.setdiff1d(wanted, struck)) for wanted, struck in zip(targets, excluded, strict=True)):
        raise DataError(
            "all that was completed in the test period had been shown to its user before, and seen videos are struck: "
            "say [evaluation] exclude_seen = false to count them."
        )
    shorter = tuple(k for k in config.cutoffs if k < dataset.num_videos) or (dataset.num_videos - 1,)
    ever_popular = np.argsort(-np.asarray(dataset.videos.num_completed), kind="stable")
    systems: dict[str, System] = {
        "popularity": lambda part, k, struck: without(_same_for_all(ever_popular, len(part)), struck, k),
        "recent popularity": _source(generator.popular),
        "item-to-item co-watch": _source(generator.co_watch),
        "watchnext": lambda part, k, struck: generator.nearest(part, k, struck),
    }
    return score_lists(systems, context, targets, excluded, replace(config, cutoffs=shorter))


def _judge_ranking(
    bundle: Bundle, config: EvaluationConfig
) -> tuple[dict[str, Any], list[tuple[float, float, int]], dict[str, list[GroupReliability]]]:
    dataset = bundle.dataset
    truth = impressions_between(dataset.events, dataset.test_start, dataset.log_end, dataset.page)
    past = impressions_between(dataset.events, dataset.ranking_start, dataset.test_start)
    if not len(truth) or not len(past):
        return {}, [], {}
    state = empty_state(dataset, bundle.features.config)
    inputs = compute_inputs(dataset, bundle.generator, truth, bundle.serving, state, bundle.features)
    parts = []
    with bar("scoring impressions", len(truth)) as progress:
        for start in range(0, len(truth), 4096):
            parts.append(
                bundle.ranker.predictions(inputs.part(slice(start, start + 4096))).expected_watch_seconds[:, 0]
            )
            progress.advance(len(parts[-1]))
    expected = np.concatenate(parts).astype(np.float64)
    predictions = baseline_predictions(past, truth) | {"watchnext": expected}
    by_group = _by_group(dataset, truth, expected, config)
    return score_predictions(predictions, truth, config), reliability(truth.watch_seconds, expected), by_group


def _by_group(
    dataset: Dataset, truth: Impressions, expected: Float[Array, "rows"], config: EvaluationConfig
) -> dict[str, list[GroupReliability]]:
    watched, draws, seed = truth.watch_seconds, config.bootstrap_draws, config.seed
    return {
        name: reliability_by_group(groups, truth.user_row, watched, expected, draws, seed)
        for name, groups in impression_groups(dataset, truth).items()
    }


def _source(source: CandidateSource) -> System:
    """A source on its own, asked for enough to have k left."""

    def system(context: UserContext, k: int, excluded: RowLists) -> Int[Array, "batch k"]:
        longest = max((len(rows) for rows in excluded), default=0)
        return without(source.nominate(context, k + longest)[0], excluded, k)

    return system


def _same_for_all(rows: Int[Array, "videos"], count: int) -> Int[Array, "batch width"]:
    return np.broadcast_to(rows[rows > 0], (count, len(rows) - 1))


def training_curves(artifacts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Gives each fit's losses and scores, named 'retrieval early' and so on."""
    return {
        f"{stage} {fit}": {"losses": outcome["losses"], "scores": outcome["scores"]}
        for stage, facts in artifacts.items()
        for fit, outcome in facts["training"].items()
    }
