"""One search among cells, compiled: a plan, then a scan; its best are scored by the stored vectors themselves.

1. *Plan.* Every cell gets a bound: the query's product with the centre, and some standard deviations of its product
   with what a vector of the cell may differ. Cells are taken in order of the bound.
2. *Scan.* Vectors are scored by the half bytes of their leading components. The best stay in a list that is cut back
   whenever it is full, and cells are skipped once their bound is below the k-th best so far.
"""

from dataclasses import dataclass
from typing import Any, no_type_check

import numpy as np
from numba import njit

from watchnext.native import fetch_ahead
from watchnext.retrieval.index.cells import Cells
from watchnext.retrieval.index.lanes import LANES, LINE, lowest_bit, scans, ways
from watchnext.shapes import Array, Bool, Float, Int

_DEVIATIONS = 5.5
_KEPT = 8  # times k
_FEWEST_KEPT = 200
_BINS = 1024
_LOWEST = np.float32(-1e30)

_scan_bytes, _scan_halves = scans(ways()[0])


@dataclass(frozen=True)
class Scratch:
    """The memory that one search works in: as many as there are threads."""

    query: Array
    bytes_of_query: Array
    products: Array
    base: Array
    bound: Array
    order: Array
    bins: Array
    scores: Array
    rows: Array

    @classmethod
    def of(cls, cells: Cells, k: int) -> "Scratch":
        """Gives enough for the k best."""
        num_cells, dim = len(cells.radius), len(cells.variance)
        room = 3 * max(_KEPT * k, _FEWEST_KEPT) + LANES
        floats, ints = np.float32, np.int32
        return cls(
            np.zeros(dim, floats),
            np.zeros(2 * dim, np.int8),
            np.zeros(max(num_cells, LANES), ints),
            np.zeros(num_cells, floats),
            np.zeros(num_cells, floats),
            np.zeros(num_cells, ints),
            np.zeros(_BINS, ints),
            np.zeros(room, floats),
            np.zeros(room, ints),
        )


def nearest_in_cells(
    cells: Cells,
    query: Float[Array, "dim"],
    k: int,
    budget: int,
    allowed: Bool[Array, "_"],
    struck: Bool[Array, "_"],
    scratch: Scratch,
) -> Int[Array, "_"]:
    """Gives the rows of some times k videos that score best by their codes, in no order.

    At most about `budget` vectors are looked at. `allowed` and `struck` say of each row whether it may be found and
    whether it may not; empty ones say nothing.
    """
    wide = max(_KEPT * k, _FEWEST_KEPT)
    s = scratch
    num = _plan(
        query, cells.basis, cells.centre_step, cells.variance, cells.centres, cells.centre_dims, cells.radius,
        cells.count, np.float32(_DEVIATIONS), budget, s.query, s.bytes_of_query, s.products, s.base, s.bound, s.order,
        s.bins,
    )  # fmt: skip
    found = _scan(
        s.query, cells.step, cells.scanned, cells.radius, cells.first_block, cells.count, cells.video_row, s.base,
        s.bound, s.order, num, wide, k, allowed, struck, s.bytes_of_query, s.products, s.scores, s.rows, s.bins,
    )  # fmt: skip
    return s.rows[:found]


