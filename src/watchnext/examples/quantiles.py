"""Continuous values as their quantile, with powers (§4.2)."""

from dataclasses import dataclass
from typing import Any, no_type_check
from weakref import WeakKeyDictionary

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from watchnext.native import even_parts, fetch_ahead, rounded, side_by_side
from watchnext.shapes import Array, Float, Int, Num

NUM_KNOTS = 257
_STEP = 16
_COLUMNS_AT_ONCE = 32


@dataclass(frozen=True, eq=False)
class Quantiles:
    """The cumulative distribution of each column, as knots and the level reached at each.

    Unused knots of a column are +inf.
    """

    knots: Float[Array, "features quantiles"]
    levels: Float[Array, "features quantiles"]

    @classmethod
    def fit(cls, values: Float[Array, "rows features"]) -> "Quantiles":
        """Fits every column to its known (not NaN) values.

        A value that occurs often covers a range of levels and is given the middle of it.
        """
        features = values.shape[1]
        knots = np.full((features, NUM_KNOTS), np.inf, dtype=np.float64)
        levels = np.full((features, NUM_KNOTS), 1.0, dtype=np.float64)
        grid = np.linspace(0.0, 1.0, NUM_KNOTS)
        for feature in range(features):
            known = values[~np.isnan(values[:, feature]), feature].astype(np.float64)
            if not len(known):
                continue
            distinct, first = np.unique(np.quantile(known, grid), return_index=True)
            last = np.append(first[1:], NUM_KNOTS) - 1
            knots[feature, : len(distinct)] = distinct
            levels[feature, : len(distinct)] = (grid[first] + grid[last]) / 2
        return cls(knots, levels)

    def normalised(self, values: Float[Array, "rows features"]) -> Float[Array, "rows features"]:
        """Gives each value's quantile, linearly interpolated; unknown values give 0.

        >>> ages = Quantiles.fit(np.array([[10.0], [20.0], [30.0]]))
        >>> ages.normalised(np.array([[10.0], [15.0], [99.0], [np.nan]])).ravel().tolist()
        [0.0, 0.25, 1.0, 0.0]
        """
        lookups = _LOOKUPS.setdefault(self, {})
        kind = values.dtype.type
        if kind not in lookups:
            lookups[kind] = Lookup.of(self, kind)
        return lookups[kind].normalised(values)


@dataclass(frozen=True)
class Lookup:
    """Quantiles laid out for looking up many values of one type.

    How many of a column's `keys` a value reaches is counted in two steps of sixteen; `ends` has the last key of each
    step. Keys are knots rounded up to the type of the values: the same values reach them. Place i of `lines` has the
    i-th key, the level there and the slope behind it; place 0 is for values below all keys.
    """

    used: Int[Array, "features"]
    ends: Float[Array, "features _"]
    keys: Float[Array, "features _"]
    lines: Float[Array, "features _ 3"]

    @classmethod
    def of(cls, quantiles: Quantiles, values: type[np.floating[Any]], exact: bool = True) -> "Lookup":
        """Lays the quantiles out for values of a type; if not `exact`, in half the memory, right to seven digits."""
        knots, levels = np.asarray(quantiles.knots), np.asarray(quantiles.levels)
        used = np.isfinite(knots).sum(axis=1)
        keys = np.full((len(knots), (_STEP + 1) * _STEP), np.inf, dtype=values)
        lines = np.zeros((len(knots), 1 + knots.shape[1], 3), dtype=np.float64 if exact else np.float32)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            nearest = knots.astype(values)
            keys[:, : knots.shape[1]] = np.where(nearest < knots, np.nextafter(nearest, values(np.inf)), nearest)
            slopes = np.diff(levels, axis=1, append=1.0) / np.diff(knots, axis=1, append=np.inf)
            # Behind its last knot a column is flat; knots as near as the least numbers make no slope of infinity.
            slopes[np.arange(knots.shape[1]) >= used[:, None] - 1] = 0.0
            slopes = np.minimum(slopes, np.finfo(lines.dtype).max)
            starts = np.where(slopes > 0.0, keys[:, : knots.shape[1]], knots)
            lines[:, 1:] = np.stack([starts, levels + (starts - knots) * slopes, slopes], axis=2)
        lines[:, 0, :2] = np.stack([knots, levels], axis=2)[:, 0]
        return cls(used, keys[:, _STEP - 1 :: _STEP][:, :_STEP].copy(), keys, lines)

    def normalised(self, values: Float[Array, "rows features"]) -> Float[Array, "rows features"]:
        """Gives what `Quantiles.normalised` gives."""
        found = np.empty(values.shape, dtype=np.float32)
        self.write(values, found, 0, powers=False)
        return found

    def write(
        self, values: Float[Array, "rows features"], rows: Num[Array, "rows _"], first: int, powers: bool
    ) -> None:
        """Writes the quantiles, and their powers as `with_powers` has them, into columns of `rows` from `first` on.

        Rows of 16-bit integers are given bfloat16, bytes steps of 1/127.
        """
        # Column after column, as a request's features lie in memory anyway: each has its own keys.
        columns = np.ascontiguousarray(values.T, dtype=self.keys.dtype)
        bounds = even_parts(values.shape[1], values.size)
        arguments = (columns, self.used, self.ends, self.keys, self.lines, rows, first, powers)
        side_by_side(_write, bounds, arguments)


