import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.functional import softplus

from watchnext.config import RankingConfig
from watchnext.examples.quantiles import Quantiles
from watchnext.features.inputs import RankingInputs
from watchnext.ranking.network import RankingBatch, RankingNetwork, RankingSizes

OF_CANDIDATES = ("video_row", "channel_row", "video_ids", "tag_rows", "values")


@pytest.fixture(scope="module")
def network(make_network) -> RankingNetwork:
    return make_network()


@pytest.fixture(scope="module")
def inputs(make_inputs) -> RankingInputs:
    return make_inputs(4, 6)


def of_candidates(inputs: RankingInputs, places) -> RankingInputs:
    """The same users with some of their candidates, in the order of `places`."""
    return dataclasses.replace(inputs, **{name: getattr(inputs, name)[:, places] for name in OF_CANDIDATES})


def test_a_batch_is_scored_as_its_users_one_by_one(network, inputs):
    together = network.expected_watch_seconds(inputs)
    alone = [network.expected_watch_seconds(inputs.part(slice(user, user + 1))) for user in range(4)]
    assert together.shape == (4, 6)
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-5)


def test_a_query_computed_once_scores_as_one_computed_for_each_candidate(network, inputs):
    together = network.expected_watch_seconds(inputs)
    alone = [network.expected_watch_seconds(of_candidates(inputs, [place])) for place in range(6)]
    np.testing.assert_allclose(together, np.concatenate(alone, axis=1), rtol=1e-5)
    assert len(np.unique(together)) == 24


def test_permuted_candidates_have_permuted_scores(network, inputs):
    order = [3, 5, 0, 1, 4, 2]
    permuted = network.expected_watch_seconds(of_candidates(inputs, order))
    np.testing.assert_allclose(permuted, network.expected_watch_seconds(inputs)[:, order], rtol=1e-5)


def test_no_candidates_have_no_scores(network, inputs):
    assert network.expected_watch_seconds(of_candidates(inputs, [])).shape == (4, 0)


def test_no_users_have_no_scores(network, inputs):
    assert network.expected_watch_seconds(inputs.part(slice(0, 0))).shape == (0, 6)


def test_a_log_without_categories_is_scored(inputs):
    sizes = RankingSizes(40, 10, 7, 3, user_categories=(), video_categories=())
    values = Quantiles.fit(np.ones((3, 2))), Quantiles.fit(np.ones((3, 3)))
    network = RankingNetwork(sizes, RankingConfig(tower=(4,)), *values, torch.Generator())
    bare = dataclasses.replace(inputs, query_ids=inputs.query_ids[:, :3], video_ids=inputs.video_ids[:, :, :0])
    assert network.expected_watch_seconds(bare).shape == (4, 6)
    assert network.expected_watch_seconds(of_candidates(bare, [])).shape == (4, 0)


def test_padding_of_bags_changes_nothing(network, inputs):
    wider = dataclasses.replace(
        inputs,
        last_watched=np.pad(inputs.last_watched, ((0, 0), (2, 1))),
        tag_rows=np.pad(inputs.tag_rows, ((0, 0), (0, 0), (1, 2))),
    )
    np.testing.assert_allclose(network.expected_watch_seconds(wider), network.expected_watch_seconds(inputs), rtol=1e-5)


@pytest.mark.parametrize("name", [spec.name for spec in dataclasses.fields(RankingInputs)])
def test_every_input_counts(network, inputs, name):
    column = getattr(inputs, name)
    turned = dataclasses.replace(inputs, **{name: np.roll(column, 1, axis=0)})
    assert not np.allclose(network.expected_watch_seconds(turned), network.expected_watch_seconds(inputs))


def test_the_tower_has_the_inputs_counted_by_hand(network):
    # Floats by log2 of the vocabulary: videos (40) 5, twice; channels (10) 3; tags (7) 3; hours (25) 5;
    # weekdays (8) 3; surfaces (3) 2; a user's category (4) 2; a video's (5 and 6) 2 and 3. 5 values take 3 each.
    assert network.tower.layers[0].in_features == 2 * 5 + 3 + 3 + 5 + 3 + 2 + 2 + 2 + 3 + 5 * 3


