"""Vectors in twelve bits a number: what an approximate index scores its best by, three quarters of float16."""

from pathlib import Path
from typing import Any, TypeAlias, no_type_check

import numpy as np
from numba import njit

from watchnext.memory import read_soon
from watchnext.native import even_parts, fetch_ahead, side_by_side
from watchnext.shapes import Array, Float, Int, UInt8

_ROWS_AT_ONCE = 65_536
_LARGEST = 2047  # of twelve bits with a sign
_ROWS_AHEAD = 12
_LINE_BYTES = 64


class PackedVectors:
    """Reads like a matrix of float32 that lies in memory as bytes and half bytes.

    Number j of row r is scale[r] · (16·high + low): a signed byte each, then the half bytes, those of the second half
    of the numbers in the upper bits. With the largest number of a row at 2047, each is right to 1/4094 of that.
    """

    def __init__(self, codes: UInt8[Array, "videos _"], scale: Float[Array, "videos"]) -> None:
        self.codes = codes
        self.scale = scale
        self.shape = (len(codes), 2 * codes.shape[1] // 3)

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: Any) -> Float[Array, "... dim"]:
        """Gives some rows in float32: of a slice, of marks for every row, or of row numbers of any shape."""
        if isinstance(rows, slice):
            return self._unpacked(self.codes[rows], self.scale[rows])
        chosen = np.asarray(rows)
        places = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.reshape(-1)
        shape = places.shape if chosen.dtype == bool else chosen.shape
        found: Array = self._unpacked(self.codes[places], self.scale[places]).reshape(*shape, self.shape[1])
        return found

    def scores(self, query: Float[Array, "dim"], rows: Int[Array, "rows"]) -> Float[Array, "rows"]:
        """Gives the dot product of the query with each of some rows."""
        scores, half = np.empty(len(rows), dtype=np.float32), self.codes.shape[1] - len(query)
        second = np.pad(query[half:], (0, 2 * half - len(query)))
        _score(query, query[:half], second, self.codes, self.scale, rows, scores)
        return scores

    @classmethod
    def of(cls, vectors: Float[Array, "videos dim"]) -> "PackedVectors":
        """Packs vectors in memory."""
        scale = (np.abs(vectors).max(axis=1, initial=0.0) / _LARGEST).astype(np.float32)
        numbers = np.rint(vectors / np.where(scale > 0, scale, 1.0)[:, None]).astype(np.int16)
        low = (numbers & 15).astype(np.uint8)
        low = np.pad(low, ((0, 0), (0, low.shape[1] % 2)))
        half = low.shape[1] // 2
        high = (numbers >> 4).astype(np.int8).view(np.uint8)
        return cls(np.concatenate([high, low[:, :half] | low[:, half:] << 4], axis=1), scale)

    @classmethod
    def save(cls, vectors: "Vectors", folder: Path) -> None:
        """Packs the vectors a block at a time into `codes.npy` and `scale.npy`."""
        rows, dim = vectors.shape
        shape = (rows, dim + (dim + 1) // 2)
        codes = np.lib.format.open_memmap(folder / "codes.npy", "w+", np.uint8, shape)
        scale = np.zeros(rows, dtype=np.float32)
        for start in range(0, rows, _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            packed = cls.of(vectors[part])
            codes[part], scale[part] = packed.codes, packed.scale
        codes.flush()
        np.save(folder / "scale.npy", scale)

    @classmethod
    def open(cls, folder: Path) -> "PackedVectors":
        """Maps what `save` wrote, and reads it into memory in the background."""
        codes, scale = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("codes", "scale"))
        for array in (codes, scale):
            read_soon(array)
        return cls(codes, scale)

    def _unpacked(self, codes: UInt8[Array, "rows _"], scale: Float[Array, "rows"]) -> Float[Array, "rows dim"]:
        vectors = np.empty((len(codes), self.shape[1]), dtype=np.float32)
        side_by_side(_unpack, even_parts(len(codes), codes.size), (codes, scale, vectors))
        return vectors


Vectors: TypeAlias = Float[Array, "videos dim"] | PackedVectors
"""What an index scores videos by."""


@njit(nogil=True, cache=True, fastmath={"reassoc", "nsz", "contract"})
@no_type_check  # the tests' type checker would wrap it in what Numba cannot compile
def _score(
    query: Any, first: Any, second: Any, codes: Any, scale: Any, rows: Any, scores: Any
) -> None:  # pragma: no cover
    # Both halves of the query begin at 0 and a row's half bytes are read once: otherwise it takes four times as long.
    dim, half, width = len(query), len(first), codes.shape[1]
    flat, signed = codes.reshape(-1), codes.view(np.int8)
    for place in range(len(rows)):
        if place + _ROWS_AHEAD < len(rows):
            fetch_ahead(scale, np.int64(rows[place + _ROWS_AHEAD]))
            begin = np.int64(rows[place + _ROWS_AHEAD]) * width
            for byte in range(0, width, _LINE_BYTES):
                fetch_ahead(flat, begin + byte)
        high, low = signed[rows[place]], codes[rows[place], dim:]
        upper, lower = np.float32(0.0), np.float32(0.0)
        for number in range(dim):
            upper += query[number] * np.float32(high[number])
        for number in range(half):
            byte = low[number]
            lower += first[number] * np.float32(np.uint8(byte & 15)) + second[number] * np.float32(np.uint8(byte >> 4))
        scores[place] = scale[rows[place]] * (np.float32(16.0) * upper + lower)


@njit(nogil=True, cache=True)
@no_type_check
def _unpack(codes: Any, scale: Any, vectors: Any, begin: int, end: int) -> None:  # pragma: no cover  # compiled
    dim = vectors.shape[1]
    half = codes.shape[1] - dim
    signed = codes.view(np.int8)
    for row in range(begin, end):
        high, low, vector = signed[row], codes[row, dim:], vectors[row]
        upper_high, upper = high[half:], vector[half:]
        for number in range(half):
            vector[number] = scale[row] * np.float32(np.int16(16 * high[number] + (low[number] & 15)))
        for number in range(dim - half):
            upper[number] = scale[row] * np.float32(np.int16(16 * upper_high[number] + (low[number] >> 4)))
