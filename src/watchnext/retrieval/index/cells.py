"""Cells of the approximate index: vectors of like length and direction, in codes that are scanned.

A vector is turned into principal components and belongs to one cell. Of its difference from the cell's centre, in units
of the cell's radius, the leading components are kept as half bytes, in blocks of sixteen vectors.

The largest dot products are looked for, not the smallest angles, so cells are of one length first (buckets of the
norm), of one direction then: the bound of a cell's best product is tight only where its vectors are alike in both.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, no_type_check

import numpy as np
from numba import njit

from watchnext.native import even_parts, side_by_side
from watchnext.progress import bar
from watchnext.retrieval.index.lanes import LANES, LINE, ROWS_AT_ONCE, comparison, empty_bytes, ways
from watchnext.shapes import Array, Float, Int, UInt8

_NORM_QUANTILES = (0.3, 0.6, 0.8, 0.9, 0.96, 0.99)
_LIKE_NORMS = 0.03
_SAMPLE = 65_536
_VECTORS_OF_A_CELL_TO_LEARN_FROM = 32
_ROUNDS = 5
_CLUSTERED_DIMS, _SCANNED_DIMS, _CENTRE_DIMS = 64, 128, 128
_AT_ONCE = 65_536
_REACH = 3.5  # standard deviations that a code reaches, beyond which it is cut
_LONGEST_CENTRE = 6  # times the median, above which a centre is cut: one long vector spoils no other's
_SHRINK = 8  # a cell's radius leans to its bucket's as if it had so many more vectors
_TINY = 1e-12

_keep_best = comparison(ways()[0])


@dataclass(frozen=True)
class Cells:
    """The arrays of an index; `dim` is that of the vectors, rounded up to a multiple of 8.

    Half byte h of component j of a vector in cell c stands for centre[c, j] + radius[c]·step[j]·(h - 7.5). `step` is of
    the scanned components alone, `variance` of all, in units of the radius squared.
    """

    basis: Float[Array, "dim dim"]
    centres: UInt8[Array, "_"]
    centre_step: Float[Array, "dim"]
    radius: Float[Array, "cells"]
    first_block: Int[Array, "offsets"]
    count: Int[Array, "cells"]
    step: Float[Array, "_"]
    variance: Float[Array, "dim"]
    video_row: Int[Array, "slots"]
    scanned: UInt8[Array, "_"]

    @property
    def centre_dims(self) -> int:
        """How many components a centre has; its others are zero."""
        return min(_CENTRE_DIMS, len(self.variance))


def build_cells(vectors: Float[Array, "videos dim"], num_cells: int, seed: int = 0) -> Cells:
    """Learns cells from a sample and files every row but row 0; two passes over the vectors, a block at a time."""
    random = np.random.default_rng(seed)
    learnt = _Learnt.of(vectors, num_cells, random)
    with bar("index: filing vectors", 2 * (len(vectors) - 1)) as progress:
        labels = np.empty(len(vectors) - 1, dtype=np.int32)
        sums = _Sums(learnt)
        for start, block in _blocks(vectors):
            labels[start : start + len(block)] = found = learnt.cells_of(block)
            sums.add(block, found)
            progress.advance(len(block))
        centres, stored, centre_step = sums.centres()
        radius = sums.radii(stored)
        first_block, places, video_row = _placed(labels, sums.count)
        basis = learnt.basis
        some = np.sort(random.choice(len(labels), min(len(labels), _SAMPLE), replace=False))
        rest = _padded(vectors[some + 1]) @ basis - stored[labels[some]]
        # The most of any bucket: seldom watched videos, which are most, lie otherwise about their centres than popular
        # ones, and would make the popular ones' bounds too low.
        differences, bucket = rest / radius[labels[some], None], learnt.buckets_of(labels[some])
        spread = np.max([differences[bucket == one].std(axis=0) for one in np.unique(bucket)], axis=0)
        step = (np.maximum(spread[:_SCANNED_DIMS], 1e-6) * _REACH / 8).astype(np.float32)
        scanned = empty_bytes(len(video_row) * len(step) // 2)
        for start, block in _blocks(vectors):
            part = slice(start, start + len(block))
            components = block @ basis[:, : len(step)]
            arguments = (components, labels[part], places[part], stored, radius, step, scanned)
            side_by_side(_encode, even_parts(len(block), block.size), arguments)
            progress.advance(len(block))
    variance = (spread**2).astype(np.float32)
    return Cells(basis, centres, centre_step, radius, first_block, sums.count, step, variance, video_row, scanned)


@dataclass(frozen=True)
class _Learnt:
    """Principal components, bounds of the norm's buckets, and each bucket's cells as directions in bytes."""

    basis: Float[Array, "dim dim"]
    edges: Float[Array, "_"]
    directions: list[UInt8[Array, "_"]]
    starts: Int[Array, "_"]

    @classmethod
    def of(cls, vectors: Float[Array, "videos dim"], num_cells: int, random: np.random.Generator) -> "_Learnt":
        wanted = min(len(vectors) - 1, max(_SAMPLE, num_cells * _VECTORS_OF_A_CELL_TO_LEARN_FROM))
        sample = _padded(vectors[np.sort(random.choice(len(vectors) - 1, wanted, replace=False)) + 1])
        norms = _norms(sample)
        alike = norms.std() < _LIKE_NORMS * norms.mean() + _TINY
        edges = np.zeros(0) if alike else np.unique(np.quantile(norms, _NORM_QUANTILES))
        units = sample[:_SAMPLE] / (norms[:_SAMPLE, None] + _TINY)
        basis = np.ascontiguousarray(np.linalg.eigh(units.T @ units)[1][:, ::-1]).astype(np.float32)
        empty = cls(basis, edges.astype(np.float32), [], np.zeros(1, dtype=np.int64))
        bucket, units = empty._buckets_and_units(sample)
        directions, starts = [], [0]
        with bar("index: learning cells", (len(edges) + 1) * _ROUNDS) as progress:
            for number in range(len(edges) + 1):
                mine = units[bucket == number]
                cells = max(1, round(num_cells * len(mine) / len(units) / LANES)) * LANES
                directions.append(_k_means(mine if len(mine) else units, cells, random, progress.advance))
                starts.append(starts[-1] + cells)
        return cls(basis, empty.edges, directions, np.array(starts))

    def cells_of(self, block: Float[Array, "rows dim"]) -> Int[Array, "rows"]:
        """Gives the cell of each vector."""
        bucket, units = self._buckets_and_units(block)
        found = np.empty(len(block), dtype=np.int32)
        for number, directions in enumerate(self.directions):
            mine = np.flatnonzero(bucket == number)
            found[mine] = self.starts[number] + _nearest(_signed(units[mine]), directions)
        return found

    def buckets_of(self, labels: Int[Array, "rows"]) -> Int[Array, "rows"]:
        """Gives the bucket of each cell."""
        return np.searchsorted(self.starts, labels, side="right") - 1

    def _buckets_and_units(self, block: Float[Array, "rows dim"]) -> tuple[Int[Array, "rows"], Float[Array, "rows _"]]:
        leading = block @ self.basis[:, :_CLUSTERED_DIMS]
        units = leading / (_norms(leading)[:, None] + np.float32(_TINY))
        return np.searchsorted(self.edges, _norms(block)), units


class _Sums:
    """What makes centres and radii: sums of the vectors of each cell, of their squares, and counts."""

    def __init__(self, learnt: _Learnt) -> None:
        cells, dim = int(learnt.starts[-1]), len(learnt.basis)
        self.count = np.zeros(cells, dtype=np.int32)
        self._learnt = learnt
        self._sums = np.zeros((cells, dim), dtype=np.float32)
        self._squares = np.zeros(cells)

    def add(self, block: Float[Array, "rows dim"], labels: Int[Array, "rows"]) -> None:
        _add_up(block, labels, self._sums)
        cells = len(self.count)
        self.count += np.bincount(labels, minlength=cells).astype(np.int32)
        self._squares += np.bincount(labels, np.einsum("rd,rd->r", block, block), minlength=cells)

    def centres(self) -> tuple[UInt8[Array, "_"], Float[Array, "cells dim"], Float[Array, "dim"]]:
        """Gives the centres as bytes in blocks, as the numbers that these stand for, and their unit.

        Differences are taken from what is stored: rounding a centre costs nothing.
        """
        means = self._means()
        most = _LONGEST_CENTRE * np.median(np.linalg.norm(means[self.count > 0], axis=1))
        step = (np.minimum(np.abs(means).max(axis=0), most) / 127 + _TINY).astype(np.float32)
        rounded = np.clip(np.rint(means / step), -127, 127)
        rounded[:, _CENTRE_DIMS:] = 0.0
        return _in_blocks(_unsigned(rounded[:, :_CENTRE_DIMS])), (rounded * step).astype(np.float32), step

    def radii(self, stored: Float[Array, "cells dim"]) -> Float[Array, "cells"]:
        """Gives the root of the mean squared difference from the centre, the rare cells' nearer to their bucket's."""
        means, count = self._means(), self.count
        square = self._squares / np.maximum(count, 1)
        inside = square - (means**2).sum(axis=1) + ((means - stored) ** 2).sum(axis=1)
        inside = np.maximum(inside, 1e-4 * square)
        for first, last in zip(self._learnt.starts[:-1], self._learnt.starts[1:], strict=True):
            part = slice(int(first), int(last))
            usual = np.median(inside[part][count[part] > 0]) if count[part].any() else 0.0
            inside[part] = (inside[part] * count[part] + usual * _SHRINK) / (count[part] + _SHRINK)
        radius: Array = np.sqrt(inside + _TINY).astype(np.float32)
        return radius

    def _means(self) -> Float[Array, "cells dim"]:
        means: Array = self._sums / np.maximum(self.count, 1)[:, None] @ self._learnt.basis
        return means


def _k_means(units: Float[Array, "rows _"], cells: int, random: np.random.Generator, advance: Any) -> UInt8[Array, "_"]:
    """Spherical k-means; gives the directions as bytes in blocks."""
    signed = _signed(units)
    directions = units[random.choice(len(units), cells, replace=len(units) < cells)]
    for _ in range(_ROUNDS):
        labels = _nearest(signed, _in_blocks(_unsigned(_signed(directions))))
        sums = np.zeros_like(directions)
        _add_up(units, labels, sums)
        empty = np.bincount(labels, minlength=cells) == 0
        sums[empty] = units[random.choice(len(units), int(empty.sum()))]
        directions = sums / (np.linalg.norm(sums, axis=1, keepdims=True) + _TINY)
        advance()
    return _in_blocks(_unsigned(_signed(directions)))


def _nearest(signed: Array, directions: UInt8[Array, "_"]) -> Int[Array, "rows"]:
    """The direction with the largest dot product with each row of signed bytes."""
    labels = np.zeros(len(signed), dtype=np.int32)
    side_by_side(_find_nearest, even_parts(len(signed), signed.size), (signed, directions, labels))
    return labels


def _placed(
    labels: Int[Array, "rows"], count: Int[Array, "cells"]
) -> tuple[Int[Array, "offsets"], Int[Array, "rows"], Int[Array, "slots"]]:
    """Where each cell's blocks begin, the slot of each vector, and the video of each slot, row 0 where none is."""
    first_block = np.concatenate([[0], np.cumsum(-(-count // LANES))]).astype(np.int32)
    order = np.argsort(labels, kind="stable")
    before = np.cumsum(count) - count
    begin = np.repeat(first_block[:-1].astype(np.int64) * LANES - before, count)
    places = np.empty(len(labels), dtype=np.int32)
    places[order] = np.arange(len(labels)) + begin
    video_row = np.zeros(int(first_block[-1]) * LANES, dtype=np.int32)
    video_row[places] = np.arange(1, len(labels) + 1)
    return first_block, places, video_row


def _blocks(vectors: Float[Array, "videos dim"]) -> Iterator[tuple[int, Float[Array, "rows _"]]]:
    """The vectors but row 0, some at a time, each block with the place where it begins."""
    for start in range(1, len(vectors), _AT_ONCE):
        yield start - 1, _padded(vectors[start : start + _AT_ONCE])


def _padded(vectors: Float[Array, "rows dim"]) -> Float[Array, "rows _"]:
    """Zeros behind each vector, up to a multiple of eight."""
    missing = -vectors.shape[1] % 8
    return np.pad(vectors, ((0, 0), (0, missing))) if missing else np.asarray(vectors)


def _norms(vectors: Float[Array, "rows _"]) -> Float[Array, "rows"]:
    norms: Array = np.sqrt(np.einsum("rd,rd->r", vectors, vectors))  # several times as fast as np.linalg.norm
    return norms


def _signed(units: Float[Array, "rows _"]) -> Array:
    """Directions as signed bytes; components above .7 are cut, which are rare."""
    return np.clip(np.rint(units * 180.0), -127, 127).astype(np.int8)


def _unsigned(numbers: Array) -> UInt8[Array, "rows _"]:
    return (numbers.astype(np.int16) + 128).astype(np.uint8)


def _in_blocks(codes: UInt8[Array, "rows _"]) -> UInt8[Array, "_"]:
    """Sixteen rows side by side, four components of each in a line; the rows are a multiple of sixteen."""
    rows, dim = codes.shape
    lines = codes.reshape(rows // LANES, LANES, dim // 4, 4).transpose(0, 2, 1, 3)
    blocks = empty_bytes(codes.size)
    blocks[:] = lines.reshape(-1)
    return blocks


@njit(nogil=True, cache=True)
@no_type_check  # the tests' type checker would wrap it in what Numba cannot compile
def _find_nearest(
    signed: Any, directions: Any, labels: Any, begin: int, end: int
) -> None:  # pragma: no cover  # compiled
    # Stored bytes are 128 too high, for every direction alike: a row's best is the best.
    dim = signed.shape[1]
    best, where = np.empty(ROWS_AT_ONCE * LANES, np.int32), np.zeros(ROWS_AT_ONCE * LANES, np.int32)
    rows = np.zeros(ROWS_AT_ONCE * dim, np.int8)
    flat = signed.reshape(-1)
    for first in range(begin, end, ROWS_AT_ONCE):
        many = min(ROWS_AT_ONCE, end - first)
        rows[: many * dim] = flat[first * dim : (first + many) * dim]
        best[:] = -2147483648
        for block in range(len(directions) // (LANES * dim)):
            _keep_best(directions, block * LANES * dim, dim // 4, rows, best, where, np.int32(block))
        for row in range(many):
            lane = row * LANES
            for other in range(lane + 1, (row + 1) * LANES):
                if best[other] > best[lane] or (best[other] == best[lane] and where[other] < where[lane]):
                    lane = other
            labels[first + row] = where[lane] * LANES + lane - row * LANES


@njit(nogil=True, cache=True)
@no_type_check
def _add_up(vectors: Any, labels: Any, sums: Any) -> None:  # pragma: no cover  # compiled
    for row in range(len(vectors)):
        total = sums[labels[row]]
        for component in range(vectors.shape[1]):
            total[component] += vectors[row, component]


@njit(nogil=True, cache=True)
@no_type_check
def _encode(
    components: Any,
    labels: Any,
    places: Any,
    stored: Any,
    radius: Any,
    step: Any,
    scanned: Any,
    begin: int,
    end: int,
) -> None:  # pragma: no cover  # compiled
    dim = len(step)
    code = np.empty(dim, np.uint8)
    for row in range(begin, end):
        cell, place = labels[row], np.int64(places[row])
        for component in range(dim):
            difference = components[row, component] - stored[cell, component]
            value = difference / (radius[cell] * step[component]) + np.float32(8.0)
            code[component] = np.uint8(min(max(value, np.float32(0.0)), np.float32(15.0)))
        line = (place // LANES) * LANES * dim // 2 + (place % LANES) * 4
        for group in range(dim // 8):
            for byte in range(4):
                lower, upper = code[8 * group + byte], code[8 * group + 4 + byte]
                scanned[line + group * LINE + byte] = lower | (upper << 4)
