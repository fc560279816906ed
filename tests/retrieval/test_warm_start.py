"""Two small catalogues that share some ids, each in an order of its own, and the networks of both."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
import torch

from watchnext.errors import ConfigurationError
from watchnext.events.dataset import Dataset, VideoTable
from watchnext.events.vocabulary import Vocabulary
from watchnext.examples.quantiles import Quantiles
from watchnext.layers.embedding import IN_MEMORY, EmbeddingTable, TableStorage, tables_of
from watchnext.retrieval.network import RetrievalNetwork
from watchnext.retrieval.warm_start import start_from

SPACES = {
    "videos": "videos",
    "search_tokens": "search_tokens",
    "channels": "channels",
    "tags": "tags",
    "title_tokens": "title_tokens",
    "country": "users.country",
    "device": "users.device",
    "language": "videos.language",
    "mood": "videos.mood",
}
COLUMNS = {
    "user_categories": ["country", "device"],
    "user_numbers": ["age", "visits"],
    "video_categories": ["language", "mood"],
    "video_numbers": ["duration", "votes"],
}
# With row 0, 5 countries and 7 devices: 2 and 3 components. Today they are 7 and 5: 3 and 2.
YESTERDAY = {
    "videos": 24,
    "search_tokens": 12,
    "channels": 6,
    "tags": 8,
    "title_tokens": 9,
    "country": 4,
    "device": 6,
    "language": 4,
    "mood": 4,
}
GROWN = YESTERDAY | {"videos": 30, "search_tokens": 15, "channels": 8, "country": 6, "language": 7}
SWAPPED = YESTERDAY | {"country": 6, "device": 4, "language": 7}
QUANTILES = Quantiles.fit(np.arange(20.0).reshape(10, 2))


@dataclass(frozen=True)
class Day:
    """What one day's log knows, and a network over it."""

    dataset: Dataset
    videos: VideoTable
    network: RetrievalNetwork


DayMaker = Callable[..., Day]


@pytest.fixture
def make_day(small_dataset, make_network, retrieval_config) -> DayMaker:
    """Gives `make_day(sizes, order=…, **settings)`: so many ids of each space, in an order of their own."""

    def make(
        sizes=YESTERDAY, *, order, facts=None, storage=IN_MEMORY, impressions=True, searches=True, **settings
    ) -> Day:
        shuffled = np.random.default_rng(order).permutation
        vocabularies = {
            space: Vocabulary(pa.array([f"{name}-{one}" for one in shuffled(sizes[name])]))
            for name, space in SPACES.items()
        }
        artifact = dataclasses.replace(small_dataset.artifact, facts=small_dataset.facts | COLUMNS | (facts or {}))
        dataset = dataclasses.replace(small_dataset, artifact=artifact, vocabularies=vocabularies)
        videos = attributes_of(sizes, vocabularies)
        known = {name: len(vocabularies[space]) for name, space in SPACES.items()}
        network = make_network(
            dataclasses.replace(retrieval_config, dropout=0.0, id_dropout=0.0, **settings),
            videos,
            order,
            storage,
            QUANTILES,
            num_videos=known["videos"],
            num_search_tokens=known["search_tokens"] if searches else 0,
            num_channels=known["channels"],
            num_tags=known["tags"],
            num_title_tokens=known["title_tokens"],
            user_categories=(known["country"], known["device"]),
            video_categories=(("language", known["language"]), ("mood", known["mood"])),
            has_impressions=impressions,
        )
        for table in tables_of(network):
            table.squared_gradient[1:] = torch.rand(len(table.weight) - 1, generator=torch.Generator().manual_seed(9))
            table.squared_gradient[1:] += order
        return Day(dataset, videos, network)

    return make


