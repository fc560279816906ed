import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from watchnext.examples.next_watch import RetrievalBatch
from watchnext.examples.windows import BatchWindows
from watchnext.layers.embedding import tables_of
from watchnext.retrieval.calibration import Calibration
from watchnext.retrieval.sampling import SampledVideos

BAGS = {
    "watched": [[1, 2, 3], [4], []],
    "shown": [[1, 2, 3, 9], [4, 8], [7]],
    "tokens": [[1, 2], [], [3]],
}
ATTRIBUTES = {"categorical": [[1], [2], [0]], "continuous": [[1.0, 2.0], [5.0, np.nan], [np.nan, 19.0]]}
AGES = torch.tensor([1.0, 2.0, 3.0])


@pytest.fixture
def three(make_context):
    return make_context(**BAGS, **ATTRIBUTES)


@pytest.fixture
def network_with(make_network, retrieval_config):
    """Gives a function from settings that differ to a network; small vectors, so that no probability is 0 or 1."""

    def make(**settings):
        network = make_network(dataclasses.replace(retrieval_config, **settings))
        with torch.no_grad():
            network.users.tower.layers[-1].weight.mul_(0.1)
        return network

    return make


SIDES = pytest.mark.parametrize("videos", ["free", "tower", "both"])


def everything():
    """All videos as negatives: the full softmax."""
    return SampledVideos(torch.arange(1, 30), torch.zeros(29), torch.zeros(29))


def batch_of(context, targets, weights=None, windows=None):
    rows = torch.tensor(targets)
    weights = torch.ones(rows.shape) if weights is None else torch.tensor(weights)
    return RetrievalBatch(context, AGES, rows, weights, windows)


def logits_of(network, context, ages=AGES):
    """Those of all videos but row 0."""
    with torch.no_grad():
        users = network.users(context, ages)
    return users @ torch.from_numpy(network.trained().video_vectors[1:]).T / network.config.temperature


@SIDES
@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_probabilities_are_the_softmax_of_the_dot_products_over_all_videos(network_with, three, videos, temperature):
    network = network_with(videos=videos, temperature=temperature)
    model = network.trained()
    found = model.probabilities(three)
    assert found.shape == (3, 30) and not found[:, 0].any()
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-5)
    products = model.vectors_of(three).astype(np.float64) @ model.video_vectors.T
    for further, spread in ((1.0, 0.0), (1.7, 0.0), (1.0, 0.2), (1.7, 0.2)):
        found = dataclasses.replace(model, calibration=Calibration(further, spread)).probabilities(three)
        odds = np.exp(products[:, 1:] / temperature / further)
        expected = (
            0.8 * odds / odds.sum(axis=1, keepdims=True) + 0.2 / 29
            if spread
            else odds / odds.sum(axis=1, keepdims=True)
        )
        np.testing.assert_allclose(found[:, 1:], expected, rtol=1e-3, atol=1e-7)
        assert not found[:, 0].any()


def test_a_low_temperature_makes_the_best_more_probable(network_with, three):
    hot, cold = (network_with(temperature=value).trained().probabilities(three) for value in (2.0, 0.5))
    assert (cold.max(axis=1) > hot.max(axis=1) + 0.01).all()
    np.testing.assert_array_equal(cold.argmax(axis=1), hot.argmax(axis=1))


def test_probabilities_are_those_without_age_and_may_be_asked_for_another(network_with, three):
    model = network_with().trained()
    now = model.probabilities(three)
    np.testing.assert_allclose(now, model.probabilities(three, torch.zeros(3)))
    assert not np.allclose(now, model.probabilities(three, torch.full((3,), 5.0)))


def test_what_serves_knows_its_settings_and_has_the_towers_vectors(network_with, three):
    network = network_with(temperature=0.5)
    model = network.trained()
    assert model.config is network.config
    np.testing.assert_array_equal(model.vectors_of(three), network.users.vectors_of(three))
    assert model.video_vectors.shape == (30, 8)
    assert not model.video_vectors[0].any() and model.video_vectors[1:].any(axis=1).all()


