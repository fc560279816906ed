from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchnext.events.vocabulary import Vocabulary, load_column, save_column

FILMS = Vocabulary(pa.array(["heat", "alien", "été"]))
NUMBERS = Vocabulary(pa.array([30, -7, 0, 2**62]))


def many(vocabulary: Vocabulary, ids: list[Any]) -> list[int]:
    """The rows of `ids` when they are asked for among many."""
    return vocabulary.rows_of([*ids, *["nothing"] * 100])[: len(ids)].tolist()


@pytest.mark.parametrize(
    ("vocabulary", "ids", "rows"),
    [
        (FILMS, ["été", "alien", "heat", "Heat", ""], [3, 2, 1, 0, 0]),
        (NUMBERS, [0, 30, -7, 2**62, 31], [3, 1, 2, 4, 0]),
        (NUMBERS, ["0", "30", "-7"], [3, 1, 2]),
        (NUMBERS, ["030", " 30", "3_0", "+30", "-0", "٣٠", "thirty"], [0] * 7),
        (NUMBERS, [30.0, 30.5, None, True, [30], 2**63, 10**30], [0] * 7),
        (NUMBERS, [np.int64(30), np.int32(0)], [1, 3]),
        (FILMS, [7, None, 1.5], [0, 0, 0]),
        (Vocabulary(pa.array([], pa.string())), ["heat", 3], [0, 0]),
        (Vocabulary(pa.array([], pa.int64())), ["heat", 3], [0, 0]),
    ],
)
def test_few_and_many_lookups_give_these_rows(vocabulary: Vocabulary, ids: list[Any], rows: list[int]) -> None:
    assert vocabulary.rows_of(ids).tolist() == rows
    assert many(vocabulary, ids) == rows


def test_nothing_asked_gives_no_rows() -> None:
    assert FILMS.rows_of([]).shape == (0,)


def test_rows_give_back_their_ids_and_row_zero_none() -> None:
    assert FILMS.ids_of(np.array([3, 0, 1])) == ["été", None, "heat"]


def test_the_length_counts_row_zero() -> None:
    assert (len(FILMS), len(Vocabulary(pa.array([], pa.string())))) == (4, 1)


def test_the_id_type_is_that_of_the_ids() -> None:
    assert (FILMS.id_type, NUMBERS.id_type) == (pa.string(), pa.int64())


@settings(max_examples=30)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), unique=True), st.lists(st.text(max_size=2)))
def test_any_text_is_found_where_it_stands(ids: list[str], others: list[str]) -> None:
    others = [other for other in others if other.isprintable()]
    vocabulary = Vocabulary(pa.array(ids, pa.string()))
    rows = [ids.index(one) + 1 if one in ids else 0 for one in [*ids, *others]]
    assert vocabulary.rows_of([*ids, *others]).tolist() == many(vocabulary, [*ids, *others]) == rows


@pytest.mark.parametrize("vocabulary", [FILMS, NUMBERS, Vocabulary(pa.array([], pa.string()))])
def test_a_saved_vocabulary_answers_as_before(tmp_path: Path, vocabulary: Vocabulary) -> None:
    vocabulary.save(tmp_path / "new", "ids")
    loaded = Vocabulary.load(tmp_path / "new", "ids")
    rows = np.arange(len(vocabulary))
    assert loaded.ids_of(rows) == vocabulary.ids_of(rows)
    assert loaded.rows_of(vocabulary.ids_of(rows)[1:]).tolist() == rows[1:].tolist()
    assert loaded.id_type == vocabulary.id_type


@pytest.mark.parametrize("chunks", [[], [["a", None]], [["a"], ["b", None], ["c"]]])
def test_a_column_comes_back_whole_however_it_was_cut(tmp_path: Path, chunks: list[list[str | None]]) -> None:
    save_column(pa.chunked_array(chunks, pa.string()), tmp_path / "column.arrow")
    assert load_column(tmp_path / "column.arrow").to_pylist() == [value for chunk in chunks for value in chunk]


@pytest.mark.parametrize("type_", [pa.int64(), pa.string()])
def test_rows_are_found_in_another_vocabulary_whatever_its_type(type_):
    today = Vocabulary(pa.array([7, 5, 9, 3], pa.int64()))
    yesterday = Vocabulary(pa.array([3, 5, 7], pa.int64()).cast(type_))
    assert today.rows_in(yesterday).tolist() == [0, 3, 2, 0, 1]
    assert yesterday.rows_in(today).tolist() == [0, 4, 2, 1]
