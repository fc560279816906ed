import dataclasses

import numpy as np
import pytest

from watchnext.serving.stages import inputs_of, request_context


@pytest.mark.parametrize("ranking_length", [10, 80])
def test_the_context_is_as_long_as_the_longer_of_both_histories(recommender, ranking_length):
    bundle = recommender.bundle
    settings = dataclasses.replace(bundle.feature_settings, history_length=ranking_length)
    context = request_context(bundle.dataset, np.array([1]), np.array([2_000_000_000]), bundle.generator, settings)
    assert context.video_row.shape == (1, max(50, ranking_length))


def test_the_inputs_hold_what_each_source_nominated(recommender):
    bundle = recommender.bundle
    users, moments = np.array([1, 2]), np.full(2, bundle.dataset.log_end)
    context = request_context(bundle.dataset, users, moments, bundle.generator, bundle.feature_settings)
    candidates = bundle.generator.candidates(context, 10)
    inputs = inputs_of(bundle.dataset, context, np.zeros(2, np.int64), candidates, bundle.feature_settings)
    np.testing.assert_array_equal(inputs.video_row, candidates.video_row)
    np.testing.assert_allclose(inputs.values[:, :, 1], candidates.network_score, rtol=1e-6)
    np.testing.assert_array_equal(inputs.values[:, :, 2], candidates.nominated.sum(axis=2))
