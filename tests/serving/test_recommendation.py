import numpy as np
import pytest

from watchnext.errors import RequestError
from watchnext.serving.recommendation import Visitor, VisitorRecords, Watch

MOMENT = 1_701_000_000


@pytest.fixture(scope="module")
def records(recommender):
    return lambda **visitor: VisitorRecords.of(Visitor(**visitor), recommender.bundle.dataset, MOMENT)


@pytest.fixture(scope="module")
def row_of(recommender):
    return lambda video: int(recommender.bundle.dataset.vocabularies["videos"].rows_of([video])[0])


def test_watches_without_times_happened_in_order_just_before(records, row_of):
    events = records(history=(Watch(5), Watch(9), Watch(2))).events
    assert events.segments.timestamp.tolist() == [MOMENT - 3, MOMENT - 2, MOMENT - 1]
    assert events.video_row.tolist() == [row_of(5), row_of(9), row_of(2)]


def test_watches_are_put_in_time_order(records, row_of):
    events = records(history=(Watch(5, 300), Watch(9, 100), Watch(2, 200))).events
    assert events.video_row.tolist() == [row_of(9), row_of(2), row_of(5)]
    assert events.segments.offsets.tolist() == [0, 0, 3]


def test_only_completed_watches_of_known_videos_are_watches(records):
    history = (Watch(5, 100), Watch("nothing", 200), Watch(9, 300, completed=False), Watch(2, 400))
    events = records(history=history).events
    assert events.watch_places.tolist() == [0, 3]
    assert events.watches.timestamp.tolist() == [100, 400]
    assert events.video_row[1] == 0


def test_what_was_watched_a_little_was_clicked(records):
    history = (Watch(5, 1, 0.0, False), Watch(5, 2, 3.0, False), Watch(5, 3, None, False), Watch(5, 4, None, True))
    events = records(history=history).events
    assert events.clicked.tolist() == [False, True, False, True]
    np.testing.assert_array_equal(events.watch_seconds, np.array([0, 3, np.nan, np.nan], dtype=np.float32))


@pytest.fixture(scope="module")
def words(recommender):
    """Three words that were searched for: the first two one after the other, the third in another search."""
    tokens = recommender.bundle.dataset.vocabularies["search_tokens"]
    known = tokens.ids_of(np.arange(1, len(tokens)))
    pair = next(token for token in known if " " in token)
    other = next(token for token in known if " " not in token and token not in pair)
    return [*pair.split(), other]


def test_searches_become_the_known_tokens_in_time_order(records, recommender, words):
    first, second, other = words
    tokens = recommender.bundle.dataset.vocabularies["search_tokens"]
    searches = records(searches=((20, f"{first} {second}"), (10, f"{other.title()}, nonsense"))).searches
    assert tokens.ids_of(searches.token_row)[0] == other
    assert set(tokens.ids_of(searches.token_row)[1:]) == {first, second, f"{first} {second}"}
    assert searches.segments.timestamp.tolist() == [10, 20, 20, 20]


def test_searches_of_one_second_are_sorted_as_a_dataset_sorts_them(records, words):
    """By token: the order in which they were told must not decide which ones are the latest."""
    told = tuple((10, word) for word in words)
    rows = records(searches=told).searches.token_row.tolist()
    assert rows == sorted(rows) == records(searches=told[::-1]).searches.token_row.tolist()
    assert len(set(rows)) == 3


def test_attributes_are_looked_up_by_name(records, recommender):
    users = records(attributes={"region": "north", "age": 31}).users
    names = recommender.bundle.dataset.user_categories
    region = recommender.bundle.dataset.vocabularies["users.region"]
    assert region.ids_of(users.categorical[1:, names.index("region")]) == ["north"]
    assert users.continuous[1].tolist() == [31.0]


def test_attributes_that_are_not_told_are_unknown(records):
    users = records().users
    assert not users.categorical.any() and np.isnan(users.continuous).all()


def test_a_value_that_the_log_never_had_is_unknown(records):
    assert not records(attributes={"region": "moon"}).users.categorical.any()


def test_an_unknown_attribute_is_refused_with_the_known_ones(records):
    with pytest.raises(RequestError, match="unknown user attribute 'shoe': known are gender, region, device, age"):
        records(attributes={"shoe": 43})


@pytest.mark.parametrize("value", ["old", True, [3], float("nan"), float("inf"), -1e39])
def test_a_number_must_be_a_number(records, value):
    with pytest.raises(RequestError, match="'age' should be a number"):
        records(attributes={"age": value})


@pytest.mark.parametrize(
    "visitor",
    [Visitor((Watch(5, 1_701_000_000_000),)), Visitor((Watch(5, -1),)), Visitor(searches=((10**30, "topic1"),))],
)
def test_times_that_are_no_unix_seconds_are_refused(recommender, visitor):
    with pytest.raises(RequestError, match=r"timestamp = -?\d+: Unix seconds .* not milliseconds"):
        recommender.recommend_visitor(visitor, 5)
