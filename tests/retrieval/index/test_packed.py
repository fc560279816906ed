"""Vectors of twelve bits a number: what comes back, and what they score."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from watchnext.retrieval.index import packed
from watchnext.retrieval.index.packed import PackedVectors

matrices = st.tuples(st.integers(0, 9), st.integers(1, 9)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.floats(-1e6, 1e6, width=32))
)


def unpacked_by_hand(codes: np.ndarray, scale: np.ndarray, dim: int) -> np.ndarray:
    half = (dim + 1) // 2
    found = np.zeros((len(codes), dim))
    for row, bytes_ in enumerate(codes.tolist()):
        for place in range(dim):
            high = bytes_[place] - 256 if bytes_[place] > 127 else bytes_[place]
            both = bytes_[dim + place % half]
            found[row, place] = scale[row] * (16 * high + (both // 16 if place >= half else both % 16))
    return found


@given(matrices)
def test_each_number_is_right_to_half_a_step(vectors):
    found = PackedVectors.of(vectors)
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0.0)
    assert found.shape == vectors.shape
    assert (np.abs(found[:] - vectors) <= largest * (1.001 / 4094) + 1e-38).all()


@given(matrices)
def test_bytes_stand_for_what_the_definition_says(vectors):
    found = PackedVectors.of(vectors)
    by_hand = unpacked_by_hand(found.codes, found.scale, vectors.shape[1])
    np.testing.assert_allclose(found[:], by_hand, rtol=1e-6)


def test_a_row_by_hand():
    found = PackedVectors.of(np.array([[2047.0, -1.0, 18.0]], dtype=np.float32))
    # 2047 = 16·127 + 15; -1 = 16·(-1) + 15; 18 = 16·1 + 2, whose half byte lies above the first one's.
    assert found.codes.tolist() == [[127, 255, 1, 15 | 2 << 4, 15]]
    assert found.scale.tolist() == [1.0]


def test_packing_what_was_packed_changes_nothing():
    once = PackedVectors.of(np.random.default_rng(0).normal(size=(500, 33)).astype(np.float32))
    np.testing.assert_array_equal(PackedVectors.of(once[:]).codes, once.codes)


@pytest.mark.parametrize("dim", [1, 2, 7, 64, 255])
def test_scores_are_products_with_what_the_rows_stand_for(dim):
    random = np.random.default_rng(dim)
    vectors = PackedVectors.of(random.normal(size=(300, dim)).astype(np.float32))
    query, rows = random.normal(size=dim).astype(np.float32), random.integers(0, 300, 1_000)
    expected = vectors[:].astype(np.float64)[rows] @ query
    np.testing.assert_allclose(vectors.scores(query, rows), expected, rtol=1e-4, atol=1e-4)


def test_rows_are_chosen_as_of_a_matrix():
    vectors = PackedVectors.of(np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32))
    matrix = vectors[:]
    marks = np.arange(50) % 3 == 0
    for rows in (slice(3, 9), slice(48, 99), marks, np.array([[4, 1], [0, 4]]), np.zeros(0, dtype=np.int64)):
        np.testing.assert_array_equal(vectors[rows], matrix[rows])
    assert len(vectors) == 50


def test_files_are_written_a_block_at_a_time_and_mapped(tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "_ROWS_AT_ONCE", 7)
    vectors = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    PackedVectors.save(vectors, tmp_path)
    opened = PackedVectors.open(tmp_path)
    assert isinstance(opened.codes, np.memmap)
    np.testing.assert_array_equal(opened[:], PackedVectors.of(vectors)[:])
