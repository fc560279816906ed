import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from watchnext.config import RetrievalConfig
from watchnext.examples.next_watch import RetrievalBatch
from watchnext.examples.quantiles import Quantiles
from watchnext.layers.embedding import tables_of
from watchnext.retrieval.network import RetrievalNetwork, RetrievalSizes
from watchnext.retrieval.sampling import EveryVideo

CONFIG = RetrievalConfig(history_length=6, num_search_tokens=4, tower=(16, 8), embedding_dim=8, dropout=0.5)
SIZES = RetrievalSizes(
    num_videos=30,
    num_search_tokens=20,
    user_categories=(5,),
    num_user_values=2,
    has_impressions=True,
    training_days=10.0,
)


def network_of(config: RetrievalConfig = CONFIG, **changes) -> RetrievalNetwork:
    random = torch.Generator().manual_seed(0)
    quantiles = Quantiles.fit(np.arange(20.0).reshape(10, 2))
    network = RetrievalNetwork(dataclasses.replace(SIZES, **changes), config, quantiles, random)
    for table in tables_of(network):
        # Larger than the initial values, so that every input shows in the vector.
        table.weight[1:] = torch.randn(table.weight[1:].shape, generator=random)
    return network.eval()


@pytest.fixture(scope="module")
def network() -> RetrievalNetwork:
    return network_of()


BAGS = {
    "watched": [[1, 2, 3], [4], []],
    "shown": [[1, 2, 3, 9], [4, 8], [7]],
    "tokens": [[1, 2], [], [3]],
}
ATTRIBUTES = {"categorical": [[1], [2], [0]], "continuous": [[1.0, 2.0], [5.0, np.nan], [np.nan, 19.0]]}


@pytest.fixture
def three(make_context):
    return make_context(**BAGS, **ATTRIBUTES)


def replaced(context, **columns):
    return dataclasses.replace(context, **columns)


def test_serving_is_example_age_zero(network, three):
    served = torch.from_numpy(network.vectors_of(three))
    assert served.equal(network.user_vectors(three, torch.zeros(3)))
    assert not served.allclose(network.user_vectors(three, torch.full((3,), 5.0)))


def test_ages_beyond_the_training_period_count_as_its_length(network, three):
    oldest, older = (network.user_vectors(three, torch.full((3,), age)) for age in (10.0, 11.0))
    assert oldest.equal(older)


@pytest.mark.parametrize("example_age", [True, False])
def test_the_example_age_counts_only_where_the_settings_say_so(three, example_age):
    network = network_of(dataclasses.replace(CONFIG, example_age=example_age))
    ages, none = torch.tensor([1.0, 5.0, 9.0]), torch.zeros(3)
    assert network.user_vectors(three, ages).equal(network.user_vectors(three, none)) is not example_age
    losses = (
        network.loss(RetrievalBatch(three, age, torch.tensor([5, 6, 7])), EveryVideo(30).sample(torch.Generator()))
        for age in (ages, none)
    )
    assert (next(losses) == next(losses)).item() is not example_age


def test_vectors_are_those_of_single_users(network, three):
    together = network.vectors_of(three)
    alone = [network.vectors_of(three.part(slice(place, place + 1))) for place in range(3)]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-5, atol=1e-6)


def test_order_of_watches_impressions_and_searches_does_not_matter(network, three):
    turned = replaced(
        three,
        watched_row=three.watched_row[:, ::-1],
        video_row=three.video_row[:, ::-1],
        token_row=three.token_row[:, ::-1],
    )
    np.testing.assert_allclose(network.vectors_of(turned), network.vectors_of(three), rtol=1e-5, atol=1e-6)


def test_padding_changes_nothing(network, three, make_context):
    padded = make_context(**{name: [[0, *bag, 0] for bag in bags] for name, bags in BAGS.items()}, **ATTRIBUTES)
    np.testing.assert_allclose(network.vectors_of(padded), network.vectors_of(three), rtol=1e-5, atol=1e-6)


def test_only_the_newest_part_of_a_longer_context_is_used(network, make_context):
    newest = dict(watched=[[1, 2, 3, 4, 5, 6]], shown=[[6, 5, 4, 3, 2, 1]], tokens=[[1, 2, 3, 4]])
    same = dict(categorical=[[1]], continuous=[[1.0, 2.0]])
    longer = {name: [[*rows[0], 9, 10]] for name, rows in newest.items()}
    one, other = (network.vectors_of(make_context(**lists, **same)) for lists in (newest, longer))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("column", ["watched_row", "video_row", "token_row", "categorical", "continuous"])
