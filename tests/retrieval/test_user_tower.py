import dataclasses

import numpy as np
import pytest
import torch

from watchnext.errors import ConfigurationError
from watchnext.examples.quantiles import Quantiles
from watchnext.examples.windows import BatchWindows
from watchnext.layers.embedding import tables_of

BAGS = {
    "watched": [[1, 2, 3], [4], []],
    "shown": [[1, 2, 3, 9], [4, 8], [7]],
    "tokens": [[1, 2], [], [3]],
}
ATTRIBUTES = {"categorical": [[1], [2], [0]], "continuous": [[1.0, 2.0], [5.0, np.nan], [np.nan, 19.0]]}
HISTORY_BAGS = ("channel", "tags", "language", "mood")


@pytest.fixture
def three(make_context):
    return make_context(**BAGS, **ATTRIBUTES)


@pytest.fixture
def tower_of(make_network, retrieval_config):
    """Gives a function from settings that differ, videos and sizes to a user tower."""

    def make(videos=None, sizes=None, quantiles=None, **settings):
        config = dataclasses.replace(retrieval_config, **settings)
        return make_network(config, videos, user_quantiles=quantiles, **(sizes or {})).users

    return make


@pytest.fixture(params=["mean", "attention", "transformer"])
def tower(request, tower_of):
    return tower_of(history=request.param, history_bags=HISTORY_BAGS)


def replaced(context, **columns):
    return dataclasses.replace(context, **columns)


def close(one, other):
    return np.allclose(one, other, rtol=1e-4, atol=1e-5)


def test_serving_is_example_age_zero(tower, three):
    served = torch.from_numpy(tower.vectors_of(three))
    with torch.no_grad():
        assert served.equal(tower(three, torch.zeros(3)))
        assert not served.allclose(tower(three, torch.full((3,), 5.0)))


def test_serving_turns_dropout_off(tower_of, three):
    tower = tower_of().train()
    assert np.array_equal(tower.vectors_of(three), tower.vectors_of(three))
    assert not tower.training


def test_ages_beyond_the_training_period_count_as_its_length(tower, three):
    oldest, older, younger = (tower(three, torch.full((3,), age)) for age in (10.0, 11.0, 9.0))
    assert oldest.equal(older) and not oldest.equal(younger)


@pytest.mark.parametrize("example_age", [True, False])
def test_the_example_age_counts_only_where_the_settings_say_so(tower_of, three, example_age):
    tower = tower_of(example_age=example_age)
    ages, none = torch.tensor([1.0, 5.0, 9.0]), torch.zeros(3)
    assert tower(three, ages).equal(tower(three, none)) is not example_age


def test_the_age_enters_with_its_square_and_its_root(tower_of, three):
    tower = tower_of(tower=(8,), last_relu=False)
    zero, age = tower(three, torch.zeros(3)), tower(three, torch.full((3,), 2.5))
    weights = tower.tower.layers[0].weight[:, -3:]  # of a quarter of the ten days of training
    torch.testing.assert_close(age - zero, (weights @ torch.tensor([0.25, 0.0625, 0.5])).expand(3, 8))


def test_vectors_are_those_of_single_users(tower, three):
    alone = [tower.vectors_of(three.part(slice(place, place + 1))) for place in range(3)]
    assert close(tower.vectors_of(three), np.concatenate(alone))


def test_order_of_watches_impressions_and_searches_does_not_matter_to_means(tower_of, three):
    tower = tower_of(history_bags=HISTORY_BAGS)
    turned = {name: getattr(three, name)[:, ::-1] for name in ("watched_row", "video_row", "token_row")}
    assert close(tower.vectors_of(replaced(three, **turned)), tower.vectors_of(three))


def test_padding_changes_nothing(tower, three, make_context):
    padded = make_context(**{name: [[*bag, 0, 0] for bag in bags] for name, bags in BAGS.items()}, **ATTRIBUTES)
    assert close(tower.vectors_of(padded), tower.vectors_of(three))


