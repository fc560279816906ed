"""Changes to an index, against an index built of what is then there."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchnext.errors import RequestError
from watchnext.retrieval.index.exact import ExactIndex
from watchnext.retrieval.index.faiss_engine import FaissIndex
from watchnext.retrieval.index.live import LiveIndex
from watchnext.retrieval.index.protocol import CurvePoint

DIM = 6
VECTORS = np.random.default_rng(0).normal(size=(60, DIM)).astype(np.float32)
VECTORS[0] = 0.0
QUERIES = np.random.default_rng(1).normal(size=(4, DIM)).astype(np.float32)


def live() -> LiveIndex:
    return LiveIndex(ExactIndex(VECTORS))


def by_sorting(there: dict[int, np.ndarray], query: np.ndarray, k: int) -> list[int]:
    """The rows of the k best of what is there."""
    return sorted(there, key=lambda row: -float(there[row] @ query))[:k]


@settings(max_examples=60)
@given(st.data())
def test_any_changes_give_what_is_then_there(data):
    random = np.random.default_rng(data.draw(st.integers(0, 999)))
    index, there = live(), dict(enumerate(VECTORS))
    del there[0]
    for _ in range(data.draw(st.integers(1, 6))):
        what = data.draw(st.sampled_from(["add", "remove", "rebuild"]))
        if what == "add":
            rows = np.array([row for row in random.permutation(90)[:10] + 1 if row not in there], dtype=np.int64)
            vectors = random.normal(size=(len(rows), DIM)).astype(np.float32)
            index.add(rows, vectors)
            there |= dict(zip(rows.tolist(), vectors, strict=True))
        elif what == "remove":
            rows = random.permutation(np.array(sorted(there), dtype=np.int64))[: random.integers(1, 20)]
            index.remove(rows)
            for row in rows.tolist():
                del there[row]
        else:
            index.rebuild(ExactIndex)
        for query, rows in zip(QUERIES, index.search(QUERIES, 7)[0].tolist(), strict=True):
            expected = by_sorting(there, query, 7)
            assert rows == expected + [0] * (7 - len(expected))


def test_what_was_added_may_be_excluded_and_has_to_be_allowed():
    index = live()
    index.add(np.array([70, 80]), 100.0 * QUERIES[:2])
    best, _ = index.search(QUERIES[:1], 1)
    assert best.tolist() == [[70]]
    assert index.search(QUERIES[:1], 1, [np.array([70])])[0].tolist() != [[70]]
    allowed = np.ones(81, dtype=bool)
    assert index.search(QUERIES[:1], 1, allowed=allowed)[0].tolist() == [[70]]
    allowed[70] = False
    assert index.search(QUERIES[:1], 1, allowed=allowed)[0].tolist() != [[70]]


def test_changes_are_counted_until_the_index_is_built_again():
    index = live()
    index.add(np.array([61, 62]), VECTORS[1:3])
    index.remove(np.array([5, 61]))
    assert index.num_changes == 2
    index.rebuild(ExactIndex)
    assert index.num_changes == 0


@pytest.mark.parametrize(
    ("rows", "vectors", "message"),
    [
        ([61], np.zeros((1, DIM + 1)), r"vectors of shape \(1, 7\) came for 1 videos; \(1, 6\) was expected"),
        ([61, 62], np.zeros((1, DIM)), r"vectors of shape \(1, 6\) came for 2 videos"),
        ([61], np.full((1, DIM), np.nan), "not finite"),
        ([0], np.zeros((1, DIM)), "a row below 1"),
        ([61, 61], np.zeros((2, DIM)), "the same row came twice"),
        ([59, 61], np.zeros((2, DIM)), "1 of 2 rows are in the index already"),
    ],
)
def test_what_cannot_be_added_is_refused_and_changes_nothing(rows, vectors, message):
    index = live()
    with pytest.raises(RequestError, match=message):
        index.add(np.array(rows), vectors)
    assert index.num_changes == 0


def test_a_row_that_was_added_cannot_be_added_again():
    index = live()
    index.add(np.array([61]), VECTORS[1:2])
    with pytest.raises(RequestError, match="1 of 1 rows are in the index already"):
        index.add(np.array([61]), VECTORS[1:2])


@pytest.mark.parametrize("rows", [[0], [61], [5, 70]])
def test_what_is_not_there_cannot_be_removed(rows):
    index = live()
    with pytest.raises(RequestError, match="rows are not in the index"):
        index.remove(np.array(rows))
    index.remove(np.array([5]))
    with pytest.raises(RequestError, match="1 of 1 rows are not in the index"):
        index.remove(np.array([5]))


def test_changes_made_while_it_is_built_again_are_kept():
    index = live()

    def build(vectors):
        index.remove(np.array([7]))
        index.add(np.array([99]), 100.0 * QUERIES[:1])
        return ExactIndex(vectors)

    index.rebuild(build)
    rows, _ = index.search(QUERIES[:1], 60)
    assert rows[0, 0] == 99 and 7 not in rows
    assert index.num_changes == 2
    index.rebuild(ExactIndex)
    assert index.search(QUERIES[:1], 60)[0].tolist() == rows.tolist()


def test_a_second_rebuild_at_the_same_time_is_refused_and_a_failed_one_changes_nothing():
    index = live()
    before = index.search(QUERIES, 10)[0].tolist()

    def fails(vectors):
        with pytest.raises(RequestError, match="running already"):
            index.rebuild(ExactIndex)
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        index.rebuild(fails)
    assert index.search(QUERIES, 10)[0].tolist() == before
    index.rebuild(ExactIndex)


def test_searches_see_each_change_whole_or_not_at_all():
    """Two videos are swapped for two others over and over: no search may find one old and one new."""
    index = live()
    old, new = np.array([70, 71]), np.array([80, 81])
    index.add(old, 100.0 * QUERIES[[0, 0]])
    stop, found = threading.Event(), []

    def look():
        while not stop.is_set():
            found.append(tuple(index.search(QUERIES[:1], 2)[0][0].tolist()))

    thread = threading.Thread(target=look)
    thread.start()
    for _ in range(200):
        index.add(new, 200.0 * QUERIES[[0, 0]])
        index.remove(new)
    stop.set()
    thread.join()
    assert set(found) <= {(70, 71), (80, 81)} and found


def test_a_probe_compares_with_what_is_there_now():
    """An index that looks into one of its partitions only; what was added since is always found."""
    curve = (CurvePoint(1, 0.7, 0.5, 0.1, 0.2), CurvePoint(2, 0.9, 0.8, 0.1, 0.2))
    approximate = FaissIndex.build(VECTORS).with_effort(1, curve)
    index = LiveIndex(approximate)
    found, right = approximate.search(QUERIES, 5)[0], ExactIndex(VECTORS).search(QUERIES, 5)[0]
    share = np.mean([len(set(some) & set(best)) / 5 for some, best in zip(found, right, strict=True)])
    before = index.probe(QUERIES, 5)
    assert before.recall == pytest.approx(share) and before.tuned_recall == 0.7
    index.add(np.arange(61, 66), 100.0 * np.repeat(QUERIES[:1], 5, axis=0))
    index.remove(right[1])
    assert index.probe(QUERIES[:1], 5).recall == 1.0
    after = LiveIndex(ExactIndex(VECTORS)).probe(QUERIES, 5)
    assert (after.recall, after.tuned_recall) == (1.0, 1.0)
    assert LiveIndex(FaissIndex.build(VECTORS)).probe(QUERIES, 5).tuned_recall is None
