import dataclasses
import math

import numpy as np
import pyarrow as pa
import pytest

from watchnext.errors import RequestError
from watchnext.events.vocabulary import Vocabulary
from watchnext.retrieval.index.packed import PackedVectors
from watchnext.serving.events import LiveEvent
from watchnext.serving.uploads import Overlaid, Uploads, table_of_one

KNOWN = ("title", "channel_id", "tags", "uploaded_at", "category", "language", "duration_seconds")


@pytest.fixture(scope="module")
def dataset(recommender):
    return recommender.bundle.dataset


@pytest.fixture
def two(dataset) -> Uploads:
    """Uploads of two videos of one category each, at 100 and 200."""
    uploads = Uploads.none(dataset, 3)
    for at, name, category in ((100, "a", "science"), (200, "b", None)):
        one = table_of_one(dataset, {"category": category, "uploaded_at": at})
        event = LiveEvent(name, "upload", at, video_id=name, upload={"title": name.upper()})
        uploads = uploads.and_these([event], one, np.full((1, 3), float(at), dtype=np.float32))
    return uploads


def test_a_video_is_described_as_the_log_would_describe_it(dataset, table):
    for video in table("videos"):
        row = dataset.vocabularies["videos"].rows_of([video["video_id"]])
        one = table_of_one(dataset, {name: video[name] for name in KNOWN})
        for name, column in vars(dataset.videos).items():
            found = getattr(one, name)
            assert found.dtype == column.dtype
            np.testing.assert_array_equal(found, column[row] if name != "num_completed" else [0], err_msg=name)


def test_of_many_tags_and_words_as_many_count_as_the_logs_longest_lists_have(dataset, table):
    tags = ["nobody", *(tag for video in table("videos") for tag in video["tags"])]
    rows = dataset.vocabularies["tags"].rows_of(tags)
    assert table_of_one(dataset, {"tags": tags}).tag_rows.tolist() == [
        rows[: max(len(video["tags"]) for video in table("videos"))].tolist()
    ]
    title = " ".join(video["title"] for video in table("videos"))
    words = dataset.vocabularies["title_tokens"].rows_of(title.split())
    assert table_of_one(dataset, {"title": title}).title_rows.tolist() == [
        words[: max(len(video["title"].split()) for video in table("videos"))].tolist()
    ]


def test_of_what_is_not_said_or_not_known_nothing_is_known(dataset):
    for columns in (
        {},
        dict.fromkeys(KNOWN),
        {"category": "juggling", "channel_id": "None", "tags": ["nobody"], "title": "!"},
    ):
        one = table_of_one(dataset, columns)
        for name in ("channel_row", "categorical", "tag_rows", "title_rows", "uploaded_at", "num_completed"):
            assert not getattr(one, name).any()
        assert np.isnan(one.continuous).all()


def test_what_is_not_said_is_not_a_category_called_none(dataset):
    odd = dict.fromkeys(dataset.vocabularies, Vocabulary(pa.array(["None"])))
    assert not table_of_one(dataclasses.replace(dataset, vocabularies=odd), {}).categorical.any()


@pytest.mark.parametrize("value", ["12", True, math.nan, math.inf, 1e39, [1], 10**400])
def test_what_should_be_a_number_is_refused(dataset, value):
    with pytest.raises(RequestError, match="column 'duration_seconds' should be a number"):
        table_of_one(dataset, {"duration_seconds": value})


@pytest.mark.parametrize("name", ["title", "channel_id", "category"])
@pytest.mark.parametrize("value", [["jazz"], True, 1.5, {"a": "b"}])
def test_what_should_be_text_is_refused(dataset, name, value):
    with pytest.raises(RequestError, match=f"'{name}' should be text"):
        table_of_one(dataset, {name: value})


@pytest.mark.parametrize("value", ["jazz", 0, {}, ""])
def test_tags_that_are_no_list_are_refused(dataset, value):
    with pytest.raises(RequestError, match="'tags' should be a list of texts"):
        table_of_one(dataset, {"tags": value})


def test_a_tag_that_is_no_text_is_refused(dataset):
    with pytest.raises(RequestError, match="'tags' should be text"):
        table_of_one(dataset, {"tags": ["jazz", None]})


@pytest.mark.parametrize("value", [-1, 1.5, True, "2020-01-01", 1_700_000_000_000])
def test_what_cannot_be_a_time_is_refused(dataset, value):
    with pytest.raises(RequestError, match="'uploaded_at' should be Unix seconds before the year 2100"):
        table_of_one(dataset, {"uploaded_at": value})


def test_a_column_that_the_log_does_not_have_is_refused_without_being_named(dataset):
    with pytest.raises(RequestError, match=r"known are title, channel_id, tags, uploaded_at, .*duration") as no:
        table_of_one(dataset, {"secret": 1})
    assert "secret" not in str(no.value)


def test_uploads_have_the_rows_behind_the_logs(two, dataset):
    assert len(two) == 2
    assert [two.row_of(name) for name in ("a", "b", "c")] == [dataset.num_videos, dataset.num_videos + 1, 0]
    assert two.titles == ("A", "B") and two.channels == (None, None)


def test_more_uploads_leave_those_before_as_they_were(two, dataset):
    before = Uploads.none(dataset, 3)
    assert len(before) == 0 and before.row_of("a") == 0
    assert before.after(0).tolist() == []


def test_what_came_after_a_moment_is_told(two):
    first = two.first_row
    assert [two.after(moment).tolist() for moment in (99, 100, 199, 200)] == [
        [first, first + 1],
        [first + 1],
        [first + 1],
        [],
    ]


def test_what_is_known_of_both_stands_side_by_side(two, dataset):
    rows = np.array([two.first_row + 1, 5, 0, two.first_row, 5])
    table = two.table_of(dataset.videos, rows)
    science = dataset.vocabularies["videos.category"].rows_of(["science"])[0]
    assert table.uploaded_at[[0, 3]].tolist() == [200, 100]
    assert table.categorical[[0, 3], dataset.video_categories.index("category")].tolist() == [0, science]
    for name, column in vars(dataset.videos).items():
        np.testing.assert_array_equal(getattr(table, name)[[1, 2, 4]], column[[5, 0, 5]])
        assert getattr(table, name).dtype == column.dtype


def test_the_logs_table_is_never_written_to(two, dataset):
    before = np.array(dataset.videos.uploaded_at)
    two.table_of(dataset.videos, np.array([two.first_row, 1]))
    np.testing.assert_array_equal(dataset.videos.uploaded_at, before)


def test_vectors_of_both_are_found_by_row():
    old, new = np.arange(6.0).reshape(3, 2), np.array([[-1.0, -2.0]])
    found = Overlaid(old, new)[np.array([[3, 0], [2, 3]])]
    assert found.tolist() == [[[-1, -2], [0, 1]], [[4, 5], [-1, -2]]]
    assert Overlaid(old, new[:0])[np.array([1])].tolist() == [[2, 3]]
    assert old.tolist() == [[0, 1], [2, 3], [4, 5]]


def test_an_uploads_vector_is_not_rounded_among_packed_ones():
    new = np.array([[0.1, -0.2]], dtype=np.float32)
    found = Overlaid(PackedVectors.of(np.ones((3, 2), dtype=np.float32)), new)[np.array([3, 1])]
    assert found.dtype == np.float32 and found.tolist() == [*new.tolist(), [1, 1]]
