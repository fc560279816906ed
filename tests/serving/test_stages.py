import dataclasses

import numpy as np
import pytest

from watchnext.retrieval.candidates import Wish
from watchnext.serving.stages import inputs_of, request_context


@pytest.mark.parametrize("ranking_length", [10, 80])
def test_the_context_is_as_long_as_the_longer_of_both_histories(recommender, ranking_length):
    bundle = recommender.bundle
    config = dataclasses.replace(bundle.features.config, last_watches=ranking_length)
    spec = dataclasses.replace(bundle.features, config=config)
    context = request_context(bundle.dataset, np.array([1]), np.array([2_000_000_000]), bundle.generator, spec)
    assert context.video_row.shape == (1, max(50, ranking_length))


def test_the_inputs_hold_what_each_source_nominated(recommender):
    bundle = recommender.bundle
    users, moments = np.array([1, 2]), np.full(2, bundle.dataset.log_end)
    context = request_context(bundle.dataset, users, moments, bundle.generator, bundle.features)
    candidates = bundle.generator.candidates(context, Wish(10))
    values = bundle.state.read(bundle.dataset.events, users, moments, candidates.video_row)
    inputs = inputs_of(bundle.dataset.videos, context, np.zeros(2, np.int64), candidates, values, bundle.features)
    names = [bundle.features.names[place] for place in bundle.features.places]
    np.testing.assert_array_equal(inputs.video_row, candidates.video_row)
    np.testing.assert_allclose(inputs.values[:, :, names.index("network_score")], candidates.network_score, rtol=1e-6)
    num_sources = candidates.nominated[:, :, :3].sum(axis=2)
    np.testing.assert_array_equal(inputs.values[:, :, names.index("num_sources")], num_sources)
    for place, source in enumerate(bundle.generator.sources):
        ranks = np.where(candidates.rank[:, :, place] > 0, candidates.rank[:, :, place], np.nan)
        np.testing.assert_array_equal(inputs.values[:, :, names.index(f"rank_by.{source}")], ranks)
    of_popular = inputs.values[:, :, names.index("score_by.popular")]
    np.testing.assert_array_equal(of_popular, candidates.source_score[:, :, 2])
    assert 0 < np.isnan(of_popular).sum() < of_popular.size
