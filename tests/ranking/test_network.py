import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.functional import softplus

from watchnext.config import RankingConfig
from watchnext.examples.quantiles import Quantiles
from watchnext.features.inputs import QUERY_IDS, RankingInputs
from watchnext.ranking.network import RankingBatch, RankingNetwork, RankingSizes
from watchnext.ranking.objectives import Outcomes
from watchnext.training.learner import Learner, Schedule

OF_CANDIDATES = ("video_row", "channel_row", "video_ids", "tag_rows", "values", "duration_seconds")


def seconds(network: RankingNetwork, inputs: RankingInputs) -> np.ndarray:
    return network.predictions(inputs).expected_watch_seconds


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
    together = seconds(network, inputs)
    alone = [seconds(network, inputs.part(slice(user, user + 1))) for user in range(4)]
    assert together.shape == (4, 6)
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-5)


def test_a_query_computed_once_scores_as_one_computed_for_each_candidate(network, inputs):
    together = seconds(network, inputs)
    alone = [seconds(network, of_candidates(inputs, [place])) for place in range(6)]
    np.testing.assert_allclose(together, np.concatenate(alone, axis=1), rtol=1e-5)
    assert len(np.unique(together)) == 24


def test_permuted_candidates_have_permuted_scores(network, inputs):
    order = [3, 5, 0, 1, 4, 2]
    permuted = seconds(network, of_candidates(inputs, order))
    np.testing.assert_allclose(permuted, seconds(network, inputs)[:, order], rtol=1e-5)


def test_no_candidates_have_no_scores(network, inputs):
    assert seconds(network, of_candidates(inputs, [])).shape == (4, 0)


def test_no_users_have_no_scores(network, inputs):
    assert seconds(network, inputs.part(slice(0, 0))).shape == (0, 6)


def test_a_log_without_categories_is_scored(inputs):
    sizes = RankingSizes(40, 10, 7, 3, user_categories=(), video_categories=())
    values = Quantiles.fit(np.ones((3, 2))), Quantiles.fit(np.ones((3, 3)))
    network = RankingNetwork(sizes, RankingConfig(tower=(4,)), *values, torch.Generator())
    bare = dataclasses.replace(inputs, query_ids=inputs.query_ids[:, :3], video_ids=inputs.video_ids[:, :, :0])
    assert seconds(network, bare).shape == (4, 6)
    assert seconds(network, of_candidates(bare, [])).shape == (4, 0)


def test_padding_of_bags_changes_nothing(network, inputs):
    wider = dataclasses.replace(
        inputs,
        last_watched=np.pad(inputs.last_watched, ((0, 0), (2, 1))),
        tag_rows=np.pad(inputs.tag_rows, ((0, 0), (0, 0), (1, 2))),
    )
    np.testing.assert_allclose(seconds(network, wider), seconds(network, inputs), rtol=1e-5)


@pytest.mark.parametrize("name", [spec.name for spec in dataclasses.fields(RankingInputs)][:-1])
def test_every_input_counts(network, inputs, name):
    column = getattr(inputs, name)
    turned = dataclasses.replace(inputs, **{name: np.roll(column, 1, axis=0)})
    assert not np.allclose(seconds(network, turned), seconds(network, inputs))


def test_the_tower_has_the_inputs_counted_by_hand(network):
    # Floats by log2 of the vocabulary: videos (40) 5, twice; channels (10) 3; tags (7) 3; hours (25) 5;
    # weekdays (8) 3; surfaces (3) 2; a user's category (4) 2; a video's (5 and 6) 2 and 3. 5 values take 3 each.
    assert network.tower.layers[0].in_features == 2 * 5 + 3 + 3 + 5 + 3 + 2 + 2 + 2 + 3 + 5 * 3


def test_last_watched_and_impressed_video_share_a_table(make_network, make_inputs):
    network = make_network()
    inputs = make_inputs(1, 1)
    other = dataclasses.replace(inputs, video_row=np.array([[7]]), last_watched=np.array([[8]]))
    before = seconds(network, other)
    for row in (7, 8):
        network.videos.weight[row] += 5.0
        after = seconds(network, other)
        assert not np.allclose(after, before)
        before = after


def test_unknown_values_give_a_prediction(network, inputs):
    unknown = dataclasses.replace(inputs, values=np.full_like(inputs.values, np.nan))
    assert np.isfinite(seconds(network, unknown)).all()


def test_expected_watch_seconds_are_the_odds_in_units(make_network, inputs):
    network = make_network(watch_unit_seconds=20.0)
    network.calibration.scale.fill_(1.5)
    with torch.no_grad():
        odds = network(inputs)[:, :, 0].exp()
    np.testing.assert_allclose(seconds(network, inputs), odds * 20.0 * 1.5, rtol=1e-6)


