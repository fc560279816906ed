"""Sixteen vectors at once: dot products of bytes, as processors with byte products compute them.

Vectors lie in blocks of sixteen. A line of 64 bytes has four neighbouring components of each of the sixteen, so that
one instruction multiplies a line with four components of a query and adds the products up in sixteen sums. Stored
bytes are unsigned, the query's signed. In half bytes, a line has eight components: the first four in the lower halves.

With AVX-512 VNNI that is one instruction, with AVX2 a few. Elsewhere the same numbers come from plain loops that Numba
vectorises as well as it can.
"""

from collections.abc import Callable
from functools import reduce
from typing import Any, no_type_check

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from watchnext.memory import large_pages
from watchnext.shapes import Array, UInt8

LANES = 16
LINE = 64
ROWS_AT_ONCE = 4
_INT, _FLOAT = ir.IntType(32), ir.FloatType()
_INTS, _FLOATS = ir.VectorType(_INT, LANES), ir.VectorType(_FLOAT, LANES)


def ways() -> list[str]:
    """Gives the ways in which this processor can multiply lines of bytes, the fastest first."""
    features: dict[str, bool] = binding.get_host_cpu_features()
    vnni = features.get("avx512vnni") and features.get("avx512f")
    return [*(["vnni"] if vnni else []), *(["avx2"] if features.get("avx2") else []), "plain"]


def has_byte_products() -> bool:
    """Says whether this processor multiplies bytes faster than plain loops do."""
    return ways()[0] != "plain"


def empty_bytes(size: int) -> UInt8[Array, "_"]:
    """Gives zeroed bytes on large pages, which begin where a line does."""
    found: Array = np.frombuffer(large_pages(max(size, 1)), dtype=np.uint8)[:size]
    return found


def _lines(context: Any, builder: Any, array: Any, kind: Any, start: Any) -> Any:
    """A pointer to whole vectors at a flat place of an array."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [start]), _INTS.as_pointer())


def _everywhere(builder: Any, value: Any, kind: Any) -> Any:
    """A vector of sixteen equal values."""
    one = builder.insert_element(ir.Constant(ir.VectorType(kind, LANES), ir.Undefined), value, ir.Constant(_INT, 0))
    return builder.shuffle_vector(one, one, ir.Constant(_INTS, [0] * LANES))


def _products(
    context: Any, builder: Any, lines: Any, num_lines: Any, queries: list[Any], halves: bool, way: str
) -> list[Any]:
    """Sixteen dot products with each query's words of four bytes: a loop over the lines."""
    zeros, low = ir.Constant(_INTS, [0] * LANES), ir.Constant(_INTS, [0x0F0F0F0F] * LANES)
    four = ir.Constant(_INTS, [4] * LANES)
    num_parts = 2 if halves else 1
    sums = [
        [cgutils.alloca_once_value(builder, zeros) for _ in range(num_parts)]  # type: ignore[no-untyped-call]
        for _ in queries
    ]
    with cgutils.for_range(builder, num_lines) as loop:
        line = builder.load(builder.gep(lines, [loop.index]), align=LINE)
        split = [builder.and_(line, low), builder.and_(builder.lshr(line, four), low)]
        first = builder.mul(loop.index, ir.Constant(loop.index.type, num_parts))
        for words, mine in zip(queries, sums, strict=True):
            for number, part in enumerate(split if halves else [line]):
                place = builder.add(first, ir.Constant(first.type, number))
                word = _everywhere(builder, builder.load(builder.gep(words, [place])), _INT)
                total = builder.load(mine[number])
                if way == "vnni":
                    total = _add_products(builder, total, part, word)
                elif halves:
                    total = builder.add(total, _small_products(builder, part, word))
                else:  # by halves: sums of two products of whole bytes would not fit into sixteen bits
                    lower, upper = (_small_products(builder, half, word) for half in split)
                    total = builder.add(total, builder.add(lower, builder.shl(upper, four)))
                builder.store(total, mine[number])
    return [reduce(builder.add, map(builder.load, mine)) for mine in sums]


def _add_products(builder: Any, total: Any, codes: Any, word: Any) -> Any:
    """Adds the dot products of four bytes, lane by lane."""
    kind = ir.FunctionType(_INTS, [_INTS, _INTS, _INTS])
    return builder.call(
        builder.module.declare_intrinsic("llvm.x86.avx512.vpdpbusd.512", (), kind), [total, codes, word]
    )


