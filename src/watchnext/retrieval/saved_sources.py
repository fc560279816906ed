"""All sources of candidates on disk: the video index and the sources beside the network."""

from pathlib import Path

from watchnext.config import IndexConfig
from watchnext.events.dataset import Dataset
from watchnext.examples.next_watch import next_watches
from watchnext.retrieval.candidates import CandidateGenerator
from watchnext.retrieval.co_watch import CoWatch
from watchnext.retrieval.index.engines import build_index, open_index, save_index
from watchnext.retrieval.index.protocol import BuiltIndex
from watchnext.retrieval.network import RetrievalModel
from watchnext.retrieval.popularity import RecentPopularity

_CO_WATCHES_PER_USER = 50


def build_sources(network: RetrievalModel, dataset: Dataset, before: int, config: IndexConfig) -> CandidateGenerator:
    """Builds the index over the network's video vectors, and the other sources from watches before the moment."""
    watches = next_watches(dataset.events, before, _CO_WATCHES_PER_USER)
    return CandidateGenerator(
        network,
        build_index(network.video_vectors, config),
        CoWatch.fit(watches, dataset.num_videos, config.num_co_watched),
        RecentPopularity.fit(dataset),
    )


def save_sources(generator: CandidateGenerator, folder: Path) -> None:
    """Writes index and sources into `folder`."""
    assert isinstance(generator.index, BuiltIndex)  # `build_sources` made it
    save_index(generator.index, folder / "videos")
    generator.co_watch.save(folder / generator.co_watch.name)
    generator.popular.save(folder / generator.popular.name)


def open_sources(network: RetrievalModel, folder: Path) -> CandidateGenerator:
    """Maps what `save_sources` wrote."""
    return CandidateGenerator(
        network,
        open_index(folder / "videos"),
        CoWatch.open(folder / CoWatch.name),
        RecentPopularity.open(folder / RecentPopularity.name),
    )
