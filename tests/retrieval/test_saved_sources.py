import dataclasses

import numpy as np
import pytest

from watchnext.config import IndexConfig
from watchnext.retrieval.candidates import Wish
from watchnext.retrieval.index.packed import PackedVectors
from watchnext.retrieval.saved_sources import build_sources, open_sources, save_sources


@pytest.mark.parametrize("engine", ["exact", "cells", "faiss"])
def test_opened_sources_give_the_same_candidates(small_bundle, small_context, tmp_path, engine):
    network, dataset = small_bundle.generator.network, small_bundle.dataset
    stored = PackedVectors.of(network.video_vectors)[:]  # as cells are stored
    network = dataclasses.replace(network, video_vectors=stored)
    built = build_sources(network, dataset, dataset.test_start, IndexConfig(engine=engine))
    save_sources(built, tmp_path)
    opened = open_sources(network, tmp_path)
    assert type(opened.index) is type(built.index)
    one, other = (generator.candidates(small_context, Wish(10)) for generator in (built, opened))
    assert one.sources == other.sources
    for column in ("video_row", "rank"):
        np.testing.assert_array_equal(getattr(one, column), getattr(other, column))
    for column in ("network_score", "source_score"):  # sums are added up in another order
        np.testing.assert_allclose(getattr(one, column), getattr(other, column), rtol=1e-5, atol=1e-6)


def test_co_watches_come_from_before_the_moment_only(small_bundle):
    network, dataset = small_bundle.generator.network, small_bundle.dataset
    events = dataset.events
    later = events.segments.timestamp >= dataset.ranking_start
    changed = dataclasses.replace(
        dataset, events=dataclasses.replace(events, video_row=np.where(later, 1, events.video_row).astype(np.int32))
    )
    one, other = (
        build_sources(network, data, dataset.ranking_start, IndexConfig()).co_watch for data in (dataset, changed)
    )
    np.testing.assert_array_equal(one.neighbour_row, other.neighbour_row)
    np.testing.assert_array_equal(one.similarity, other.similarity)


def test_the_settings_limit_the_neighbours(small_bundle):
    network, dataset = small_bundle.generator.network, small_bundle.dataset
    built = build_sources(network, dataset, dataset.test_start, IndexConfig(num_co_watched=3))
    assert np.diff(built.co_watch.offsets).max() == 3