@pytest.mark.parametrize("history", ["mean", "attention", "transformer"])
def test_probabilities_are_those_of_serving_while_training_goes_on(network_with, three, history):
    network = network_with(history=history)
    served = network.trained().probabilities(three)
    network.train()
    np.testing.assert_array_equal(network.trained().probabilities(three), served)


@SIDES
@pytest.mark.parametrize("temperature", [1.0, 0.25])
@pytest.mark.parametrize("history", ["mean", "attention", "transformer"])
def test_loss_is_the_full_softmax_over_the_video_vectors(network_with, three, videos, temperature, history):
    network = network_with(videos=videos, temperature=temperature, history=history)
    with torch.no_grad():
        loss = network.loss(batch_of(three, [[5], [6], [5]]), everything())
    expected = cross_entropy(logits_of(network, three), torch.tensor([5, 6, 5]) - 1)
    torch.testing.assert_close(loss, expected, rtol=1e-3, atol=1e-4)


def test_loss_is_the_mean_over_weights(network_with, three):
    network = network_with()
    with torch.no_grad():
        loss = network.loss(
            batch_of(three, [[5, 9], [6, 0], [5, 7]], [[1.0, 0.5], [2.0, 0.0], [0.0, 0.0]]), everything()
        )
    logs = torch.log_softmax(logits_of(network, three), dim=1)
    expected = -(1.0 * logs[0, 4] + 0.5 * logs[0, 8] + 2.0 * logs[1, 5]) / 3.5
    torch.testing.assert_close(loss, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("mask_seen", [True, False])
def test_what_was_shown_is_no_choice_where_the_settings_say_so(network_with, three, mask_seen):
    network = network_with(mask_seen=mask_seen)
    targets = torch.tensor([5, 6, 7])  # the last of them was shown to the third user
    with torch.no_grad():
        loss = network.loss(batch_of(three, targets[:, None].tolist()), everything())
    logits = logits_of(network, three)
    for user, rows in enumerate(BAGS["shown"] if mask_seen else []):
        for row in set(rows) - {int(targets[user])}:
            logits[user, row - 1] = -torch.inf
    torch.testing.assert_close(loss, cross_entropy(logits, targets - 1), rtol=1e-3, atol=1e-4)


def test_loss_reads_windows(network_with, three):
    network = network_with(history="transformer")
    windows = BatchWindows(three, torch.tensor([2, 0, 1]), torch.tensor([0, 0, 0]))
    turned = three.part(np.array([2, 0, 1]))
    columns = {name: getattr(turned, name) for name in ("video_row", "timestamp", "completed")}
    with torch.no_grad():
        found = network.loss(batch_of(three, [[5], [6], [7]], windows=windows), everything())
        expected = network.loss(batch_of(dataclasses.replace(three, **columns), [[5], [6], [7]]), everything())
        plain = network.loss(batch_of(three, [[5], [6], [7]]), everything())
    torch.testing.assert_close(found, expected)
    assert not torch.isclose(found, plain)


@SIDES
@pytest.mark.parametrize("history", ["mean", "attention", "transformer"])
def test_loss_teaches_every_parameter_and_every_table(network_with, three, videos, history):
    settings = {"dropout": 0.0, "history_bags": ("channel", "tags", "language", "mood")}
    network = network_with(videos=videos, history=history, last_relu=False, **settings).train()
    network.loss(batch_of(three, [[5], [6], [7]]), everything()).backward()
    unmoved = [name for name, part in network.named_parameters() if part.grad is None or not part.grad.any()]
    # A bias for events at one distance, say, learns nothing where nobody has two.
    assert unmoved == []
    for table in tables_of(network):
        assert any(use.gradients.any() for use in table.uses)


def test_the_watched_bag_has_another_table_than_the_softmax(network_with):
    network = network_with()
    assert network.users.history.watched.weight.data_ptr() != network.videos.weight.data_ptr()