def test_two_objectives_share_the_work(make_network, inputs):
    """The first gives the order, the last the seconds; as made, calibration takes the seconds."""
    network = make_network(objectives=("log_squared", "tweedie"), watch_unit_seconds=10.0, head_weight=0.0)
    with torch.no_grad():
        outputs = network(inputs)
    assert outputs.shape == (4, 6, 2)
    np.testing.assert_allclose(seconds(network, inputs), outputs[:, :, 1].exp() * 10.0, rtol=1e-6)
    order, mean = network._order_and_mean(outputs.flatten(0, 1), inputs)
    np.testing.assert_allclose(order, outputs[:, :, 0].flatten().expm1().clamp(min=0.0), rtol=1e-6)
    np.testing.assert_allclose(mean, outputs[:, :, 1].flatten().exp() * 10.0, rtol=1e-6)


@pytest.mark.parametrize(("power", "place"), [("click_power", 0), ("completion_power", 1), ("like_power", 2)])
def test_the_score_is_the_stated_product(make_network, inputs, power, place):
    network = make_network(**{power: 2.0})
    with torch.no_grad():
        chance = torch.sigmoid(network(inputs)[:, :, 1 + place])
    said = network.predictions(inputs)
    np.testing.assert_allclose(said.score, said.expected_watch_seconds * chance.numpy() ** 2, rtol=1e-5)
    assert np.ptp(chance.numpy()) > 0.1


def test_without_powers_the_score_is_the_expected_watch_time(network, inputs):
    said = network.predictions(inputs)
    np.testing.assert_array_equal(said.score, said.expected_watch_seconds)


def test_predictions_start_from_the_means(make_network, make_inputs, make_outcomes):
    # Watch times of 10, 10 and 60 (of 1,000, cut at 100: 40 in the mean) and a third liked and completed.
    network = make_network()
    network.start_from(make_outcomes(torch.tensor([10.0, 10.0, 1000.0])))
    # The initial weights, shrunken, scatter the predictions around it; 40 % covers this seed's.
    assert seconds(network, make_inputs(50, 20)).mean() == pytest.approx(40.0, rel=0.4)
    chances = torch.sigmoid(network.outputs.bias[1:])
    assert chances.tolist() == pytest.approx([1.0, 1 / 3, 1 / 3], abs=1e-3)


def test_nothing_watched_gives_predictions_near_0(make_network, inputs, make_outcomes):
    network = make_network()
    network.start_from(make_outcomes(torch.zeros(5)))
    assert seconds(network, inputs).max() < 0.01


def batch_of(inputs: RankingInputs, outcomes: Outcomes, position: int = 0) -> RankingBatch:
    return RankingBatch(inputs, np.full(len(inputs), position), outcomes)


def test_longer_watches_are_learnt_as_the_longest(network, make_inputs, make_outcomes):
    shown = make_inputs(4, 1)
    losses = [network.loss(batch_of(shown, make_outcomes(torch.full((4,), length)))) for length in (1e6, 100.0, 99.0)]
    assert losses[0] == losses[1]
    assert losses[2] < losses[1]


def test_the_loss_is_the_sum_of_objectives_and_weighted_heads(make_network, make_inputs, make_outcomes):
    network, shown = make_network(head_weight=0.5, watch_unit_seconds=5.0), make_inputs(3, 1)
    outcomes = make_outcomes(torch.tensor([0.0, 30.0, 70.0]))
    outputs = network(shown)[:, 0]
    logit = outputs[:, 0]
    expected = (torch.tensor([0.0, 6.0, 14.0]) * softplus(-logit) + softplus(logit)).mean()
    for place, labels in enumerate([[0.0, 1.0, 1.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0]], start=1):
        chances = torch.sigmoid(outputs[:, place])
        right = torch.where(torch.tensor(labels) > 0, chances, 1.0 - chances)
        expected = expected - 0.5 * right.log().mean()
    assert network.loss(batch_of(shown, outcomes)).item() == pytest.approx(expected.item(), rel=1e-5)


def test_without_head_weight_there_are_no_heads(make_network, make_inputs, make_outcomes):
    network, shown = make_network(head_weight=0.0), make_inputs(3, 1)
    assert network(shown).shape == (3, 1, 1)
    assert network.loss(batch_of(shown, make_outcomes(torch.tensor([0.0, 30.0, 70.0])))).isfinite()
    assert np.isfinite(seconds(network, shown)).all()


def test_units_are_left_out_only_while_training(make_network, inputs):
    network = make_network().train()
    with torch.no_grad():
        assert not network(inputs).equal(network(inputs))
    served = seconds(network, inputs)
    np.testing.assert_array_equal(seconds(network, inputs), served)


