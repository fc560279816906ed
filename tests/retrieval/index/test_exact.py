from unittest import mock

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from watchnext.retrieval.index import exact
from watchnext.retrieval.index.exact import ExactIndex


def oracle(vectors: np.ndarray, query: np.ndarray, k: int, excluded: set[int]) -> list[tuple[int, float]]:
    """Rows and scores, best first, by sorting everything."""
    scored = [(row, float(vectors[row] @ query)) for row in range(1, len(vectors)) if row not in excluded]
    best = sorted(scored, key=lambda one: -one[1])[:k]
    return best + [(0, -np.inf)] * (k - len(best))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_it_finds_what_sorting_everything_finds(data):
    seed, num_videos, k = (data.draw(st.integers(low, high)) for low, high in ((0, 999), (2, 40), (1, 50)))
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(num_videos, 5)).astype(np.float32)
    queries = random.normal(size=(3, 5)).astype(np.float32)
    excluded = [data.draw(st.sets(st.integers(0, num_videos - 1))) for _ in range(3)]
    lists = [random.permutation(sorted(rows)).astype(np.int64) for rows in excluded]
    allowed = random.random(num_videos) < 0.6 if data.draw(st.booleans()) else None
    forbidden = set() if allowed is None else set(np.flatnonzero(~allowed).tolist())
    with (
        mock.patch.object(exact, "_QUERIES_AT_ONCE", data.draw(st.integers(1, 4))),
        mock.patch.object(exact, "_SCORES_AT_ONCE", data.draw(st.sampled_from([1, 7, 20, 1000]))),
    ):
        rows, scores = ExactIndex(vectors).search(queries, k, lists, allowed)
    for place in range(3):
        expected = oracle(vectors, queries[place], k, excluded[place] | forbidden)
        assert rows[place].tolist() == [row for row, _ in expected]
        np.testing.assert_allclose(scores[place], [score for _, score in expected], rtol=1e-4, atol=1e-5)


def test_searching_leaves_the_stored_vectors_alone(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    ExactIndex(vectors).save(tmp_path)
    opened = ExactIndex.open(tmp_path)
    opened.search(vectors[:2], 3, [np.arange(5)] * 2)
    np.testing.assert_array_equal(opened.vectors, vectors)
    np.testing.assert_array_equal(np.load(tmp_path / "vectors.npy"), vectors)
