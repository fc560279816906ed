import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchnext.evaluation.metrics import hits, mrr, ndcg, ratio_or_nan, recall

LIST = np.array([[7, 8, 9, 10]])


def one(metric, targets: list[int], k: int, lists: np.ndarray = LIST) -> float:
    return float(metric(lists, [np.array(targets, dtype=np.int64)], k)[0])


def test_recall_is_the_share_of_targets_found():
    assert one(recall, [9, 7, 99], 4) == pytest.approx(2 / 3)


def test_recall_looks_at_the_first_k_only():
    assert one(recall, [9, 7], 2) == 0.5
    assert one(recall, [9, 7], 3) == 1.0


def test_ndcg_is_the_one_worked_by_hand():
    # Hits in places 1 and 3: 1 + 1/log2(4) = 1.5; ideal, three targets: 1 + 0.6309 + 0.5 = 2.1309.
    assert one(ndcg, [7, 9, 99], 4) == pytest.approx(1.5 / 2.1309, abs=1e-4)


def test_ideal_list_of_ndcg_has_no_more_than_k_hits():
    assert one(ndcg, [7, 8, 9, 10], 2) == 1.0


def test_ndcg_of_a_list_shorter_than_k_is_judged_by_k_places():
    # A hit in place 1 of a list of two; ideal with two targets: 1.6309.
    assert one(ndcg, [7, 99], 10, LIST[:, :2]) == pytest.approx(1 / 1.6309, abs=1e-4)


def test_second_relevant_gives_half():
    assert one(mrr, [8, 10], 4) == 0.5


def test_a_first_hit_beyond_k_gives_0():
    assert one(mrr, [9], 2) == 0.0


@pytest.mark.parametrize("metric", [recall, ndcg, mrr])
def test_a_user_without_targets_has_no_value(metric):
    assert math.isnan(one(metric, [], 4))


@pytest.mark.parametrize("metric", [recall, ndcg, mrr])
def test_padding_hits_nothing_even_a_target_of_row_0(metric):
    assert one(metric, [0, 5], 4, np.array([[0, 0, 0, 0]])) == 0.0


@pytest.mark.parametrize("metric", [recall, ndcg, mrr])
def test_no_users_have_no_values(metric):
    assert metric(np.zeros((0, 4), dtype=np.int64), [], 4).shape == (0,)


def test_hits_tells_the_places_of_targets():
    lists = np.array([[1, 2, 0], [3, 4, 5]])
    assert hits(lists, [np.array([2, 9]), np.array([5, 3])]).tolist() == [[False, True, False], [True, False, True]]


def test_a_ratio_over_nothing_is_unknown():
    np.testing.assert_array_equal(ratio_or_nan(np.array([1.0, 0.0]), np.array([2.0, 0.0])), [0.5, np.nan])


def slow_metrics(ranking: list[int], wanted: set[int], k: int) -> tuple[float, float, float]:
    """Recall, ndcg and mrr by walking down the list."""
    found = [rank for rank, row in enumerate(ranking[:k], start=1) if row in wanted]
    gain = sum(1 / math.log2(rank + 1) for rank in found)
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(wanted)) + 1))
    return len(found) / len(wanted), gain / ideal, 1 / found[0] if found else 0.0


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(1, 12), max_size=8, unique=True), st.sets(st.integers(1, 12), min_size=1)),
        min_size=1,
        max_size=5,
    ),
    st.integers(1, 10),
)
def test_metrics_are_those_of_walking_down_the_list(users, k):
    lists = np.array([ranking + [0] * (8 - len(ranking)) for ranking, _ in users])
    targets = [np.array(sorted(wanted)) for _, wanted in users]
    expected = np.array([slow_metrics(ranking, wanted, k) for ranking, wanted in users])
    for place, metric in enumerate((recall, ndcg, mrr)):
        np.testing.assert_allclose(metric(lists, targets, k), expected[:, place], rtol=1e-12)