def attributes_of(sizes, vocabularies) -> VideoTable:
    """What a video has follows from its id, so that it is the same on both days."""
    ids = [None, *vocabularies["videos"].ids_of(np.arange(1, sizes["videos"] + 1))]
    number = np.array([0, *(int(one.partition("-")[2]) for one in ids[1:])])

    def rows(name, values):
        return vocabularies[SPACES[name]].rows_of([f"{name}-{value}" for value in values])

    def many(name, shift):
        return np.stack([rows(name, (number * 3 + shift + nth) % YESTERDAY[name]) for nth in range(3)], axis=1)

    table = VideoTable(
        channel_row=rows("channels", number % YESTERDAY["channels"]).astype(np.int32),
        categorical=np.stack([rows(name, (number + 1) % 4) for name in ("language", "mood")], axis=1).astype(np.int32),
        continuous=np.stack([number / 20, number / 40], axis=1).astype(np.float32),
        tag_rows=many("tags", 0).astype(np.int32),
        title_rows=many("title_tokens", 1).astype(np.int32),
        uploaded_at=np.zeros(len(number), dtype=np.int64),
        num_completed=np.ones(len(number), dtype=np.int64),
    )
    for column in vars(table).values():
        column[0] = 0
    return table


def old_row(name, row, today: Day, yesterday: Day) -> int:
    """Where yesterday's vocabulary had the id that has this row today: 0 if nowhere. A scan."""
    now, then = today.dataset.vocabularies[name], yesterday.dataset.vocabularies[name]
    wanted = now.ids_of(np.array([row]))[0]
    return next((place for place in range(1, len(then)) if then.ids_of(np.array([place]))[0] == wanted), 0)


def state_of(network) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def start(today: Day, yesterday: Day) -> None:
    start_from(today.network, today.dataset, yesterday.network, yesterday.dataset)


MEAN = {"history_bags": ("channel", "tags", "mood"), "recent_watches": (2,), "videos": "both"}
TABLES = {
    "users.history.watched": "videos",
    "users.history.shown": "videos",
    "users.tokens": "search_tokens",
    "users.bags.0": "channels",
    "users.bags.1": "tags",
    "users.bags.2": "videos.mood",
    "users.categories.0": "users.country",
    "users.categories.1": "users.device",
    "videos.free": "videos",
    "videos.tower.channels": "channels",
    "videos.tower.tags": "tags",
    "videos.tower.title": "title_tokens",
    "videos.tower.categories.0": "videos.language",
    "videos.tower.categories.1": "videos.mood",
}
OTHERS = {
    "attention": ({"history": "attention"}, {"users.history.events.videos": "videos", "videos": "videos"}),
    "transformer": ({"history": "transformer"}, {"users.history.events.videos": "videos", "videos": "videos"}),
    "video tower": (
        {"videos": "tower"},
        {name.replace(".tower.", "."): space for name, space in TABLES.items() if name.startswith("videos.tower.")},
    ),
}
KINDS = {"mean": (MEAN, TABLES), **OTHERS}
EVERY_KIND = pytest.mark.parametrize(("settings", "tables"), KINDS.values(), ids=KINDS)


@EVERY_KIND
def test_rows_are_found_again_by_id_with_their_rates_and_new_ones_stay_as_they_were(make_day, settings, tables):
    yesterday, today = make_day(order=1, **settings), make_day(GROWN, order=2, **settings)
    before, old = state_of(today.network), state_of(yesterday.network)
    start(today, yesterday)
    after, moved = state_of(today.network), 0
    for name, space in tables.items():
        weight, rates = after[f"{name}.weight"], after[f"{name}.squared_gradient"]
        width = min(weight.shape[1], old[f"{name}.weight"].shape[1])
        for row in range(1, len(weight)):
            then = old_row(space, row, today, yesterday)
            source = old if then else before
            place = then or row
            moved += then not in (0, row)
            assert weight[row, :width].equal(source[f"{name}.weight"][place, :width])
            assert weight[row, width:].equal(before[f"{name}.weight"][row, width:])
            assert rates[row] == source[f"{name}.squared_gradient"][place]
        assert not weight[0].any() and rates[0] == 0
    assert moved > 10  # or copying by row would do


@EVERY_KIND
def test_every_table_is_one_of_those_above(make_day, settings, tables):
    """Where there is a further one, the test above does not look at it."""
    network = make_day(order=1, **settings).network
    named = {name for name, part in network.named_modules() if isinstance(part, EmbeddingTable)}
    assert tables.keys() <= named
    assert named - tables.keys() <= set(TABLES) | {"videos"}


@EVERY_KIND
def test_layers_are_those_of_yesterday(make_day, settings, tables):
    yesterday, today = make_day(order=1, **settings), make_day(order=2, **settings)
    start(today, yesterday)
    old = dict(yesterday.network.named_parameters())
    assert len(old) > 3
    for name, parameter in today.network.named_parameters():
        assert parameter.equal(old[name]), name
        assert parameter.data_ptr() != old[name].data_ptr()


