"""Contexts, videos and networks made by hand, and the generator of the small world."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from watchnext.bundle.bundle import Bundle
from watchnext.config import RetrievalConfig
from watchnext.events.dataset import VideoTable
from watchnext.examples.contexts import UserContext, context_as_of
from watchnext.examples.quantiles import Quantiles
from watchnext.layers.embedding import IN_MEMORY, TableStorage, tables_of
from watchnext.retrieval.network import RetrievalNetwork
from watchnext.retrieval.sizes import RetrievalSizes

ContextMaker = Callable[..., UserContext]
NetworkMaker = Callable[..., RetrievalNetwork]

CONFIG = RetrievalConfig(
    history_length=6, num_search_tokens=4, tower=(16, 8), embedding_dim=8, video_tower=(16,), dropout=0.5
)
SIZES = RetrievalSizes(
    num_videos=30,
    num_search_tokens=20,
    num_channels=6,
    num_tags=9,
    num_title_tokens=12,
    user_categories=(5,),
    video_categories=(("language", 4), ("mood", 5)),
    num_user_values=2,
    num_video_values=2,
    has_impressions=True,
    training_days=10.0,
)


def known_videos() -> VideoTable:
    """Thirty rows; nobody completed the last five."""
    random = np.random.default_rng(0)
    table = VideoTable(
        channel_row=random.integers(1, 6, 30).astype(np.int32),
        categorical=np.stack([random.integers(0, size, 30) for size in (4, 5)], axis=1).astype(np.int32),
        continuous=np.where(random.random((30, 2)) < 0.2, np.nan, random.random((30, 2))).astype(np.float32),
        tag_rows=random.integers(0, 9, (30, 3)).astype(np.int32),
        title_rows=random.integers(0, 12, (30, 4)).astype(np.int32),
        uploaded_at=np.zeros(30, dtype=np.int64),
        num_completed=np.where(np.arange(30) < 25, 30 - np.arange(30), 0),
    )
    for column in vars(table).values():
        column[0] = 0
    table.continuous[0] = np.nan
    return table


def network_of(
    config: RetrievalConfig = CONFIG,
    videos: VideoTable | None = None,
    seed: int = 0,
    storage: TableStorage = IN_MEMORY,
    user_quantiles: Quantiles | None = None,
    **sizes,
) -> RetrievalNetwork:
    random = torch.Generator().manual_seed(seed)
    user_quantiles = user_quantiles or Quantiles.fit(np.arange(20.0).reshape(10, 2) + seed)
    video_quantiles = Quantiles.fit(np.arange(20.0).reshape(10, 2) / 20)
    sizes = dataclasses.replace(SIZES, **sizes)
    network = RetrievalNetwork(
        sizes, config, user_quantiles, video_quantiles, videos or known_videos(), random, storage
    )
    for table in tables_of(network):
        # Larger than the initial values, so that every input shows in the vector.
        table.weight[1:] = torch.randn(table.weight[1:].shape, generator=random)
    return network.eval()


@pytest.fixture(scope="session")
def retrieval_config() -> RetrievalConfig:
    """A small network's settings."""
    return CONFIG


@pytest.fixture
def videos() -> VideoTable:
    """What is known of thirty videos."""
    return known_videos()


@pytest.fixture(scope="session")
def make_network() -> NetworkMaker:
    """Makes a network over these videos, by default of those settings; further arguments change its sizes."""
    return network_of


def padded_rows(rows: Sequence[Sequence[int]], width: int) -> np.ndarray:
    return np.array([[*row, *[0] * (width - len(row))] for row in rows], dtype=np.int64).reshape(len(rows), width)


def context_of(watched, shown=None, tokens=None, categorical=None, continuous=None, moment=1_000) -> UserContext:
    batch = len(watched)
    shown = watched if shown is None else shown
    tokens = [[]] * batch if tokens is None else tokens
    length = max(len(row) for row in [*watched, *shown])
    watched_row, video_row = padded_rows(watched, length), padded_rows(shown, length)
    real = video_row > 0
    return UserContext(
        user_row=np.arange(1, batch + 1),
        moment=np.broadcast_to(np.array(moment, dtype=np.int64), batch),
        video_row=video_row,
        timestamp=np.where(real, 1, 0),
        watch_seconds=np.where(real, 1.0, np.nan),
        clicked=real,
        completed=real,
        watched_row=watched_row,
        token_row=padded_rows(tokens, max(len(row) for row in tokens)),
        categorical=np.array(categorical if categorical is not None else [[]] * batch, dtype=np.int64),
        continuous=np.array(continuous if continuous is not None else [[]] * batch, dtype=np.float64),
    )


@pytest.fixture(scope="session")
def make_context() -> ContextMaker:
    """Makes a context of lists: what each user watched, and optionally was shown, searched and is."""
    return context_of


@pytest.fixture(scope="session")
def small_bundle(small_run) -> Bundle:
    return Bundle.open(small_run.bundle)


@pytest.fixture(scope="session")
def small_context(small_bundle) -> UserContext:
    """Twenty users of the small world at the end of its log."""
    users = np.arange(1, 21)
    return context_as_of(small_bundle.dataset, users, np.full(20, small_bundle.dataset.log_end), 50, 50)
