"""All sources of candidates on disk: the video index and the sources beside the network."""

from pathlib import Path

import numpy as np

from watchnext.config import IndexConfig
from watchnext.events.dataset import Dataset
from watchnext.examples.contexts import context_as_of
from watchnext.examples.next_watch import next_watches
from watchnext.retrieval.candidates import CandidateGenerator
from watchnext.retrieval.channels import WatchedChannels
from watchnext.retrieval.co_watch import CoWatch
from watchnext.retrieval.fresh import FreshUploads
from watchnext.retrieval.index.engines import build_index, open_index, save_index
from watchnext.retrieval.index.protocol import BuiltIndex, TunableIndex
from watchnext.retrieval.index.tuning import tuned
from watchnext.retrieval.network import RetrievalModel
from watchnext.retrieval.popularity import RecentPopularity
from watchnext.shapes import Array, Float

_CO_WATCHES_PER_USER = 50
_TUNED_ON_USERS = 300


def build_sources(network: RetrievalModel, dataset: Dataset, before: int, config: IndexConfig) -> CandidateGenerator:
    """Builds the index over the network's video vectors, and the other sources from watches before the moment."""
    watches = next_watches(dataset.events, before, _CO_WATCHES_PER_USER)
    index = build_index(network.video_vectors, config)
    if isinstance(index, TunableIndex):
        index = tuned(index, _users_vectors(network, dataset, before), config.tuned_k, config.target_recall)
    return CandidateGenerator(
        network,
        index,
        CoWatch.fit(watches, dataset.num_videos, config.num_co_watched),
        RecentPopularity.fit(dataset),
        (FreshUploads.fit(dataset.videos), WatchedChannels.fit(dataset.videos)),
    )


def _users_vectors(network: RetrievalModel, dataset: Dataset, before: int) -> Float[Array, "users dim"]:
    """Vectors of some users as of the moment, those with a history first of all."""
    segments = dataset.events.segments
    everyone = np.arange(len(segments.offsets) - 1)
    known = everyone[segments.ends_before(everyone, np.full(len(everyone), before)) > segments.offsets[:-1]]
    users = np.random.default_rng(0).permutation(known if len(known) else everyone)[:_TUNED_ON_USERS]
    length, tokens = network.config.history_length, network.config.num_search_tokens
    return network.vectors_of(context_as_of(dataset, users, np.full(len(users), before), length, tokens))


def save_sources(generator: CandidateGenerator, folder: Path) -> None:
    """Writes index and sources into `folder`."""
    assert isinstance(generator.index, BuiltIndex)  # `build_sources` made it
    save_index(generator.index, folder / "videos")
    for source in (*generator.others, *generator.beside):
        assert isinstance(source, CoWatch | RecentPopularity | FreshUploads | WatchedChannels)
        source.save(folder / source.name)


def open_sources(network: RetrievalModel, folder: Path) -> CandidateGenerator:
    """Maps what `save_sources` wrote."""
    return CandidateGenerator(
        network,
        open_index(folder / "videos"),
        CoWatch.open(folder / CoWatch.name),
        RecentPopularity.open(folder / RecentPopularity.name),
        (FreshUploads.open(folder / FreshUploads.name), WatchedChannels.open(folder / WatchedChannels.name)),
    )
