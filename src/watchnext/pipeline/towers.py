"""The paper's table 1 on a log of one's own: towers of growing width and depth, and two ingredients left out (§4.3)."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from watchnext.config import Config, EvaluationConfig, RankingConfig
from watchnext.errors import DataError
from watchnext.evaluation.bootstrap import ratio_estimate
from watchnext.evaluation.towers import TowerScore
from watchnext.evaluation.watch_time import PairSums, weighted_loss
from watchnext.events.dataset import Dataset
from watchnext.examples.impressions import Impressions, impressions_between
from watchnext.features.inputs import RankingInputs
from watchnext.features.spec import FeatureSpec, empty_state
from watchnext.pipeline.fit_ranking import compute_inputs, fit_once, refuse_without_watch_time
from watchnext.progress import say
from watchnext.ranking.network import RankingNetwork
from watchnext.retrieval.candidates import CandidateGenerator
from watchnext.shapes import Array, Int

DEEPEST = "1024→512→256"
VARIANTS: dict[str, dict[str, Any]] = {
    "no hidden layer": {"tower": ()},
    "256": {"tower": (256,)},
    "512": {"tower": (512,)},
    "1024": {"tower": (1024,)},
    "512→256": {"tower": (512, 256)},
    "1024→512": {"tower": (1024, 512)},
    DEEPEST: {"tower": (1024, 512, 256)},
    f"{DEEPEST}, no powers": {"tower": (1024, 512, 256), "powers": False},
    f"{DEEPEST}, equal weights": {"tower": (1024, 512, 256), "weights": "equal"},
}
"""The rows of table 1 and what §4.3 leaves out, as changes of the settings."""

PAPERS = dict(zip(VARIANTS, (0.416, 0.369, 0.367, 0.358, 0.352, 0.347, 0.346, 0.348, 0.387), strict=True))
"""The weighted loss that the paper gives for each."""

_ROWS_AT_ONCE = 4096


def compare_towers(
    dataset: Dataset, generator: CandidateGenerator, config: Config, seeds: int, checkpoints: Path, made_from: str
) -> list[TowerScore]:
    """Trains every variant by the paper's own loss, and judges it on the impressions of the test period.

    Each learns from what came before the validation period, as long as its loss there falls; `generator` must have
    learnt from events before `ranking_start` only. A variant's loss is the mean over its seeds. `made_from` names
    dataset and retrieval network: a checkpoint of others is not gone on from.

    Raises:
        DataError: a period has no impressions of which the watch time is known.
    """
    moments = (dataset.ranking_start, dataset.validation_start, dataset.test_start, dataset.log_end)
    periods = [impressions_between(dataset.events, *ends, dataset.page) for ends in itertools.pairwise(moments)]
    refuse_without_watch_time(periods[0])
    if not all(len(part) for part in periods):
        raise DataError("towers are compared on a test period, after a validation period: the log has none to keep.")
    periods[0] = periods[0].latest(config.ranking.max_impressions)
    examples = periods[0].followed_by(periods[1]).followed_by(periods[2])
    state = empty_state(dataset, config.features)
    spec = FeatureSpec.of(dataset, state, generator.sources, config.features)
    inputs = compute_inputs(dataset, generator, examples, config.serving, state, spec)
    bounds = np.cumsum([0, *(len(part) for part in periods)])
    learning, held_out, judged = (np.arange(*ends) for ends in itertools.pairwise(bounds))
    found = {}
    for name, changes in VARIANTS.items():
        sums = []
        for seed in range(config.ranking.seed, config.ranking.seed + seeds):
            say(f"towers: {name}, seed {seed}")
            settings = of_the_paper(config.ranking, seed, changes)
            folder = checkpoints / f"{name}-{seed}"
            network, _ = fit_once(dataset, settings, examples, inputs, learning, held_out, folder, None, made_from)
            sums.append(_loss(network, inputs, examples, judged))
        found[name] = PairSums(np.mean([one.counted for one in sums], axis=0), sums[0].total)
    return [_scored(name, found, config.evaluation) for name in VARIANTS]


def of_the_paper(config: RankingConfig, seed: int, changes: dict[str, Any]) -> RankingConfig:
    """Gives the settings with weighted logistic regression alone, and the changes of a variant."""
    return replace(config, objectives=("weighted_logistic",), head_weight=0.0, seed=seed, **changes)


def _loss(
    network: RankingNetwork, inputs: RankingInputs, examples: Impressions, judged: Int[Array, "rows"]
) -> PairSums:
    parts = [judged[start : start + _ROWS_AT_ONCE] for start in range(0, len(judged), _ROWS_AT_ONCE)]
    predicted = np.concatenate([network.predictions(inputs.part(part)).score[:, 0] for part in parts])
    truth = examples.part(judged)
    return weighted_loss(truth.page_of_user, truth.user_row, truth.watch_seconds, truth.completed, predicted)


def _scored(name: str, found: dict[str, PairSums], config: EvaluationConfig) -> TowerScore:
    """The loss of a variant, and by how much it is above the deepest tower's, user by user."""
    own, best = found[name], found[DEEPEST]
    draws = config.bootstrap_draws, config.seed
    loss = ratio_estimate(own.counted, own.total, *draws)
    return TowerScore(name, loss, ratio_estimate(own.counted - best.counted, own.total, *draws), PAPERS[name])