def test_last_watched_and_impressed_video_share_a_table(make_network, make_inputs):
    network = make_network()
    inputs = make_inputs(1, 1)
    other = dataclasses.replace(inputs, video_row=np.array([[7]]), last_watched=np.array([[8]]))
    before = network.expected_watch_seconds(other)
    for row in (7, 8):
        network.videos.weight[row] += 5.0
        after = network.expected_watch_seconds(other)
        assert not np.allclose(after, before)
        before = after


def test_unknown_values_give_a_prediction(network, inputs):
    unknown = dataclasses.replace(inputs, values=np.full_like(inputs.values, np.nan))
    assert np.isfinite(network.expected_watch_seconds(unknown)).all()


def test_expected_watch_seconds_are_the_odds_in_units(make_network, inputs):
    network = make_network(watch_unit_seconds=20.0)
    network.scale.fill_(1.5)
    with torch.no_grad():
        expected = network(inputs).exp() * 20.0 * 1.5
    np.testing.assert_allclose(network.expected_watch_seconds(inputs), expected, rtol=1e-6)


def test_predictions_start_from_the_mean_of_uncapped_watches(make_network, make_inputs):
    # Capped at 100 s the mean is 40 s, uncapped 340 s: the scale gives back the rest.
    network = make_network()
    network.start_from_mean(np.array([10.0, 10.0, 1000.0]))
    assert network.scale.item() == pytest.approx(340 / 40)
    # The initial weights, shrunken, scatter the predictions around it; 40 % covers this seed's.
    assert network.expected_watch_seconds(make_inputs(50, 20)).mean() == pytest.approx(340.0, rel=0.4)


def test_nothing_watched_gives_predictions_near_0(make_network, inputs):
    network = make_network()
    network.start_from_mean(np.zeros(5))
    assert network.expected_watch_seconds(inputs).max() < 0.01


def loss_of(network: RankingNetwork, inputs: RankingInputs, seconds: float) -> float:
    watched = torch.full((len(inputs),), seconds)
    return network.loss(RankingBatch(inputs, watched, watched > 0)).item()


def test_longer_watches_are_learnt_as_the_longest(network, make_inputs):
    shown = make_inputs(4, 1)
    assert loss_of(network, shown, 1e6) == loss_of(network, shown, 100.0)
    assert loss_of(network, shown, 99.0) < loss_of(network, shown, 100.0)


@pytest.mark.parametrize(("negatives", "as_negative"), [("all", 1.0), ("unclicked", 0.0)])
def test_loss_follows_the_settings(make_network, make_inputs, negatives, as_negative):
    network, shown = make_network(negatives=negatives, watch_unit_seconds=5.0), make_inputs(4, 1)
    logits = network(shown)[:, 0]
    # Clicks of 20 s are four units.
    expected = (4.0 * softplus(-logits) + as_negative * softplus(logits)).mean()
    assert loss_of(network, shown, 20.0) == pytest.approx(expected.item(), rel=1e-5)


def test_units_are_left_out_only_while_training(make_network, inputs):
    network = make_network().train()
    with torch.no_grad():
        assert not network(inputs).equal(network(inputs))
    served = network.expected_watch_seconds(inputs)
    np.testing.assert_array_equal(network.expected_watch_seconds(inputs), served)


def test_loss_teaches_every_layer_and_table(make_network, make_inputs):
    network = make_network().train()
    watched = torch.linspace(0.0, 90.0, 64)
    network.loss(RankingBatch(make_inputs(64, 1), watched, watched > 0)).backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in network.parameters())
    tables = [network.videos, network.channels, network.tags, *network.query_ids, *network.video_ids]
    assert all(use.gradients.abs().max() > 0 for table in tables for use in table.uses)
    assert [len(table.uses) for table in tables] == [2] + [1] * 8
