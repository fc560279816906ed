import faiss
import numpy as np
import pytest

from watchnext.retrieval.index.exact import ExactIndex
from watchnext.retrieval.index.faiss_engine import FaissIndex

K = 50


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Twenty thousand directions without any structure: the hardest case for partitions."""
    vectors = np.random.default_rng(0).normal(size=(20_001, 32)).astype(np.float32)
    vectors[0] = 0.0
    return vectors


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(200, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def index(vectors) -> FaissIndex:
    return FaissIndex.build(vectors, probes=64)


def recall_against_exact(index: FaissIndex, vectors: np.ndarray, queries: np.ndarray) -> float:
    found, _ = index.search(queries, K)
    right, _ = ExactIndex(vectors).search(queries, K)
    return float(np.mean([len(np.intersect1d(*pair)) / K for pair in zip(found, right, strict=True)]))


def test_most_of_the_best_are_found_among_random_vectors(index, vectors, queries):
    assert recall_against_exact(index, vectors, queries) > 0.65


def test_more_probes_find_more(index, vectors, queries):
    assert recall_against_exact(FaissIndex.build(vectors, probes=512), vectors, queries) > 0.99
    assert recall_against_exact(FaissIndex.build(vectors, probes=16), vectors, queries) < 0.5


def test_an_opened_index_looks_into_as_many_partitions(index, vectors, queries, tmp_path):
    index.save(tmp_path)
    opened = FaissIndex.open(tmp_path)
    for one, other in zip(opened.search(queries, K), index.search(queries, K), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_query_whose_partitions_hold_too_few_is_answered_exactly(vectors, queries):
    shallow = FaissIndex.build(vectors, probes=1)
    # One partition of 512 holds about 40 of 20,000 videos.
    rows, scores = shallow.search(queries[:5], 1000)
    exact_rows, exact_scores = ExactIndex(vectors).search(queries[:5], 1000)
    np.testing.assert_array_equal(rows, exact_rows)
    np.testing.assert_allclose(scores, exact_scores, rtol=1e-5)


def test_only_the_short_queries_of_a_batch_use_their_exclusions_in_the_exact_scan(index, vectors, queries):
    few = [np.zeros(0, dtype=np.int64), np.arange(1, 20_000), np.arange(5)]
    rows, _ = index.search(queries[:3], 2, few)
    assert rows[1].tolist() == [20_000, 0]
    assert (rows[[0, 2]] > 0).all()


def test_memory_of_the_codes_is_one_byte_a_float(index):
    assert faiss.extract_index_ivf(index._partitions).code_size == 32