def context_of(day: Day, make_context, users=((3, 5, 9), (20, 1), ())) -> object:
    """The same users on any day: videos, tokens and attributes told by id."""

    def rows(name, values):
        return day.dataset.vocabularies[SPACES[name]].rows_of([f"{name}-{value}" for value in values]).tolist()

    return make_context(
        watched=[rows("videos", user) for user in users],
        shown=[rows("videos", [*user, 11, 17]) for user in users],
        tokens=[rows("search_tokens", [4, nth]) for nth in range(3)],
        categorical=[[*rows("country", [nth]), *rows("device", [nth + 1])] for nth in range(3)],
        continuous=[[4.0, 1.0], [1.5, np.nan], [9.0, 18.0]],
    )


def vectors_of(day: Day, make_context) -> tuple[np.ndarray, np.ndarray]:
    """Of three users, and of the videos that both days know."""
    known = day.dataset.vocabularies["videos"].rows_of([f"videos-{one}" for one in range(24)])
    model = day.network.trained()
    return model.vectors_of(context_of(day, make_context)), model.video_vectors[known]


WAYS = [
    *(settings for settings, _ in KINDS.values()),
    {},
    {"videos": "tower", "video_tower": ()},
    {"storage": TableStorage(torch.bfloat16), "videos": "both"},
]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_old_users_and_videos_keep_their_vectors_where_nothing_but_rows_changed(make_day, make_context, way):
    sizes = YESTERDAY | {"videos": 30, "search_tokens": 15, "channels": 8, "title_tokens": 11}
    yesterday, today = make_day(order=1, **way), make_day(sizes, order=2, **way)
    theirs, ours = vectors_of(yesterday, make_context), vectors_of(today, make_context)
    assert not any(np.allclose(*pair, atol=0.1) for pair in zip(theirs, ours, strict=True))
    start(today, yesterday)
    for one, other in zip(theirs, vectors_of(today, make_context), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_longer_embedding_keeps_its_first_components_and_their_columns(make_day, make_context, way):
    """Where the further components are zero, nothing has changed: what lies behind them has moved with its column."""
    yesterday, today = make_day(order=1, **way), make_day(GROWN, order=2, **way)
    start(today, yesterday)
    widths = {name: part.dim for name, part in yesterday.network.named_modules() if isinstance(part, EmbeddingTable)}
    longer = {
        name: part
        for name, part in today.network.named_modules()
        if isinstance(part, EmbeddingTable) and part.dim > widths[name]
    }
    assert "users.categories.0" in longer
    for name, table in longer.items():
        assert table.weight[1:, widths[name] :].any(), "the new components begin as usual"
        table.weight[:, widths[name] :] = 0.0
    for one, other in zip(vectors_of(yesterday, make_context), vectors_of(today, make_context), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


# The blocks of a user's inputs by hand: watched, shown (8 each), tokens (8), country, device, two numbers and the age
# with powers. Yesterday a country had 2 components and a device 3; today it is the other way round.
def columns(country: int, device: int) -> list[tuple[str, int]]:
    blocks = {"watched": 8, "shown": 8, "tokens": 8, "country": country, "device": device, "numbers": 6, "age": 3}
    return [(name, nth) for name, width in blocks.items() for nth in range(width)]


@pytest.mark.parametrize(("sizes", "now"), [(GROWN, (3, 3)), (SWAPPED, (3, 2))], ids=["grown", "swapped"])
def test_every_column_of_the_first_layer_stays_with_its_input(make_day, sizes, now):
    """Swapped, the layer has yesterday's shape, and yet other columns."""
    yesterday, today = make_day(order=1), make_day(sizes, order=2)
    fresh = state_of(today.network)["users.tower.layers.0.weight"]
    start(today, yesterday)
    old, new = (day.network.users.tower.layers[0].weight for day in (yesterday, today))
    were = columns(2, 3)
    assert old.shape[1] == len(were) and new.shape[1] == len(columns(*now))
    for place, column in enumerate(columns(*now)):
        expected = old[:, were.index(column)] if column in were else fresh[:, place]
        assert new[:, place].equal(expected), column


def test_a_log_that_has_gained_searches_and_impressions_keeps_the_columns_of_the_rest(make_day):
    yesterday = make_day(order=1, impressions=False, searches=False)
    today = make_day(order=2)
    fresh = state_of(today.network)["users.tower.layers.0.weight"]
    start(today, yesterday)
    old, new = (day.network.users.tower.layers[0].weight for day in (yesterday, today))
    were = [column for column in columns(2, 3) if column[0] not in ("shown", "tokens")]
    assert old.shape[1] == len(were)
    for place, column in enumerate(columns(2, 3)):
        expected = old[:, were.index(column)] if column in were else fresh[:, place]
        assert new[:, place].equal(expected), column


def test_yesterdays_network_is_left_as_it_was(make_day):
    yesterday, today = make_day(order=1, **MEAN), make_day(GROWN, order=2, **MEAN)
    before = state_of(yesterday.network)
    start(today, yesterday)
    assert all(tensor.equal(before[name]) for name, tensor in yesterday.network.state_dict().items())


def test_ids_that_were_dropped_are_left_behind(make_day, make_context):
    yesterday, today = make_day(GROWN, order=1), make_day(order=2)
    start(today, yesterday)
    row = int(today.dataset.vocabularies["videos"].rows_of(["videos-7"])[0])
    then = int(yesterday.dataset.vocabularies["videos"].rows_of(["videos-7"])[0])
    assert today.network.videos.weight[row].equal(yesterday.network.videos.weight[then])


@pytest.mark.parametrize("column", COLUMNS)
def test_other_columns_are_refused(make_day, column):
    yesterday = make_day(order=1, facts={column: ["something"]})
    told = rf"{column} are \['\w+', '\w+'\] and were \['something'\]: train anew, without it"
    with pytest.raises(ConfigurationError, match=told):
        start(make_day(order=2), yesterday)


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ({"tower": (16, 8)}, {"tower": (32, 8)}),
        ({"tower": (16, 8)}, {"tower": (16, 16, 8)}),
        ({"tower": (16, 8)}, {"tower": (16, 4)}),
        ({"tower": (16, 8)}, {"tower": (8,)}),
        ({"last_relu": True}, {"last_relu": False}),
        ({"embedding_dim": 8}, {"embedding_dim": 16}),
        ({"history": "mean"}, {"history": "attention"}),
        ({"history": "attention"}, {"history": "mean"}),
        ({"history": "attention"}, {"history": "attention", "attention_heads": 4}),
        ({"history": "attention"}, {"history": "attention", "history_length": 7}),
        ({"history": "transformer"}, {"history": "transformer", "transformer_layers": 1}),
        ({"recent_watches": ()}, {"recent_watches": (2,)}),
        ({"recent_watches": (2,)}, {"recent_watches": (3,)}),
        ({"history_bags": ()}, {"history_bags": ("tags",)}),
        ({"history_bags": ("channel",)}, {"history_bags": ("tags",)}),
        ({"videos": "free"}, {"videos": "tower"}),
        ({"videos": "both"}, {"videos": "free"}),
        ({"videos": "both"}, {"videos": "tower"}),
        ({"videos": "tower"}, {"videos": "tower", "video_tower": (8,)}),
    ],
    ids=str,
)
def test_other_layers_are_refused_and_nothing_is_copied(make_day, then, now):
    yesterday, today = make_day(order=1, **then), make_day(order=2, **now)
    before = state_of(today.network)
    with pytest.raises(ConfigurationError, match=r"a warm start needs the same layers, but .*: train anew"):
        start(today, yesterday)
    assert all(tensor.equal(before[name]) for name, tensor in today.network.state_dict().items())


def test_how_it_is_trained_may_change(make_day):
    yesterday = make_day(order=1, table_type="float32")
    today = make_day(order=2, table_type="bfloat16", storage=TableStorage(torch.bfloat16), learning_rate=0.1)
    start(today, yesterday)
    then = int(yesterday.dataset.vocabularies["videos"].rows_of(["videos-7"])[0])
    row = int(today.dataset.vocabularies["videos"].rows_of(["videos-7"])[0])
    expected = yesterday.network.videos.weight[then].to(torch.bfloat16)
    assert today.network.videos.weight[row].equal(expected)