@njit(nogil=True, cache=True, fastmath={"reassoc", "nsz", "contract"})
@no_type_check  # the tests' type checker would wrap it in what Numba cannot compile
def _plan(
    query: Any,
    basis: Any,
    centre_step: Any,
    variance: Any,
    centres: Any,
    centre_dims: int,
    radius: Any,
    count: Any,
    deviations: Any,
    budget: int,
    turned: Any,
    ints: Any,
    products: Any,
    base: Any,
    bound: Any,
    order: Any,
    bins: Any,
) -> int:  # pragma: no cover  # compiled
    """Turns the query, bounds every cell, and puts those that the budget allows in order; gives how many."""
    dim, num_cells = len(turned), len(radius)
    turned[:] = 0.0
    for component in range(len(query)):
        for place in range(dim):
            turned[place] += query[component] * basis[component, place]
    largest, spread = np.float32(1e-30), np.float32(0.0)
    for place in range(centre_dims):
        largest = max(largest, abs(turned[place] * centre_step[place]))
    for place in range(dim):
        spread += turned[place] * turned[place] * variance[place]
    spread = deviations * np.sqrt(spread)
    # The query in 15 bits: two bytes a component, scanned one after the other.
    unit = largest / np.float32(16256.0)
    high, low = ints[:centre_dims], ints[centre_dims : 2 * centre_dims]
    sum_high, sum_low = 0, 0
    for place in range(centre_dims):
        value = np.int32(np.rint(turned[place] * centre_step[place] / unit))
        upper = (value + 64) >> 7
        high[place], low[place] = np.int8(upper), np.int8(value - (upper << 7))
        sum_high += upper
        sum_low += value - (upper << 7)
    lower = np.empty(LANES, np.int32)
    bytes_of_block = LANES * centre_dims
    for block in range(num_cells // LANES):
        if (block + 3) * LANES <= num_cells:
            for place in range(0, bytes_of_block, LINE):
                fetch_ahead(centres, (block + 2) * bytes_of_block + place)
        begin = block * bytes_of_block
        _scan_bytes(centres, begin, centre_dims // 4, high, np.int32(128 * sum_high), products, block * LANES)
        _scan_bytes(centres, begin, centre_dims // 4, low, np.int32(128 * sum_low), lower, 0)
        for lane in range(LANES):
            base[block * LANES + lane] = unit * np.float32(128 * products[block * LANES + lane] + lower[lane])
    best, total = _LOWEST, np.float32(0.0)
    for cell in range(num_cells):
        bound[cell] = base[cell] + spread * radius[cell]
        best = max(best, bound[cell])
        total += bound[cell]
    # Cells above the mean bound, counted by it: where the budget ends, then in order.
    least = total / np.float32(num_cells)
    if best <= least:  # all alike
        least = best - np.float32(1.0)
    last = len(bins) - 1
    scale = np.float32(last) / (best - least)
    bins[:] = 0
    for cell in range(num_cells):
        if bound[cell] >= least:
            bins[np.int32((bound[cell] - least) * scale)] += count[cell]
    got, bin_ = 0, last
    while bin_ > 0:
        got += bins[bin_]
        if got >= budget:
            break
        bin_ -= 1
    whole = bin_ == 0 and got + bins[0] < budget
    edge = _LOWEST if whole else least + np.float32(bin_) / scale
    bins[:] = 0
    num = 0
    for cell in range(num_cells):
        if bound[cell] >= edge and count[cell] > 0:
            bins[max(np.int32((bound[cell] - least) * scale), 0)] += 1
            num += 1
    got = 0
    for bin_ in range(last, -1, -1):
        here = bins[bin_]
        bins[bin_] = got
        got += here
    for cell in range(num_cells):
        if bound[cell] >= edge and count[cell] > 0:
            bin_ = max(np.int32((bound[cell] - least) * scale), 0)
            order[bins[bin_]] = cell
            bins[bin_] += 1
    return num


@njit(nogil=True, cache=True, fastmath={"reassoc", "nsz", "contract"})
@no_type_check
def _scan(
    turned: Any,
    step: Any,
    scanned: Any,
    radius: Any,
    first_block: Any,
    count: Any,
    video_row: Any,
    base: Any,
    bound: Any,
    order: Any,
    num: int,
    wide: int,
    k: int,
    allowed: Any,
    struck: Any,
    ints: Any,
    products: Any,
    scores: Any,
    rows: Any,
    bins: Any,
) -> int:  # pragma: no cover  # compiled
    """Scores by half bytes; leaves about the `wide` best in the lists, and gives how many."""
    num_scanned = len(step)
    unit, total = np.float32(1e-30), 0
    for place in range(num_scanned):
        unit = max(unit, abs(turned[place] * step[place]) / np.float32(127.0))
    for place in range(num_scanned):
        value = np.int32(np.rint(turned[place] * step[place] / unit))
        total += value
        ints[place] = np.int8(value)
    offset = np.float32(7.5) * np.float32(total)
    nothing = np.int32(0)
    bytes_of_block = LANES * num_scanned // 2
    least, kth = _LOWEST, _LOWEST
    found = 0
    for turn in range(num):
        cell = order[turn]
        if bound[cell] < kth:  # the order is that of a histogram's bins: a later one may do
            continue
        if turn + 1 < num:
            begin = np.int64(first_block[order[turn + 1]]) * bytes_of_block
            for place in range(0, 2 * bytes_of_block, LINE):
                fetch_ahead(scanned, begin + place)
        scale = radius[cell] * unit
        start, stop = np.int64(first_block[cell]), np.int64(first_block[cell + 1])
        for block in range(start, stop):
            if block + 3 < stop:
                for place in range(0, bytes_of_block, LINE):
                    fetch_ahead(scanned, (block + 3) * bytes_of_block + place)
            _scan_halves(scanned, block * bytes_of_block, num_scanned // 8, ints, nothing, products, 0)
            # What the sixteen sums would have to be above.
            above = (least - base[cell]) / scale + offset
            bits = np.uint64(0)
            for lane in range(LANES):
                bits |= np.uint64(np.float32(products[lane]) > above) << np.uint64(lane)
            if block == stop - 1:
                bits &= (np.uint64(1) << np.uint64(count[cell] - LANES * (block - start))) - np.uint64(1)
            while bits:
                lane = np.int64(lowest_bit(bits))
                bits &= bits - np.uint64(1)
                row = video_row[block * LANES + lane]
                if (len(allowed) > 0 and not allowed[row]) or (len(struck) > 0 and struck[row]):
                    continue
                scores[found] = base[cell] + scale * (np.float32(products[lane]) - offset)
                rows[found] = row
                found += 1
            if found > len(scores) - LANES:
                least = _reached(scores, found, wide, bins)
                kth = max(kth, _reached(scores, found, k, bins))
                found = _kept(scores, rows, found, least)
                if found > 2 * wide:  # nearly all in one bin: exactly, and of equals some
                    least = np.partition(scores[:found], found - wide)[found - wide]
                    found = min(_kept(scores, rows, found, least), 2 * wide)
    if found > wide:
        found = _kept(scores, rows, found, _reached(scores, found, wide, bins))
    return found


@njit(nogil=True, cache=True, fastmath={"reassoc", "nsz", "contract"})
@no_type_check
def _reached(scores: Any, found: int, wanted: int, bins: Any) -> Any:  # pragma: no cover  # compiled
    """A score that `wanted` of the first `found`, or slightly more, reach: from a histogram."""
    low = high = scores[0]
    for place in range(found):
        low, high = min(low, scores[place]), max(high, scores[place])
    last = len(bins) - 1
    scale = np.float32(last) / (high - low + np.float32(1e-12))
    bins[:] = 0
    for place in range(found):
        bins[np.int32((scores[place] - low) * scale)] += 1
    got, bin_ = 0, last
    while bin_ > 0:
        got += bins[bin_]
        if got >= wanted:
            break
        bin_ -= 1
    return low + np.float32(bin_) / scale


@njit(nogil=True, cache=True)
@no_type_check
def _kept(scores: Any, rows: Any, found: int, least: Any) -> int:  # pragma: no cover  # compiled
    """Moves those that reach `least` to the front; gives how many."""
    kept = 0
    for place in range(found):
        score = scores[place]
        scores[kept], rows[kept] = score, rows[place]
        kept += score >= least
    return kept
