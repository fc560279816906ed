"""The running best against sorting everything at the end."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from watchnext.retrieval.index.selection import RunningTop, TopOnDevice


@settings(max_examples=100)
@given(
    st.integers(0, 999), st.integers(1, 12), st.integers(1, 40), st.lists(st.integers(1, 200), min_size=1, max_size=6)
)
def test_it_keeps_what_a_stable_sort_would_put_first(seed, k, distinct, blocks):
    """Few distinct scores, so that many are equal, and some are -inf."""
    random = np.random.default_rng(seed)
    scores = random.integers(-distinct, distinct, (3, sum(blocks))).astype(np.float32)
    scores[random.random(scores.shape) < 0.2] = -np.inf
    top = RunningTop(3, k)
    for first, size in zip(np.cumsum([0, *blocks[:-1]]).tolist(), blocks, strict=True):
        top.offer(torch.from_numpy(scores[:, first : first + size]), first)
    places, best = top.best()
    for query in range(3):
        order = np.argsort(-scores[query], kind="stable")[:k]
        order = order[scores[query, order] > -np.inf]
        assert places[query, : len(order)].tolist() == order.tolist()
        assert best[query].tolist() == scores[query, order].tolist() + [-np.inf] * (k - len(order))


@pytest.mark.parametrize("way", [1, -1])
def test_neither_rising_nor_falling_scores_trouble_it(way):
    scores = way * np.arange(100_000, dtype=np.float32)[None]
    top = RunningTop(1, 500)
    for first in range(0, 100_000, 4_096):
        top.offer(torch.from_numpy(scores[:, first : first + 4_096]), first)
    places, best = top.best()
    expected = np.argsort(-scores[0])[:500]
    assert places[0].tolist() == expected.tolist() and best[0].tolist() == scores[0, expected].tolist()


def test_nothing_depends_on_the_number_of_threads():
    scores = np.random.default_rng(0).normal(size=(64, 2_000)).astype(np.float32)
    threads, found = torch.get_num_threads(), []
    for count in (1, 2):
        torch.set_num_threads(count)
        top = RunningTop(64, 10)
        top.offer(torch.from_numpy(scores), 0)
        found.append(top.best())
    torch.set_num_threads(threads)
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_scores_of_sixteen_bits_are_kept_too():
    scores = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 3_000))).bfloat16()
    scores[:, 7] = -torch.inf
    top = RunningTop(4, 10)
    top.offer(scores, 0)
    places, best = top.best()
    expected = np.argsort(-scores.float().numpy(), axis=1, kind="stable")[:, :10]
    assert places.tolist() == expected.tolist()
    assert best.tolist() == np.take_along_axis(scores.float().numpy(), expected, 1).tolist()


@settings(max_examples=60)
@given(st.integers(0, 999), st.integers(1, 12), st.lists(st.integers(1, 90), min_size=1, max_size=6))
def test_the_one_on_a_device_keeps_the_same(seed, k, blocks):
    scores = np.random.default_rng(seed).permutation(3 * sum(blocks)).reshape(3, -1).astype(np.float32)
    scores[1, k // 2 :] = -np.inf
    here, there = RunningTop(3, k), TopOnDevice(3, k, torch.device("cpu"))
    for first, size in zip(np.cumsum([0, *blocks[:-1]]).tolist(), blocks, strict=True):
        for top in (here, there):
            top.offer(torch.from_numpy(scores[:, first : first + size]), first)
    (places, best), (other_places, other_best) = here.best(), there.best()
    assert best.tolist() == other_best.tolist()
    assert places[best > -np.inf].tolist() == other_places[best > -np.inf].tolist()
