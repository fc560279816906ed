"""Shards and their merge, against one index of everything."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from watchnext.retrieval.index.exact import ExactIndex
from watchnext.retrieval.index.parts import Part, ShardedIndex, merged


@settings(max_examples=60)
@given(st.integers(0, 999), st.integers(2, 60), st.integers(1, 9), st.integers(1, 70), st.booleans())
def test_exact_shards_answer_as_one_exact_index(seed, num_videos, num_shards, k, filtered):
    """Numbers of few values: sums are exact, and many scores are equal."""
    random = np.random.default_rng(seed)
    vectors = random.integers(-2, 3, (num_videos, 4)).astype(np.float32)
    queries = random.integers(-2, 3, (3, 4)).astype(np.float32)
    excluded = [np.flatnonzero(random.random(num_videos) < 0.3) for _ in range(3)] if filtered else None
    allowed = random.random(num_videos) < 0.7 if filtered else None
    shards = ShardedIndex.build(vectors, num_shards, ExactIndex)
    for ours, whole in zip(
        shards.search(queries, k, excluded, allowed),
        ExactIndex(vectors).search(queries, k, excluded, allowed),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, whole)


def test_shards_are_of_equal_size_and_hold_every_video_once():
    shards = ShardedIndex.build(np.zeros((102, 2), dtype=np.float32), 4, ExactIndex)
    assert [len(part.rows) - 1 for part in shards.parts] == [25, 25, 25, 26]
    assert sorted(np.concatenate([part.rows[1:] for part in shards.parts]).tolist()) == list(range(1, 102))


def test_a_part_knows_which_rows_are_its_own():
    part = Part(ExactIndex(np.zeros((4, 2), dtype=np.float32)), np.array([0, 5, 7, 12]))
    assert part.places_of(np.array([12, 6, 5, 13, 0])).tolist() == [3, 1, 0]
    assert part.has(np.array([12, 6, 5, 13, 0])).tolist() == [True, False, True, False, False]


def test_a_part_that_holds_all_in_a_range_does_as_one_that_names_each():
    vectors = np.random.default_rng(5).normal(size=(40, 3)).astype(np.float32)
    whole, named = (Part(ExactIndex(vectors), numbers) for numbers in (range(40), np.arange(40)))
    rows = np.array([3, 40, 0, 39, 17])
    assert whole.rows.tolist() == named.rows.tolist() and whole.last_row == named.last_row == 39
    for asked in (Part.places_of, Part.has):
        assert asked(whole, rows).tolist() == asked(named, rows).tolist()
    allowed = np.arange(45) % 3 > 0  # five rows more than there are
    found = [part.search(vectors[:2], 7, [rows, rows[:1]], allowed) for part in (whole, named)]
    assert all(np.array_equal(*columns) for columns in zip(*found, strict=True))


def test_merged_lists_by_hand():
    one = (np.array([[4, 9, 0, 0]]), np.array([[3.0, 1.0, -np.inf, -np.inf]], dtype=np.float32))
    other = (np.array([[2, 7, 8, 0]]), np.array([[3.0, 2.0, 1.0, -np.inf]], dtype=np.float32))
    rows, scores = merged([one, other], 4)
    assert rows.tolist() == [[2, 4, 7, 8]] and scores.tolist() == [[3.0, 3.0, 2.0, 1.0]]
