"""The index of cells: what it finds, at which effort, and where its short cuts could go wrong."""

import threading

import numpy as np
import pytest

from watchnext.retrieval.index.cell_index import CellIndex
from watchnext.retrieval.index.exact import ExactIndex
from watchnext.retrieval.index.packed import PackedVectors
from watchnext.retrieval.index.tuning import recalls

K = 50


def world(num: int, dim: int, seed: int = 0, sigma: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    """Videos around topics with lengths of a log-normal, and users who like some of the topics."""
    random = np.random.default_rng(seed)
    topics = random.normal(size=(40, dim))
    vectors = topics[random.integers(0, 40, num)] + 0.8 * random.normal(size=(num, dim))
    vectors *= np.exp(sigma * random.normal(size=(num, 1))) / np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[0] = 0.0
    users = random.dirichlet(np.full(40, 0.1), 60) @ topics
    return vectors.astype(np.float32), users.astype(np.float32)


@pytest.fixture(scope="module")
def searched():
    vectors, users = world(30_001, 32)
    return CellIndex.build(vectors), ExactIndex(vectors), users


def recall_of(index, exact, users, **filters) -> float:
    return float(recalls(index.search(users, K, **filters)[0], exact.search(users, K, **filters)[0]).mean())


def test_more_effort_finds_more_and_all_of_it_nearly_everything(searched):
    index, exact, users = searched
    found = [recall_of(index.with_effort(effort), exact, users) for effort in (300, 3_000, 30_001)]
    assert found[0] < found[1] <= found[2]
    assert found[0] > 0.3 and found[1] > 0.9 and found[2] > 0.995


@pytest.mark.parametrize("share", [0.5, 0.1, 0.03, 0.01])
def test_an_allow_list_costs_no_recall(searched, share):
    index, exact, users = searched
    allowed = np.random.default_rng(1).random(30_001) < share
    rows, _ = index.with_effort(3_000).search(users, K, allowed=allowed)
    assert allowed[rows].all()
    free = recall_of(index.with_effort(3_000), exact, users)
    assert recall_of(index.with_effort(3_000), exact, users, allowed=allowed) > free - 0.02


def test_excluding_the_thousand_best_costs_little_recall_and_never_length(searched):
    index, exact, users = searched
    best, _ = exact.search(users, 1_000)
    excluded = list(best)
    rows, _ = index.with_effort(6_000).search(users, K, excluded)
    assert (rows > 0).all()
    assert not any(np.isin(found, left_out).any() for found, left_out in zip(rows, excluded, strict=True))
    assert recall_of(index.with_effort(6_000), exact, users, excluded=excluded) > 0.85
    again, _ = index.with_effort(6_000).search(users, K)
    assert recalls(again, best[:, :K]).mean() > 0.9  # nothing stays struck


def test_equal_vectors_overflow_no_list():
    """All scores fall into one bin, whatever the first pass keeps."""
    vectors = np.ones((20_001, 16), dtype=np.float32)
    vectors[0] = 0.0
    index = CellIndex.build(vectors)
    for query in (np.ones(16), np.zeros(16), -np.ones(16)):
        rows, scores = index.search(query[None].astype(np.float32), 7)
        assert len(set(rows[0].tolist())) == 7 and (rows > 0).all()
        assert scores[0].tolist() == [query.sum()] * 7


def test_one_vector_a_million_times_as_long_hides_none_of_the_others():
    vectors, users = world(20_001, 16)
    vectors[77] *= 1e6
    index, exact = CellIndex.build(vectors), ExactIndex(vectors)
    cosine = users @ vectors[77] / np.linalg.norm(vectors[77]) / np.linalg.norm(users, axis=1)
    towards = (users * np.sign(cosine)[:, None])[np.abs(cosine) > 0.2]
    assert len(towards) > 20
    rows, _ = index.with_effort(20_001).search(towards, K)
    assert (rows[:, 0] == 77).all()
    assert recalls(rows, exact.search(towards, K)[0]).mean() > 0.9


def test_many_seldom_watched_videos_do_not_hide_the_popular_ones():
    """As a network learns them: most short and alike in one half of the components, popular ones long in the other."""
    random = np.random.default_rng(0)

    def drawn(num: int, first: float, second: float) -> np.ndarray:
        return np.repeat([first, second], 32) * random.normal(size=(num, 64))

    seldom, popular, users = drawn(30_000, 1.0, 0.02), drawn(1_500, 0.3, 1.0), drawn(40, 0.3, 1.0)
    seldom *= 0.8 / np.linalg.norm(seldom, axis=1, keepdims=True)
    popular *= random.uniform(2.5, 5.0, (1_500, 1)) / np.linalg.norm(popular, axis=1, keepdims=True)
    vectors = np.concatenate([np.zeros((1, 64)), seldom, popular]).astype(np.float32)
    index = CellIndex.build(vectors).with_effort(len(vectors))
    assert recall_of(index, ExactIndex(vectors), users.astype(np.float32)) > 0.99


def test_vectors_of_one_length_need_no_buckets():
    vectors, users = world(20_001, 16, sigma=0.0)
    index, exact = CellIndex.build(vectors), ExactIndex(vectors)
    assert recall_of(index.with_effort(4_000), exact, users) > 0.9


def test_an_opened_index_answers_alike_and_reads_from_the_file(searched, tmp_path):
    index, _, users = searched
    index.with_effort(1_234).save(tmp_path)
    opened = CellIndex.open(tmp_path)
    assert opened.effort == 1_234
    assert isinstance(opened._cells.scanned, np.memmap) and isinstance(opened.vectors.codes, np.memmap)
    packed = CellIndex(index._cells, PackedVectors.of(index.vectors), 1_234)
    for one, other in zip(opened.search(users, K), packed.search(users, K), strict=True):
        np.testing.assert_array_equal(one, other)


def test_packed_vectors_are_what_an_opened_index_scores_by(searched, tmp_path):
    index, _, users = searched
    index.save(tmp_path)
    opened = CellIndex.open(tmp_path)
    few = np.isin(np.arange(30_001), np.unique(opened.search(users, K)[0])[:100])  # scored one by one
    for query, allowed in ((users, None), (users, few), (users[:2], few)):
        rows, scores = opened.search(query, 5, allowed=allowed)
        products = np.einsum("qd,qkd->qk", query, opened.vectors[rows])
        np.testing.assert_allclose(scores, products, rtol=1e-5, atol=1e-5)
    assert few[rows].all()


def test_a_very_long_vector_is_packed_beside_the_others(tmp_path):
    vectors, users = world(2_001, 16)
    vectors[5] *= 1e6
    CellIndex.build(vectors).save(tmp_path)
    opened = CellIndex.open(tmp_path)
    rows, _ = opened.search(users, 10)
    assert recalls(rows, ExactIndex(vectors).search(users, 10)[0]).mean() > 0.98


def test_threads_do_not_share_their_working_memory(searched):
    index, _, users = searched
    excluded = [np.arange(1 + place, 2_000 + place) for place in range(len(users))]
    expected = index.search(users, K, excluded)[0]
    found: dict[int, np.ndarray] = {}

    def search(number: int) -> None:
        for _ in range(3):
            found[number] = index.search(users, K, excluded)[0]

    threads = [threading.Thread(target=search, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        np.testing.assert_array_equal(found[number], expected)


def test_lists_of_several_lengths_one_after_the_other(searched):
    index, exact, users = searched
    for k in (1, 500, 3, 40_000):
        rows, _ = index.search(users[:3], k)
        assert rows.shape == (3, k)
        assert (rows[:, : min(k, 30_000)] > 0).all()
        assert (rows[:, 0] == exact.search(users[:3], 1)[0][:, 0]).all()


def test_its_size_is_half_a_byte_a_component_and_little_more(searched):
    index, _, _ = searched
    codes = 30_000 * 32 // 2
    assert codes < index.num_bytes < 2 * codes
