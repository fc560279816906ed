"""Tuning an index of which it is known what it finds."""

import dataclasses

import numpy as np
import pytest

from watchnext.retrieval.index import tuning
from watchnext.retrieval.index.exact import ExactIndex
from watchnext.retrieval.index.faiss_engine import FaissIndex
from watchnext.retrieval.index.protocol import CurvePoint, TunableIndex
from watchnext.retrieval.index.tuning import recall_curve, recalls, tuned

VECTORS = np.random.default_rng(0).normal(size=(101, 4)).astype(np.float32)
VECTORS[0] = 0.0
QUERIES = np.random.default_rng(1).normal(size=(20, 4)).astype(np.float32)


class Clock:
    """Time passes when somebody searches."""

    seconds = 0.0

    def perf_counter(self):
        return self.seconds


CLOCK = Clock()
MS = {1: 20, 2: 20, 3: 20, 5: 6.4}  # the least efforts are slow, another is a little slower than the next


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    monkeypatch.setattr(tuning, "time", CLOCK)


@dataclasses.dataclass(frozen=True)
class Forgetful:
    """Finds the first `effort` of ten exactly, and of the users in `spoilt` none."""

    effort: int = 1
    curve: tuple[CurvePoint, ...] = ()
    most: int = 10
    vectors: np.ndarray = dataclasses.field(default_factory=lambda: VECTORS)
    spoilt: tuple[int, ...] = ()
    is_exact = False

    def efforts(self):
        return list(range(1, self.most + 1))

    def with_effort(self, effort, curve=()):
        return dataclasses.replace(self, effort=effort, curve=curve)

    def search(self, queries, k, excluded=None, allowed=None):
        CLOCK.seconds += 1e-3 * MS.get(self.effort, self.effort)
        rows, scores = ExactIndex(self.vectors).search(queries, k, excluded, allowed)
        rows[:, self.effort * k // 10 :] = 0
        for user in self.spoilt:
            rows[(queries == QUERIES[user]).all(axis=1)] = 0
        return rows, scores


@pytest.mark.parametrize(("target", "effort"), [(0.05, 4), (0.4, 4), (0.45, 5), (0.55, 6), (1.0, 10)])
def test_the_least_effort_that_is_about_as_fast_as_the_fastest_at_the_target_is_taken(target, effort):
    assert isinstance(Forgetful(), TunableIndex)
    index = tuned(Forgetful(), QUERIES, 10, target)
    assert index.effort == effort
    assert [point.effort for point in index.curve] == list(range(1, 11))
    np.testing.assert_allclose([point.recall for point in index.curve], np.arange(1, 11) / 10)
    expected = [20, 20, 20, 4, 6.4, 6, 7, 8, 9, 10]
    np.testing.assert_allclose(
        [(point.p50_ms, point.p99_ms) for point in index.curve], np.transpose([expected, expected])
    )


def test_a_target_out_of_reach_takes_the_largest_effort_and_says_so(capsys):
    index = tuned(Forgetful(most=6), QUERIES, 10, 0.9)
    assert index.effort == 6
    assert "recall@10 0.600 at most; 0.9 was asked for" in capsys.readouterr().err


def test_the_curve_tells_of_the_worst_twentieth_of_the_users():
    curve = recall_curve(Forgetful(spoilt=(3, 7)), QUERIES, 10)
    assert curve[-1].recall == pytest.approx(0.9)
    assert curve[-1].recall_p5 == 0.0
    assert recall_curve(Forgetful(), QUERIES, 10)[4].recall_p5 == pytest.approx(0.5)


def test_measuring_ends_where_everything_is_found():
    assert len(recall_curve(Forgetful(most=100), QUERIES, 10)) == 10


def test_a_k_above_the_catalogue_asks_for_the_catalogue():
    index = tuned(Forgetful(vectors=VECTORS[:6]), QUERIES, 500, 0.5)
    assert index.curve[-1].recall == 1.0


def test_recalls_by_hand():
    found = np.array([[1, 2, 3], [4, 5, 6], [9, 0, 0]])
    right = np.array([[3, 2, 8], [1, 2, 3], [7, 0, 0]])
    np.testing.assert_allclose(recalls(found, right), [2 / 3, 0.0, 0.0])
    assert recalls(np.array([[4]]), np.array([[0]])).tolist() == [1.0]


def test_faiss_finds_what_was_asked_for_and_remembers_what_was_measured(tmp_path):
    vectors = np.random.default_rng(2).normal(size=(20_001, 16)).astype(np.float32)
    queries = np.random.default_rng(3).normal(size=(50, 16)).astype(np.float32)
    index = tuned(FaissIndex.build(vectors), queries, 10, 0.9)
    right, _ = ExactIndex(vectors).search(queries, 10)
    assert 0.9 <= recalls(index.search(queries, 10)[0], right).mean() < 0.99
    least = index.curve[0]
    assert least.effort == 1 and least.recall < 0.5
    index.save(tmp_path)
    opened = FaissIndex.open(tmp_path)
    assert (opened.effort, opened.curve) == (index.effort, index.curve)
