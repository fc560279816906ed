"""Byte products against integer arithmetic, by the processor's own instructions and by plain loops."""

import numpy as np
import pytest
from numba import njit

from watchnext.retrieval.index import lanes
from watchnext.retrieval.index.lanes import (
    LANES,
    LINE,
    ROWS_AT_ONCE,
    comparison,
    empty_bytes,
    has_byte_products,
    lowest_bit,
    scans,
    ways,
)

WAYS = pytest.mark.parametrize(
    "way",
    [
        pytest.param(way, marks=pytest.mark.skipif(way not in ways(), reason="not by this processor"))
        for way in ("vnni", "avx2", "plain")
    ],
)


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"avx2": True, "avx512f": True, "avx512vnni": True}, ["vnni", "avx2", "plain"]),
        ({"avx2": True, "avx512f": True, "avx512vnni": False}, ["avx2", "plain"]),
        ({"sse2": True}, ["plain"]),
    ],
)
def test_the_fastest_way_that_a_processor_has_comes_first(monkeypatch, features, expected):
    monkeypatch.setattr(lanes.binding, "get_host_cpu_features", lambda: features)
    assert ways() == expected and has_byte_products() == (len(expected) > 1)


@WAYS
@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize("num_lines", [1, 2, 7, 32])
def test_sixteen_products_are_those_of_integers(way, halves, num_lines):
    scan = scans(way)[halves]

    @njit
    def called(codes, start, num_lines, query, offset, out, place):
        scan(codes, start, num_lines, query, offset, out, place)

    random = np.random.default_rng(num_lines)
    codes = empty_bytes(3 * num_lines * LINE)
    codes[:] = random.integers(0, 256, codes.size)
    query = random.integers(-128, 128, num_lines * (8 if halves else 4)).astype(np.int8)
    out = np.full(2 * LANES, 99, dtype=np.int32)
    called(codes, num_lines * LINE, num_lines, query, np.int32(1000), out, LANES)
    block = codes[num_lines * LINE : 2 * num_lines * LINE].reshape(num_lines, LANES, 4).astype(int)
    if halves:
        block = np.concatenate([block & 15, block >> 4], axis=2)
    expected = np.einsum("ilb,ib->l", block, query.reshape(num_lines, -1).astype(int)) - 1000
    assert out.tolist() == [99] * LANES + expected.tolist()


@WAYS
@pytest.mark.parametrize(("halves", "most"), [(False, 255), (True, 15)])
def test_extreme_bytes_do_not_saturate(way, halves, most):
    codes = empty_bytes(32 * LINE)
    codes[:] = 255
    num_codes = 32 * (8 if halves else 4)
    query, out = np.full(num_codes, -128, dtype=np.int8), np.zeros(LANES, dtype=np.int32)
    scan = scans(way)[halves]
    njit(lambda codes, query, out: scan(codes, 0, 32, query, np.int32(0), out, 0))(codes, query, out)
    assert out.tolist() == [num_codes * most * -128] * LANES


@pytest.mark.parametrize(("bits", "place"), [(1, 0), (12, 2), (1 << 15, 15), (1 << 63, 63)])
def test_the_lowest_bit(bits, place):
    assert njit(lambda bits: lowest_bit(bits))(np.uint64(bits)) == place


@pytest.mark.parametrize("size", [0, 1, 5_000_000])
def test_lines_begin_at_round_addresses(size):
    found = empty_bytes(size)
    assert len(found) == size and not found.any()
    assert found.ctypes.data % LINE == 0


@WAYS
def test_the_best_block_of_several_rows_is_kept_lane_by_lane(way):
    keep_best = comparison(way)

    @njit
    def called(codes, start, num_lines, rows, best, where, here):
        keep_best(codes, start, num_lines, rows, best, where, here)

    random, num_lines, blocks = np.random.default_rng(1), 5, 7
    codes = empty_bytes(blocks * num_lines * LINE)
    codes[:] = random.integers(0, 256, codes.size)
    rows = random.integers(-128, 128, ROWS_AT_ONCE * num_lines * 4).astype(np.int8)
    best, where = np.full(ROWS_AT_ONCE * LANES, -(2**31), np.int32), np.full(ROWS_AT_ONCE * LANES, 99, np.int32)
    for block in range(blocks):
        called(codes, block * num_lines * LINE, num_lines, rows, best, where, np.int32(block))
    lines = codes.reshape(blocks, num_lines, LANES, 4).astype(int)
    products = np.einsum("nilb,rib->rnl", lines, rows.reshape(ROWS_AT_ONCE, num_lines, 4).astype(int))
    assert best.reshape(ROWS_AT_ONCE, LANES).tolist() == products.max(axis=1).tolist()
    assert where.reshape(ROWS_AT_ONCE, LANES).tolist() == products.argmax(axis=1).tolist()