_LOOKUPS: WeakKeyDictionary[Quantiles, dict[type[np.floating[Any]], Lookup]] = WeakKeyDictionary()


def with_powers(normalised: Float[Array, "rows features"]) -> Float[Array, "rows powers"]:
    """Gives x, x² and √x of every column, side by side (§4.2)."""
    return np.concatenate([normalised, normalised**2, np.sqrt(normalised)], axis=1)


@intrinsic
def _num_reached(context: Any, keys: Any, first: Any, value: Any) -> Any:
    """How many of the sixteen keys from `first` on are not above a value: one comparison of vectors."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number, short = target.get_value_type(signature.args[0].dtype), ir.IntType(32)
        vector = ir.VectorType(number, _STEP)
        array = target.make_array(signature.args[0])(target, builder, arguments[0])
        address = builder.bitcast(builder.gep(array.data, [arguments[1]]), vector.as_pointer())
        lanes = builder.load(address, align=signature.args[0].dtype.bitwidth // 8)
        nothing = ir.Constant(vector, ir.Undefined)
        single = builder.insert_element(nothing, arguments[2], ir.Constant(short, 0))
        everywhere = builder.shuffle_vector(single, nothing, ir.Constant(ir.VectorType(short, _STEP), [0] * _STEP))
        reached = builder.bitcast(builder.fcmp_ordered("<=", lanes, everywhere), ir.IntType(_STEP))
        return builder.zext(builder.ctpop(reached), ir.IntType(64))

    return types.int64(keys, types.int64, keys.dtype), generate


@njit(nogil=True, cache=True)
@no_type_check  # the tests' type checker would wrap it in what Numba cannot compile
def _write(
    columns: Any, used: Any, ends: Any, keys: Any, lines: Any, rows: Any, start: Any, powers: Any, begin: int, end: int
) -> None:  # pragma: no cover  # compiled
    """Some columns: as many at once as fill a line of memory in bfloat16, so that each line is written once."""
    count = len(columns)
    found = np.empty((columns.shape[1], _COLUMNS_AT_ONCE), np.float32)
    flat_keys, flat_lines = keys.reshape(-1), lines.reshape(-1)
    for first in range(begin, end, _COLUMNS_AT_ONCE):
        width = min(_COLUMNS_AT_ONCE, end - first)
        for feature in range(first, first + width):
            if feature + 1 < end:
                _fetch(flat_keys, keys[feature + 1].size, feature + 1)
                _fetch(flat_lines, lines[feature + 1].size, feature + 1)
            levels = found[:, feature - first]
            _interpolate(columns[feature], used[feature], ends[feature], keys[feature], lines[feature], levels)
        for row in range(len(rows)):
            own = found[row, :width]
            target = rows[row, start + first : start + first + width]
            for place in range(width):
                target[place] = rounded(own[place], target[place])
            if powers:
                target = rows[row, start + count + first : start + count + first + width]
                for place in range(width):
                    target[place] = rounded(own[place] * own[place], target[place])
                target = rows[row, start + 2 * count + first : start + 2 * count + first + width]
                for place in range(width):
                    target[place] = rounded(np.sqrt(own[place]), target[place])


@njit(nogil=True, cache=True)
@no_type_check
def _fetch(flat: Any, size: Any, place: Any) -> None:  # pragma: no cover  # compiled
    """Asks for the memory of one of many tables of a size."""
    for begin in range(place * size, (place + 1) * size, 64 // flat.itemsize):
        fetch_ahead(flat, begin)


@njit(nogil=True, cache=True)
@no_type_check
def _interpolate(
    column: Any, last: Any, ends: Any, keys: Any, lines: Any, levels: Any
) -> None:  # pragma: no cover  # compiled
    """One column; without a known value it is 0."""
    if last == 0:
        levels[:] = 0.0
        return
    lowest, highest = lines[0, 0], lines[last, 0]
    for row in range(len(column)):
        value = column[row]
        first = _STEP * _num_reached(ends, 0, value)
        place = np.uint64(min(first + _num_reached(keys, first, value), last))  # unsigned: not asked if it is negative
        within = max(min(value, highest), lowest)
        level = np.float32(lines[place, 1] + (within - lines[place, 0]) * lines[place, 2])
        levels[row] = level if value == value else np.float32(0.0)
