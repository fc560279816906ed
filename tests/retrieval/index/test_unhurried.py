"""The scan in no hurry finds what the exact index finds, from memory and from a file, and rests."""

import numpy as np
import pytest

from watchnext.retrieval.index import unhurried
from watchnext.retrieval.index.exact import ExactIndex
from watchnext.retrieval.index.packed import PackedVectors
from watchnext.retrieval.index.unhurried import UnhurriedScan

RANDOM = np.random.default_rng(0)
VECTORS = PackedVectors.of(RANDOM.normal(size=(70, 8)).astype(np.float32))[:]
QUERIES = RANDOM.normal(size=(3, 8)).astype(np.float32)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(unhurried, "_ROWS_AT_ONCE", 16)


@pytest.fixture(params=["memory", "file", "packed", "part of a file"])
def vectors(request, tmp_path):
    if request.param == "memory":
        return VECTORS
    if request.param == "packed":
        PackedVectors.save(VECTORS, tmp_path)
        return PackedVectors.open(tmp_path)
    more = np.concatenate([RANDOM.normal(size=(5, 8)).astype(np.float32), VECTORS])
    np.save(tmp_path / "vectors.npy", VECTORS if request.param == "file" else more)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="c")
    return mapped[5:] if request.param == "part of a file" else mapped


@pytest.mark.parametrize("k", [1, 9, 100])
@pytest.mark.parametrize("excluded", [None, [np.array([3, 17, 18]), np.array([], dtype=np.int64), np.arange(60)]])
@pytest.mark.parametrize("share", [None, 0.3])
def test_it_finds_what_the_exact_index_finds(vectors, k, excluded, share):
    allowed = None if share is None else np.random.default_rng(1).random(70) < share
    rows, scores = UnhurriedScan(vectors, lambda seconds: None).search(QUERIES, k, excluded, allowed)
    right, best = ExactIndex(VECTORS).search(QUERIES, k, excluded, allowed)
    assert np.array_equal(rows, right)
    np.testing.assert_allclose(scores, best, rtol=1e-5)


def test_it_rests_between_blocks_longer_than_they_took(vectors, monkeypatch):
    ticks = iter(np.arange(100.0))
    monkeypatch.setattr(unhurried.time, "perf_counter", lambda: next(ticks))
    rests = []
    UnhurriedScan(vectors, rests.append).search(QUERIES, 5)
    assert rests == [50.0] * 4


@pytest.mark.parametrize("vectors", ["file", "packed"], indirect=True)
def test_vectors_in_a_file_are_read_from_there(vectors, monkeypatch):
    monkeypatch.setattr(np.memmap, "__getitem__", None)
    UnhurriedScan(vectors, lambda seconds: None).search(QUERIES, 5)


def test_a_rest_that_raises_ends_the_scan(vectors):
    def end(seconds):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        UnhurriedScan(vectors, end).search(QUERIES, 5)
