import sys

import numpy as np
import pytest

from watchnext.config import IndexConfig
from watchnext.errors import ArtifactError, ConfigurationError
from watchnext.retrieval.index.engines import build_index, open_index, save_index
from watchnext.retrieval.index.exact import ExactIndex
from watchnext.retrieval.index.protocol import TunableIndex
from watchnext.retrieval.index.scann_engine import ScannIndex
from watchnext.retrieval.index.tuning import recalls, tuned

K = 50
CONFIG = IndexConfig(engine="scann")
without_scann = pytest.mark.usefixtures("no_scann")


@pytest.fixture
def no_scann(monkeypatch):
    monkeypatch.setitem(sys.modules, "scann", None)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Twenty thousand directions without any structure, of different lengths: the hardest case for a tree."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(20_001, 32)) * np.exp(0.3 * random.normal(size=(20_001, 1)))
    vectors[0] = 0.0
    return vectors.astype(np.float32)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(100, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def index(vectors) -> ScannIndex:
    """An index that looks into every leaf: 2·√20,000 = 282."""
    pytest.importorskip("scann", reason="an extra, which has no wheel for every machine")
    return ScannIndex.build(vectors).with_effort(282)


def recall(index, queries, k, excluded=None, allowed=None) -> float:
    found, right = (one.search(queries, k, excluded, allowed)[0] for one in (index, ExactIndex(index.vectors)))
    return float(recalls(found, right).mean())


class Counting:
    """A searcher that remembers what it was asked for."""

    def __init__(self, searcher):
        self.searcher, self.asked = searcher, []

    def search(self, query, final_num_neighbors, leaves_to_search):
        self.asked.append((final_num_neighbors, leaves_to_search))
        return self.searcher.search(query, final_num_neighbors=final_num_neighbors, leaves_to_search=leaves_to_search)


@pytest.fixture
def counting(index) -> ScannIndex:
    return ScannIndex(Counting(index._searcher), index.vectors, 40)


def asked(index) -> list[tuple[int, int]]:
    return index._searcher.asked


@without_scann
def test_building_without_the_package_says_what_to_install():
    vectors = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    with pytest.raises(ConfigurationError, match=r"engine = 'scann', but ScaNN is not installed: say: pip install 'wa"):
        build_index(vectors, CONFIG)


def test_opening_without_the_package_says_what_to_install(index, tmp_path, monkeypatch):
    save_index(index, tmp_path / "videos")
    monkeypatch.setitem(sys.modules, "scann", None)
    with pytest.raises(ArtifactError, match=r"videos was built by ScaNN, which is not installed: say: pip install"):
        open_index(tmp_path / "videos")


@without_scann
def test_the_other_engines_do_without_the_package():
    vectors = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    for engine in ("exact", "cells", "faiss"):
        rows, _ = build_index(vectors, IndexConfig(engine=engine)).search(vectors[1:2], 3)
        assert (rows > 0).all()


def test_a_pickle_among_the_files_is_not_opened(index, tmp_path):
    save_index(index, tmp_path / "videos")
    (tmp_path / "videos" / "tree" / "scann_docids.pkl").write_bytes(b"c__builtin__\nexit\n(tR.")
    with pytest.raises(ArtifactError, match="holds a pickle, which watchnext does not write: run watchnext index"):
        open_index(tmp_path / "videos")


def test_all_leaves_find_most_of_the_best(index, queries):
    assert recall(index, queries, K) > 0.95


def test_few_leaves_find_less(index, queries):
    assert recall(index.with_effort(3), queries, K) < 0.5


def test_until_tuned_it_looks_into_a_third_of_the_leaves_and_at_least_into_64(vectors):
    pytest.importorskip("scann")
    assert ScannIndex.build(vectors).effort == 94
    assert ScannIndex.build(vectors[:2501]).effort == 64  # of 100
    assert ScannIndex.build(vectors[:401]).effort == 40  # all


def test_efforts_go_from_one_leaf_to_all(index):
    efforts = index.efforts()
    assert (efforts[0], efforts[-1]) == (1, 282)
    assert (np.diff(efforts) > 0).all() and len(efforts) == 13


def test_tuning_finds_what_was_asked_for_and_is_remembered(index, queries, tmp_path):
    chosen = tuned(index, queries, K, 0.9)
    assert isinstance(chosen, TunableIndex)
    assert 0.9 <= recall(chosen, queries, K) < 0.99
    assert chosen.curve[0].effort == 1 and chosen.curve[0].recall < 0.5
    chosen.save(tmp_path)
    opened = ScannIndex.open(tmp_path)
    assert (opened.effort, opened.curve) == (chosen.effort, chosen.curve)
    for one, other in zip(opened.search(queries, K), chosen.search(queries, K), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_saved_tree_may_be_moved_and_holds_no_vectors(index, queries, tmp_path):
    save_index(index, tmp_path / "built")
    moved = (tmp_path / "built").rename(tmp_path / "moved")
    assert recall(open_index(moved), queries, K) > 0.95
    # A byte for every two of 32 components, and a little for the tree; the vectors themselves take 128.
    assert 16 * 20_000 < sum(file.stat().st_size for file in (moved / "tree").iterdir()) < 32 * 20_000


def test_twelve_times_k_are_scored_and_at_least_200(counting, queries):
    counting.search(queries[:1], 50)
    counting.search(queries[:1], 3)
    counting.search(queries[:1], 10_000)
    assert asked(counting) == [(600, 40), (200, 40), (20_000, 40)]


def test_more_are_asked_for_where_videos_are_excluded(counting, queries):
    counting.search(queries[:2], 50, [np.arange(1, 31), np.zeros(0, dtype=np.int64)])
    assert asked(counting) == [(630, 40), (600, 40)]


def test_more_are_asked_for_where_fewer_are_allowed(counting, queries):
    # A quarter: four times the 600.
    counting.search(queries[:1], 50, allowed=np.arange(20_001) % 4 == 0)
    assert asked(counting) == [(2400, 40)]


@pytest.mark.parametrize("step", [10, 20_000])
def test_where_few_are_allowed_each_is_scored(counting, queries, step):
    # One in ten: 2,000 are allowed, and 6,000 would be asked for.
    allowed = np.arange(20_001) % step == 0
    assert recall(counting, queries, K, allowed=allowed) == 1.0
    assert asked(counting) == []


def test_a_filter_costs_little_recall(index, queries):
    at = index.with_effort(100)
    allowed = np.random.default_rng(2).random(20_001) < 0.4
    assert recall(at, queries, K, allowed=allowed) >= recall(at, queries, K) - 0.05


def test_neither_excluded_nor_forbidden_videos_are_found(index, queries):
    allowed = np.arange(20_001) % 2 == 0
    free, _ = index.search(queries, K, allowed=allowed)
    excluded = [user[::2] for user in free]
    rows, scores = index.search(queries, K, excluded, allowed)
    assert (rows % 2 == 0).all() and (rows > 0).all()
    assert not any(np.isin(*pair).any() for pair in zip(rows, excluded, strict=True))
    np.testing.assert_allclose(scores, np.einsum("bd,bkd->bk", queries, index.vectors[rows]), rtol=1e-5, atol=1e-5)
    assert recall(index, queries, K, excluded, allowed) > 0.95


def test_a_query_whose_leaves_hold_too_few_is_answered_exactly(index, queries):
    # One leaf of 282 holds about 70 of 20,000 videos.
    rows, _ = index.with_effort(1).search(queries[:5], 1000)
    np.testing.assert_array_equal(rows, ExactIndex(index.vectors).search(queries[:5], 1000)[0])


@pytest.mark.parametrize("num_videos", [0, 1, 15, 16, 99, 100, 101])
def test_small_catalogues_are_found_whole(vectors, queries, num_videos, tmp_path):
    pytest.importorskip("scann")
    small = vectors[: num_videos + 1]
    save_index(ScannIndex.build(small), tmp_path / "videos")
    opened = open_index(tmp_path / "videos")
    assert opened.efforts()[-1] == (20 if num_videos >= 100 else 1)
    right, scores = ExactIndex(small).search(queries, 120)
    found = opened.search(queries, 120)
    np.testing.assert_array_equal(found[0], right)
    np.testing.assert_allclose(found[1], scores, rtol=1e-5, atol=1e-5)


def test_a_small_catalogue_needs_no_package_when_opened(vectors, queries, tmp_path, monkeypatch):
    pytest.importorskip("scann")
    save_index(ScannIndex.build(vectors[:51]), tmp_path / "videos")
    monkeypatch.setitem(sys.modules, "scann", None)
    assert (open_index(tmp_path / "videos").search(queries, 3)[0] > 0).all()