def test_loss_teaches_every_layer_and_table(make_network, make_inputs, make_outcomes):
    network = make_network().train()
    batch = batch_of(make_inputs(64, 1), make_outcomes(torch.linspace(0.0, 90.0, 64)), position=3)
    network.loss(batch).backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in network.parameters())
    tables = [network.videos, network.channels, network.tags, *network.query_ids, *network.video_ids, network.positions]
    assert all(use.gradients.abs().max() > 0 for table in tables for use in table.uses)
    assert [len(table.uses) for table in tables] == [2] + [1] * 9


def losses_at(network: RankingNetwork, inputs: RankingInputs, outcomes: Outcomes, positions: list[int]) -> list[float]:
    with torch.no_grad():
        return [network.loss(batch_of(inputs, outcomes, place)).item() for place in positions]


def test_the_position_counts_in_training_alone(make_network, make_inputs, make_outcomes):
    network, shown = make_network(dropout=0.0, bias_dropout=0.0), make_inputs(8, 1)
    network.positions.weight[1:] = torch.arange(1.0, 101.0)[:, None] / 50.0
    outcomes = make_outcomes(torch.full((8,), 30.0))
    network.train()
    unknown, first, last, beyond = losses_at(network, shown, outcomes, [0, 1, 100, 5000])
    assert len({unknown, first, last}) == 3
    assert last == beyond
    network.eval()
    assert losses_at(network, shown, outcomes, [0, 1, 100]) == [pytest.approx(unknown)] * 3


def test_some_impressions_are_learnt_without_position_and_surface(make_network, make_inputs, make_outcomes):
    network, shown = make_network(bias_dropout=0.3), make_inputs(2000, 1)
    everywhere = dataclasses.replace(shown, query_ids=np.maximum(shown.query_ids, 1))
    inputs, position = network._some_without_bias(batch_of(everywhere, make_outcomes(torch.zeros(2000)), 7))
    surface = QUERY_IDS.index("surface")
    gone = position == 0
    assert gone.mean() == pytest.approx(0.3, abs=0.05)
    np.testing.assert_array_equal(inputs.query_ids[:, surface] == 0, gone)
    np.testing.assert_array_equal(np.delete(inputs.query_ids, surface, 1), np.delete(everywhere.query_ids, surface, 1))
    assert everywhere.query_ids.min() == 1, "the inputs themselves stay as they are"


def test_a_world_where_only_the_place_counts_is_told_apart(make_network, make_inputs, make_outcomes):
    """Places 1 are watched for 60 s, others not: without a place, everything is expected alike, in the middle."""
    network, shown = make_network(dropout=0.0, bias_dropout=0.1, head_weight=0.0), make_inputs(256, 1)
    network.start_from(make_outcomes(torch.tensor([60.0, 0.0])))
    learner = Learner(network, Schedule(1, 1, 0.01, 1.0, 1))
    first = np.arange(256) % 2 == 0
    outcomes = make_outcomes(torch.from_numpy(np.where(first, 60.0, 0.0)).float())
    batch = RankingBatch(shown, np.where(first, 1, 2), outcomes)
    network.train()
    for step in range(100):
        learner.step(network.loss, batch, step, 0.0)
    with torch.no_grad():
        network.train()
        outputs = network(shown)[:, 0, 0]
    biases = network.positions.weight[1:3, 0]
    assert (biases[0] - biases[1]).item() > 3.0
    assert seconds(network, make_inputs(200, 1, seed=9)).mean() == pytest.approx(30.0, rel=0.5)
    assert outputs.isfinite().all()


def test_calibration_makes_the_sum_right(make_network, make_inputs):
    network, shown = make_network(), make_inputs(3000, 1)
    watched = np.random.default_rng(3).exponential(25.0, 3000)
    before = seconds(network, shown)[:, 0]
    network.calibrate(shown, watched)
    after = seconds(network, shown)[:, 0]
    assert after.sum() == pytest.approx(watched.sum(), rel=1e-3)
    assert abs(before.sum() / watched.sum() - 1) > 0.05


def test_a_network_that_has_learnt_its_impressions_takes_the_curve_of_another(make_network, make_inputs):
    other, network, shown = make_network(seed=1), make_network(seed=2), make_inputs(3000, 1)
    watched = np.random.default_rng(3).exponential(25.0, 3000)
    other.calibrate(shown, watched)
    network.calibrate(shown, watched, like=other.calibration)
    curve, borrowed = other.calibration.seconds, network.calibration.seconds
    np.testing.assert_allclose(borrowed / borrowed.mean(), curve / curve.mean(), rtol=1e-5)
    assert not np.allclose(network.calibration.quantiles, other.calibration.quantiles)
    assert seconds(network, shown).sum() == pytest.approx(watched.sum(), rel=1e-3)


@pytest.mark.parametrize("powers", [True, False])
def test_powers_can_be_left_out(make_network, inputs, powers):
    network = make_network(powers=powers)
    assert network.tower.layers[0].in_features == 33 + 5 * (3 if powers else 1)
    assert np.isfinite(seconds(network, inputs)).all()