def test_every_input_counts(network, three, column):
    changed = replaced(three, **{column: np.where(getattr(three, column) == 1, 4, getattr(three, column))})
    before, after = network.vectors_of(three), network.vectors_of(changed)
    assert not np.allclose(before[0], after[0])
    np.testing.assert_allclose(before[1:], after[1:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "ignored", "num_inputs"),
    [
        # Bags of 8 each; a category of 5 values takes 2 floats; 2 values and the age take 3 each.
        ({}, [], 3 * 8 + 2 + 3 * 2 + 3),
        ({"has_impressions": False}, ["video_row"], 2 * 8 + 2 + 3 * 2 + 3),
        ({"num_search_tokens": 0}, ["token_row"], 2 * 8 + 2 + 3 * 2 + 3),
        ({"has_impressions": False, "num_search_tokens": 0}, ["video_row", "token_row"], 8 + 2 + 3 * 2 + 3),
    ],
)
def test_a_log_without_impressions_or_searches_has_no_input_for_them(three, changes, ignored, num_inputs):
    network = network_of(**changes)
    assert network.tower.layers[0].in_features == num_inputs
    emptied = replaced(three, **{column: np.zeros_like(getattr(three, column)) for column in ignored})
    np.testing.assert_array_equal(network.vectors_of(emptied), network.vectors_of(three))


def test_watches_are_left_out_only_while_training(three):
    network = network_of()
    served = [network.user_vectors(three) for _ in range(2)]
    network.train()
    with torch.no_grad():
        training = [network.user_vectors(three) for _ in range(4)]
    assert served[0].equal(served[1])
    assert not all(vectors.equal(training[0]) for vectors in training)


def test_half_of_the_watches_are_left_out_at_half_dropout():
    network = network_of().train()
    kept = network._thinned(np.arange(1, 10_001).reshape(100, 100)).numpy()
    assert abs((kept > 0).mean() - 0.5) < 0.02
    assert set(kept[kept > 0]) <= set(range(1, 10_001))


def test_the_watched_bag_has_another_table_than_the_softmax(network):
    assert network.watched.weight.data_ptr() != network.videos.weight.data_ptr()


def test_row_0_of_the_video_vectors_is_zero(network):
    assert network.video_vectors.shape == (30, 8)
    assert not network.video_vectors[0].any()
    assert network.video_vectors[1:].any(axis=1).all()


def test_loss_is_the_full_softmax_over_the_video_vectors(network, three):
    ages, watched = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([5, 6, 5])
    loss = network.loss(RetrievalBatch(three, ages, watched), EveryVideo(30).sample(torch.Generator()))
    logits = network.user_vectors(three, ages) @ torch.from_numpy(network.video_vectors[1:]).T
    torch.testing.assert_close(loss, cross_entropy(logits, watched - 1))


def test_loss_teaches_tower_and_tables(three):
    network = network_of().train()
    batch = RetrievalBatch(three, torch.zeros(3), torch.tensor([5, 6, 7]))
    network.loss(batch, EveryVideo(30).sample(torch.Generator())).backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in network.parameters())
    ((_, vectors),) = network.videos.touched
    assert vectors.grad.abs().max() > 0


def test_sizes_are_read_off_the_dataset(small_dataset):
    sizes = RetrievalSizes.of(small_dataset)
    # 100 videos, 3 genders, 6 regions, 3 devices, each beside "unknown"; age is the one number; a part of 20 days.
    assert sizes.num_videos == 101
    assert sizes.num_search_tokens > 1
    assert sizes.user_categories == (4, 7, 4)
    assert sizes.num_user_values == 1
    assert sizes.has_impressions
    assert 10 < sizes.training_days < 20


def test_a_dataset_without_searches_has_no_search_tokens(small_dataset):
    facts = small_dataset.facts | {"num_searches": 0}
    silent = dataclasses.replace(small_dataset, artifact=dataclasses.replace(small_dataset.artifact, facts=facts))
    assert RetrievalSizes.of(silent).num_search_tokens == 0
