"""A page that is not all of one channel or topic."""

import numpy as np

from watchnext.shapes import Array, Int


def diverse(groups: list[tuple[Int[Array, "width"], int]], k: int) -> Int[Array, "k"]:
    """Gives the places of a ranked list that make a page of k, best first: no group has more than its limit.

    Each of `groups` has the group of every place, 0 for none, and the limit, 0 for none. Where the limits leave fewer
    than k, the best of the rest fill up: k means k.

    >>> channels = np.array([7, 7, 7, 8, 0])
    >>> diverse([(channels, 1)], 3).tolist(), diverse([(channels, 1)], 4).tolist()
    ([0, 3, 4], [0, 1, 3, 4])
    """
    limited = [(of.tolist(), limit) for of, limit in groups if limit]
    count = len(groups[0][0])
    if not limited:
        return np.arange(min(k, count))
    taken: list[int] = []
    left: list[int] = []
    counts: list[dict[int, int]] = [{} for _ in limited]
    for place in range(count):
        full = any(
            of[place] and seen.get(of[place], 0) >= limit for (of, limit), seen in zip(limited, counts, strict=True)
        )
        (left if full else taken).append(place)
        if not full:
            for (of, _), seen in zip(limited, counts, strict=True):
                seen[of[place]] = seen.get(of[place], 0) + 1
        if len(taken) == k:
            break
    return np.array(sorted(taken + left[: k - len(taken)]), dtype=np.int64)
