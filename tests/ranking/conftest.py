"""A small ranking network with made-up inputs."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from watchnext.config import RankingConfig
from watchnext.examples.quantiles import Quantiles
from watchnext.features.inputs import RankingInputs
from watchnext.layers.embedding import tables_of
from watchnext.ranking.network import RankingNetwork, RankingSizes
from watchnext.ranking.objectives import Outcomes

SIZES = RankingSizes(
    num_videos=40, num_channels=10, num_tags=7, num_surfaces=3, user_categories=(4,), video_categories=(5, 6)
)
CONFIG = RankingConfig(tower=(16, 8), objectives=("weighted_logistic",), dropout=0.5, max_watch_seconds=100.0)


def inputs_of(batch: int, candidates: int, seed: int = 0) -> RankingInputs:
    random = np.random.default_rng(seed)

    def ids(size: int, *shape: int) -> np.ndarray:
        return random.integers(0, size, shape)

    return RankingInputs(
        query_ids=np.column_stack([ids(size, batch) for size in (25, 8, 3, 4)]),
        last_watched=ids(40, batch, 5),
        query_values=random.normal(size=(batch, 2)).astype(np.float32),
        video_row=ids(40, batch, candidates),
        channel_row=ids(10, batch, candidates),
        video_ids=np.stack([ids(size, batch, candidates) for size in (5, 6)], axis=2),
        tag_rows=ids(7, batch, candidates, 3),
        values=random.normal(size=(batch, candidates, 3)).astype(np.float32),
        duration_seconds=random.uniform(5.0, 300.0, (batch, candidates)).astype(np.float32),
    )


def outcomes_of(watch_seconds: torch.Tensor) -> Outcomes:
    """Clicked if watched at all, completed from 20 seconds on, liked from 60, of videos of one minute."""
    durations = torch.full_like(watch_seconds, 60.0)
    return Outcomes(watch_seconds, durations, watch_seconds > 0, watch_seconds >= 20, watch_seconds >= 60)


def network_of(seed: int = 0, **changes) -> RankingNetwork:
    random = torch.Generator().manual_seed(seed)
    values = np.random.default_rng(seed).normal(size=(100, 5))
    quantiles = Quantiles.fit(values[:, :2]), Quantiles.fit(values[:, 2:])
    network = RankingNetwork(SIZES, dataclasses.replace(CONFIG, **changes), *quantiles, random)
    for table in tables_of(network):
        # Larger than the initial values, so that every input shows in the prediction.
        table.weight[1:] = torch.randn(table.weight[1:].shape, generator=random)
    return network.eval()


@pytest.fixture(scope="session")
def make_inputs() -> Callable[..., RankingInputs]:
    """Makes inputs of the given numbers of users and candidates."""
    return inputs_of


@pytest.fixture(scope="session")
def make_outcomes() -> Callable[..., Outcomes]:
    """Makes outcomes from watch times."""
    return outcomes_of


@pytest.fixture(scope="session")
def make_network() -> Callable[..., RankingNetwork]:
    """Makes a network from a seed and changes of its settings."""
    return network_of
