import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from watchnext.retrieval import exact_index
from watchnext.retrieval.exact_index import ExactIndex


def oracle(vectors: np.ndarray, query: np.ndarray, k: int, excluded: set[int]) -> list[tuple[int, float]]:
    """Rows and scores, best first, by sorting everything."""
    scored = [(row, float(vectors[row] @ query)) for row in range(1, len(vectors)) if row not in excluded]
    best = sorted(scored, key=lambda one: -one[1])[:k]
    return best + [(0, -np.inf)] * (k - len(best))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_it_finds_what_sorting_everything_finds(data):
    seed, num_videos, k = (data.draw(st.integers(low, high)) for low, high in ((0, 999), (2, 40), (1, 50)))
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(num_videos, 5)).astype(np.float32)
    queries = random.normal(size=(3, 5)).astype(np.float32)
    excluded = [data.draw(st.sets(st.integers(0, num_videos - 1))) for _ in range(3)]
    lists = [np.array(sorted(rows), dtype=np.int64) for rows in excluded]
    rows, scores = ExactIndex(vectors).search(queries, k, lists)
    for place in range(3):
        expected = oracle(vectors, queries[place], k, excluded[place])
        assert rows[place].tolist() == [row for row, _ in expected]
        np.testing.assert_allclose(scores[place], [score for _, score in expected], rtol=1e-4, atol=1e-5)


def test_blocks_of_queries_keep_their_exclusions(monkeypatch):
    random = np.random.default_rng(0)
    vectors, queries = (random.normal(size=(count, 4)).astype(np.float32) for count in (20, 7))
    excluded = [np.arange(place + 1) for place in range(7)]
    whole = ExactIndex(vectors).search(queries, 6, excluded)
    monkeypatch.setattr(exact_index, "_BLOCK_SCORES", 40)  # two queries at once
    in_blocks = ExactIndex(vectors).search(queries, 6, excluded)
    np.testing.assert_array_equal(in_blocks[0], whole[0])
    np.testing.assert_allclose(in_blocks[1], whole[1], rtol=1e-5)


def test_searching_leaves_the_stored_vectors_alone(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    ExactIndex(vectors).save(tmp_path)
    opened = ExactIndex.open(tmp_path)
    opened.search(vectors[:2], 3, [np.arange(5)] * 2)
    np.testing.assert_array_equal(opened.vectors, vectors)
    np.testing.assert_array_equal(np.load(tmp_path / "vectors.npy"), vectors)
