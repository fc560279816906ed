from unittest import mock

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from watchnext.retrieval.index import exact
from watchnext.retrieval.index.exact import ExactIndex
from watchnext.retrieval.index.packed import PackedVectors


def oracle(vectors: np.ndarray, query: np.ndarray, k: int, excluded: set[int]) -> list[tuple[int, float]]:
    """Rows and scores, best first, by sorting everything."""
    scored = [(row, float(vectors[row] @ query)) for row in range(1, len(vectors)) if row not in excluded]
    best = sorted(scored, key=lambda one: -one[1])[:k]
    return best + [(0, -np.inf)] * (k - len(best))


@settings(max_examples=60)
@given(st.data())
def test_it_finds_what_sorting_everything_finds(data):
    seed, num_videos, k = (data.draw(st.integers(low, high)) for low, high in ((0, 999), (2, 40), (1, 50)))
    random = np.random.default_rng(seed)
    packed = PackedVectors.of(random.normal(size=(num_videos, 5)).astype(np.float32))
    vectors, stored = packed[:], packed if data.draw(st.booleans()) else packed[:]
    queries = random.normal(size=(3, 5)).astype(np.float32)
    excluded = [data.draw(st.sets(st.integers(0, num_videos - 1))) for _ in range(3)]
    lists = [random.permutation(sorted(rows)).astype(np.int64) for rows in excluded]
    allowed = random.random(num_videos) < 0.6 if data.draw(st.booleans()) else None
    forbidden = set() if allowed is None else set(np.flatnonzero(~allowed).tolist())
    with (
        mock.patch.object(exact, "_QUERIES_AT_ONCE", data.draw(st.integers(1, 4))),
        mock.patch.dict(exact._SCORES_AT_ONCE, cpu=data.draw(st.sampled_from([1, 7, 20, 1000]))),
        mock.patch.object(exact, "_QUERIES_WORTH_ROUNDING", data.draw(st.sampled_from([1, 100]))),
        mock.patch.object(exact, "rounded_products_are_fast", return_value=True),
        mock.patch.object(exact, "_CPU", torch.device(data.draw(st.sampled_from(["cpu", "meta"])))),  # or as on a GPU
    ):
        rows, scores = ExactIndex(stored, torch.device("cpu")).search(queries, k, lists, allowed)
    for place in range(3):
        expected = oracle(vectors, queries[place], k, excluded[place] | forbidden)
        assert rows[place].tolist() == [row for row, _ in expected]
        np.testing.assert_allclose(scores[place], [score for _, score in expected], rtol=1e-4, atol=1e-5)


def test_many_queries_are_answered_as_one():
    """Bounds decide first; the lists are those of plain products, but for scores that differ in their last bits."""
    random = np.random.default_rng(0)
    vectors, queries = (random.normal(size=(size, 24)).astype(np.float32) for size in (3_000, 70))
    excluded = [random.permutation(3_000)[:20] for _ in queries]
    with mock.patch.object(exact, "rounded_products_are_fast", return_value=True):
        rows, scores = ExactIndex(vectors).search(queries, 50, excluded)
    for place in range(len(queries)):
        alone = ExactIndex(vectors).search(queries[place : place + 1], 50, [excluded[place]])
        assert rows[place].tolist() == alone[0][0].tolist()
        np.testing.assert_allclose(scores[place], alone[1][0], rtol=1e-5)


def test_where_bounds_tell_too_little_every_product_is_computed():
    """All bounds of a query are alike, so that those kept are the first ones; the best come last."""
    vectors = np.ones((600, 8), dtype=np.float32)
    vectors[:, 0] += np.linspace(0.0, 1e-3, 600, dtype=np.float32)
    excluded = [np.array([599])] + [np.zeros(0, dtype=np.int64)] * 63
    with (
        mock.patch.object(exact, "rounded_products_are_fast", return_value=True),
        mock.patch.object(ExactIndex, "_by_products", autospec=True, side_effect=ExactIndex._by_products) as computed,
    ):
        rows, _ = ExactIndex(vectors).search(np.ones((64, 8), dtype=np.float32), 10, excluded)
    assert len(computed.call_args.args[1]) == 64
    assert rows[0].tolist() == list(range(598, 588, -1)) and rows[5].tolist() == list(range(599, 589, -1))


def test_searching_leaves_the_stored_vectors_alone(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    ExactIndex(vectors).save(tmp_path)
    opened = ExactIndex.open(tmp_path)
    opened.search(vectors[:2], 3, [np.arange(5)] * 2)
    np.testing.assert_array_equal(opened.vectors, vectors)
    np.testing.assert_array_equal(np.load(tmp_path / "vectors.npy"), vectors)