def test_only_the_newest_part_of_a_longer_context_is_used(tower, make_context):
    newest = {"watched": [[1, 2, 3, 4, 5, 6]], "shown": [[6, 5, 4, 3, 2, 1]], "tokens": [[1, 2, 3, 4]]}
    attributes = {"categorical": [[1]], "continuous": [[1.0, 2.0]]}
    longer = {name: [[*rows[0], 9, 10]] for name, rows in newest.items()}
    one, other = (tower.vectors_of(make_context(**lists, **attributes)) for lists in (newest, longer))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("column", ["watched_row", "video_row", "token_row", "categorical", "continuous"])
def test_every_input_counts(tower, three, column):
    changed = replaced(three, **{column: np.where(getattr(three, column) == 1, 4, getattr(three, column))})
    before, after = tower.vectors_of(three), tower.vectors_of(changed)
    assert not close(before[0], after[0])
    assert close(before[1:], after[1:])


# For each bag its column, a place in a row of it, and how many values there are.
COLUMNS = {
    "channel": ("channel_row", (), 6),
    "tags": ("tag_rows", (1,), 9),
    "language": ("categorical", (0,), 4),
    "mood": ("categorical", (1,), 5),
}


def with_another(videos, name, row):
    """The same videos, but for one of which something else is known."""
    column, place, size = COLUMNS[name]
    values = getattr(videos, column).copy()
    values[(row, *place)] = values[(row, *place)] % (size - 1) + 1
    assert (values != getattr(videos, column)).sum() == 1
    return dataclasses.replace(videos, **{column: values})


@pytest.mark.parametrize("changed", HISTORY_BAGS)
@pytest.mark.parametrize("asked", [(), *((name,) for name in HISTORY_BAGS), HISTORY_BAGS], ids=str)
def test_what_the_watched_videos_have_counts_where_a_bag_asks_for_it(tower_of, three, videos, asked, changed):
    one, other = (
        tower_of(table, history_bags=asked).vectors_of(three) for table in (videos, with_another(videos, changed, 2))
    )
    assert close(one[0], other[0]) is (changed not in asked)  # the first user alone watched video 2
    np.testing.assert_array_equal(one[1:], other[1:])


def test_a_bag_is_the_mean_over_the_watched_videos(tower_of, three, videos):
    tower = tower_of(history_bags=("channel", "tags"), tower=(8,), last_relu=False)
    channels, tags = (table.weight for table in tower.bags)
    watched = [1, 2, 3]
    of_channel = channels[torch.from_numpy(videos.channel_row[watched].astype(np.int64))].mean(dim=0)
    known = videos.tag_rows[watched][videos.tag_rows[watched] > 0].astype(np.int64)
    of_tags = tags[torch.from_numpy(known)].mean(dim=0)
    before = tower(three)[0]
    channels.zero_(), tags.zero_()
    inputs = torch.cat([of_channel, of_tags])
    # History and tokens come before: two means of 8, and one.
    expected = tower.tower.layers[0].weight[:, 24:40] @ inputs
    torch.testing.assert_close(before - tower(three)[0], expected, rtol=1e-4, atol=1e-4)


def test_a_bag_that_no_video_has_is_refused_with_those_there_are(tower_of):
    message = r"\[retrieval\] history_bags names 'genre', which .*; they have channel, tags, language, mood\."
    with pytest.raises(ConfigurationError, match=message):
        tower_of(history_bags=("channel", "genre"))


def test_a_bag_is_at_most_64_wide(tower_of):
    tower = tower_of(history_bags=("channel",), embedding_dim=128)
    assert tower.bags[0].dim == 64 and tower.tokens.dim == 128
    assert tower_of(history_bags=("channel",)).bags[0].dim == 8