def _small_products(builder: Any, codes: Any, word: Any) -> Any:
    """The dot products of four bytes, lane by lane, where those of `codes` are below sixteen."""
    ints, shorts, chars = (ir.VectorType(ir.IntType(bits), 256 // bits) for bits in (32, 16, 8))
    pairs = builder.module.declare_intrinsic("llvm.x86.avx2.pmadd.ub.sw", (), ir.FunctionType(shorts, [chars, chars]))
    fours = builder.module.declare_intrinsic("llvm.x86.avx2.pmadd.wd", (), ir.FunctionType(ints, [shorts, shorts]))
    sums = []
    for first in (0, LANES // 2):
        places = ir.Constant(ir.VectorType(_INT, LANES // 2), [*range(first, first + LANES // 2)])
        factors = [builder.bitcast(builder.shuffle_vector(one, one, places), chars) for one in (codes, word)]
        sums.append(builder.call(fours, [builder.call(pairs, factors), ir.Constant(shorts, [1] * LANES)]))
    return builder.shuffle_vector(*sums, ir.Constant(_INTS, [*range(LANES)]))


def _scan_with(halves: bool, way: str) -> Any:
    @intrinsic
    def scan(typing: Any, codes: Any, start: Any, num_lines: Any, query: Any, offset: Any, out: Any, place: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kinds = signature.args
            lines = _lines(context, builder, arguments[0], kinds[0], arguments[1])
            data = context.make_array(kinds[3])(context, builder, arguments[3]).data
            words = builder.bitcast(data, _INT.as_pointer())
            (sums,) = _products(context, builder, lines, arguments[2], [words], halves, way)
            sums = builder.sub(sums, _everywhere(builder, arguments[4], _INT))
            builder.store(sums, _lines(context, builder, arguments[5], kinds[5], arguments[6]), align=4)
            return context.get_dummy_value()

        return types.void(codes, types.intp, types.intp, query, types.int32, out, types.intp), generate

    return scan


def _plain_scan_with(halves: bool) -> Any:
    @njit(nogil=True)
    @no_type_check
    def scan(codes, start, num_lines, query, offset, out, place):  # pragma: no cover  # compiled
        for lane in range(LANES):
            out[place + lane] = -offset
        for line in range(num_lines):
            for lane in range(LANES):
                for byte in range(4):
                    code = np.int32(codes[start + line * LINE + lane * 4 + byte])
                    if halves:
                        out[place + lane] += (code & 15) * np.int32(query[line * 8 + byte])
                        out[place + lane] += (code >> 4) * np.int32(query[line * 8 + 4 + byte])
                    else:
                        out[place + lane] += code * np.int32(query[line * 4 + byte])

    return scan


def scans(way: str) -> tuple[Callable[..., None], Callable[..., None]]:
    """Gives the scan of a block of bytes, and that of a block of half bytes, for use in compiled loops.

    `scan(codes, start, num_lines, query, offset, out, place)` puts the sixteen int32 dot products, less `offset`, of
    the block at `codes[start]` into `out[place:]`.
    """
    if way == "plain":
        return _plain_scan_with(False), _plain_scan_with(True)
    return _scan_with(False, way), _scan_with(True, way)


def _keep_best_with(way: str) -> Any:
    @intrinsic
    def keep_best(
        typing: Any, codes: Any, start: Any, num_lines: Any, rows: Any, best: Any, where: Any, here: Any
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kinds = signature.args
            lines = _lines(context, builder, arguments[0], kinds[0], arguments[1])
            data = context.make_array(kinds[3])(context, builder, arguments[3]).data
            words = builder.bitcast(data, _INT.as_pointer())
            starts = [builder.mul(arguments[2], ir.Constant(arguments[2].type, row)) for row in range(ROWS_AT_ONCE)]
            queries = [builder.gep(words, [start]) for start in starts]
            label = _everywhere(builder, arguments[6], _INT)
            for row, found in enumerate(_products(context, builder, lines, arguments[2], queries, False, way)):
                place = ir.Constant(arguments[1].type, row * LANES)
                at = [_lines(context, builder, arguments[number], kinds[number], place) for number in (4, 5)]
                old_best, old_where = (builder.load(pointer, align=4) for pointer in at)
                better = builder.icmp_signed(">", found, old_best)
                builder.store(builder.select(better, found, old_best), at[0], align=4)
                builder.store(builder.select(better, label, old_where), at[1], align=4)
            return context.get_dummy_value()

        return types.void(codes, types.intp, types.intp, rows, best, where, types.int32), generate

    return keep_best


@njit(nogil=True)
@no_type_check
def _plain_keep_best(codes, start, num_lines, rows, best, where, here):  # pragma: no cover  # compiled
    for row in range(ROWS_AT_ONCE):
        for lane in range(LANES):
            product = np.int32(0)
            for line in range(num_lines):
                for byte in range(4):
                    code = np.int32(codes[start + line * LINE + lane * 4 + byte])
                    product += code * np.int32(rows[(row * num_lines + line) * 4 + byte])
            if product > best[row * LANES + lane]:
                best[row * LANES + lane], where[row * LANES + lane] = product, here


def comparison(way: str) -> Callable[..., None]:
    """Gives what compares a block of bytes with several queries at once, for use in compiled loops.

    `keep_best(codes, start, num_lines, rows, best, where, here)` takes `ROWS_AT_ONCE` queries one behind the other.
    For each of them and each of the sixteen lanes, where the product with the block at `codes[start]` is above the one
    in `best`, it goes there, and the number `here` goes to `where`.
    """
    found: Callable[..., None] = _plain_keep_best if way == "plain" else _keep_best_with(way)
    return found


@intrinsic
def lowest_bit(typing: Any, bits: Any) -> Any:
    """The place of the lowest bit that is set."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate
