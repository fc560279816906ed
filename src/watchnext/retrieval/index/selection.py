"""The best of many scores that come in blocks, without sorting them."""

from typing import Any, no_type_check

import numpy as np
import torch
from numba import njit

from watchnext.native import as_array, even_parts, side_by_side, widened
from watchnext.shapes import Array, Float, Int, Tensor

_SCORES_AT_ONCE = 128


class RunningTop:
    """The k best of everything offered so far, for each query.

    Most scores are below the k-th best of before: blocks of them are passed over at the speed of memory. The others
    are appended, and whenever there are twice as many as wanted the worse half is forgotten.
    """

    def __init__(self, num_queries: int, k: int) -> None:
        self._k = k
        self._places = np.zeros((num_queries, 2 * k), dtype=np.int64)
        self._scores = np.full((num_queries, 2 * k), -np.inf, dtype=np.float32)
        self._counts = np.zeros(num_queries, dtype=np.int64)
        self._least = np.full(num_queries, -np.inf, dtype=np.float32)

    def offer(self, scores: Float[Tensor, "batch block"], first: int) -> None:
        """Takes the scores of the places `first`, `first` + 1 and so on, on the CPU; -inf is never kept."""
        arguments = (as_array(scores), first, self._k, self._places, self._scores, self._counts, self._least)
        side_by_side(_offer, even_parts(len(scores), scores.numel()), arguments)

    def best(self) -> tuple[Int[Array, "batch k"], Float[Array, "batch k"]]:
        """Gives places and scores, best first, of equals the first one offered; -inf where fewer were offered."""
        order = np.argsort(-self._scores, axis=1, kind="stable")[:, : self._k]
        return np.take_along_axis(self._places, order, 1), np.take_along_axis(self._scores, order, 1)


class TopOnDevice:
    """The same on an accelerator, by the library's sort; of equals any is kept."""

    def __init__(self, num_queries: int, k: int, device: torch.device) -> None:
        self._scores = torch.full((num_queries, k), -torch.inf, device=device)
        self._places = torch.zeros((num_queries, k), dtype=torch.int64, device=device)

    def offer(self, scores: Float[Tensor, "batch block"], first: int) -> None:
        """Takes the scores of the places `first`, `first` + 1 and so on."""
        k = self._scores.shape[1]
        best, places = scores.topk(min(k, scores.shape[1]), sorted=False)
        self._scores, chosen = torch.cat([self._scores, best], dim=1).topk(k)
        self._places = torch.cat([self._places, places + first], dim=1).gather(1, chosen)

    def best(self) -> tuple[Int[Array, "batch k"], Float[Array, "batch k"]]:
        """Gives places and scores, best first; -inf where fewer were offered."""
        return self._places.cpu().numpy(), self._scores.cpu().numpy()


@njit(nogil=True, cache=True)
@no_type_check  # the tests' type checker would wrap it in what Numba cannot compile
def _offer(
    scores: Any,
    first: int,
    k: int,
    places: Any,
    kept: Any,
    counts: Any,
    least: Any,
    begin: int,
    end: int,
) -> None:  # pragma: no cover  # compiled
    size = scores.shape[1]
    for query in range(begin, end):
        line, bar = scores[query], least[query]
        for start in range(0, size, _SCORES_AT_ONCE):
            part = line[start : start + _SCORES_AT_ONCE]
            above = np.uint32(0)
            for place in range(len(part)):
                above += np.uint32(widened(part[place]) > bar)
            if above == 0:
                continue
            for place in range(len(part)):
                score = widened(part[place])
                if score > bar:
                    kept[query, counts[query]] = score
                    places[query, counts[query]] = first + start + place
                    counts[query] += 1
                    if counts[query] == 2 * k:
                        _forget(places[query], kept[query], k)
                        counts[query] = k
                        bar = least[query] = kept[query, :k].min()


@njit(nogil=True, cache=True)
@no_type_check
def _forget(places: Any, kept: Any, k: int) -> None:  # pragma: no cover  # compiled
    """Moves the k best to the front, in the order in which they came."""
    bound = np.partition(kept, len(kept) - k)[len(kept) - k]
    equals = k - (kept > bound).sum()
    count = 0
    for place in range(len(kept)):
        if kept[place] == bound:
            equals -= 1
        if kept[place] > bound or (kept[place] == bound and equals >= 0):
            kept[count] = kept[place]
            places[count] = places[place]
            count += 1
    kept[k:] = -np.inf