@pytest.mark.parametrize(
    ("settings", "sizes", "ignored", "num_inputs"),
    [
        # Bags of 8 each; a category of 5 values takes 2 floats; 2 values and the age take 3 each.
        ({}, {}, [], 3 * 8 + 2 + 3 * 2 + 3),
        ({}, {"has_impressions": False}, ["video_row"], 2 * 8 + 2 + 3 * 2 + 3),
        ({}, {"num_search_tokens": 0}, ["token_row"], 2 * 8 + 2 + 3 * 2 + 3),
        ({}, {"has_impressions": False, "num_search_tokens": 0}, ["video_row", "token_row"], 8 + 2 + 3 * 2 + 3),
        ({"history_bags": HISTORY_BAGS}, {}, [], 7 * 8 + 2 + 3 * 2 + 3),
        ({"recent_watches": (1, 2)}, {}, [], 5 * 8 + 2 + 3 * 2 + 3),
        ({"history": "attention", "attention_heads": 3}, {}, ["watched_row"], 4 * 8 + 2 + 3 * 2 + 3),
        ({"history": "transformer"}, {}, ["watched_row"], 2 * 8 + 2 + 3 * 2 + 3),
    ],
)
def test_there_is_no_input_for_what_is_not_known_or_not_asked(tower_of, three, settings, sizes, ignored, num_inputs):
    tower = tower_of(sizes=sizes, **settings)
    assert tower.tower.layers[0].in_features == num_inputs
    emptied = replaced(three, **{column: np.zeros_like(getattr(three, column)) for column in ignored})
    np.testing.assert_array_equal(tower.vectors_of(emptied), tower.vectors_of(three))


@pytest.mark.parametrize("widths", [(8,), (16, 8), (32, 16, 8), (64, 32, 16, 8), (128, 64, 32, 16, 8)], ids=len)
@pytest.mark.parametrize("last_relu", [True, False])
def test_towers_of_any_depth_end_in_a_user_vector(tower_of, three, widths, last_relu):
    vectors = tower_of(tower=widths, last_relu=last_relu).vectors_of(three)
    assert vectors.shape == (3, 8) and vectors.dtype == np.float32
    assert (vectors > 0).any() and (vectors < 0).any() == (not last_relu)


def test_depth_zero_is_linear_and_a_layer_more_is_not(tower_of):
    one, other = torch.randn((2, 1, 35), generator=torch.Generator().manual_seed(0))
    for widths, linear in (((8,), True), ((16, 8), False)):
        layers = tower_of(tower=widths, last_relu=False).tower
        assert torch.allclose(layers((one + other) / 2), (layers(one) + layers(other)) / 2, atol=1e-4) is linear


def test_a_constant_feature_and_one_that_nobody_has_give_finite_vectors(tower_of, three):
    constant = np.stack([np.full(10, 3.0), np.full(10, np.nan)], axis=1)
    tower = tower_of(quantiles=Quantiles.fit(constant))
    for values in (3.0, -1e9, 1e9, np.nan):
        assert np.isfinite(tower.vectors_of(replaced(three, continuous=np.full((3, 2), values)))).all()


def test_an_unknown_number_is_another_user_than_any_known(tower_of, three):
    tower = tower_of()
    known, unknown = (replaced(three, continuous=np.full((3, 2), value)) for value in (9.0, np.nan))
    assert not close(tower.vectors_of(known), tower.vectors_of(unknown))


def test_unknown_ids_count_as_nothing(tower_of, three):
    tower = tower_of(history_bags=HISTORY_BAGS)
    columns = ("watched_row", "video_row", "token_row", "categorical")
    nobody = {name: np.zeros_like(getattr(three, name)) for name in columns}
    vectors = tower.vectors_of(replaced(three, **nobody, continuous=np.full((3, 2), np.nan)))
    assert np.isfinite(vectors).all() and (vectors == vectors[0]).all()
    for table in tables_of(tower):
        assert not table.weight[0].any()


def test_windows_are_read_in_place_of_histories_and_the_rest_is_the_users_own(tower_of, three):
    tower = tower_of(history="transformer", history_bags=HISTORY_BAGS)
    windows = BatchWindows(three, torch.tensor([2, 0, 1]), torch.tensor([0, 1, 0]))
    columns = {name: getattr(three, name)[[2, 0, 1]] for name in ("video_row", "timestamp", "completed")}
    for column in columns.values():
        column[1] = np.append(column[1, 1:], 0)
    with torch.no_grad():
        assert close(tower(three, None, windows), tower.vectors_of(replaced(three, **columns)))


def test_the_gradient_reaches_every_parameter_and_table(tower, three):
    tower.train()
    found = tower(three, torch.tensor([1.0, 2.0, 3.0]))
    (found * torch.randn(found.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    unmoved = [name for name, parameter in tower.named_parameters() if not parameter.grad.abs().max() > 0]
    assert unmoved == []
    assert all(table.uses for table in tables_of(tower))
