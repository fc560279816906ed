"""What our compiled loops share: threads, the memory of tensors, short numbers, and asking for memory ahead.

Numba compiles a loop at its first call and keeps it on disk. A bfloat16 is a 16-bit integer in there, the upper half of
a float32.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any, no_type_check

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

from watchnext.shapes import Array, Num, Tensor

_WORTH_A_THREAD = 4096
_PARTS_OF_A_THREAD = 8
_TABLE_SLACK = 4


def as_array(table: Num[Tensor, "rows dim"]) -> Array:
    """Gives a tensor's own memory as NumPy, bfloat16 as 16-bit integers."""
    if table.dtype == torch.bfloat16:
        bits: Array = table.view(torch.int16).numpy().view(np.uint16)
        return bits
    numbers: Array = table.numpy()
    return numbers


def num_parts(work: int) -> int:
    """One part where threads are not worth it, else some for each thread: none is to wait for a slow one."""
    threads = torch.get_num_threads()
    return threads * _PARTS_OF_A_THREAD if threads > 1 and work >= _WORTH_A_THREAD else 1


def even_parts(count: int, work: int) -> list[int]:
    """Gives bounds that cut `count` rows into parts of equal size, as many as `work` numbers are worth."""
    parts = min(num_parts(work), max(count, 1))
    if parts == 1:
        return [0, count]  # a request asks often
    return [count * part // parts for part in range(parts + 1)]


def side_by_side(kernel: Callable[..., None], bounds: list[int], arguments: tuple[Any, ...]) -> None:
    """Calls the kernel for each part, in threads: compiled loops let go of the interpreter."""
    parts = pairwise(bounds)
    helpers = min(torch.get_num_threads(), len(bounds) - 1) - 1
    jobs = [_threads(os.getpid()).submit(_work, kernel, parts, arguments) for _ in range(helpers)]
    _work(kernel, parts, arguments)
    for job in jobs:
        job.result()


def _work(kernel: Callable[..., None], parts: Iterator[tuple[int, int]], arguments: tuple[Any, ...]) -> None:
    """No closure: the tests' type checker would wrap it anew at each call."""
    for first, last in parts:  # whoever is free takes the next part
        kernel(*arguments, first, last)


@cache
def _threads(process: int) -> ThreadPoolExecutor:
    """The helpers of this process; a forked one has none of its parent's."""
    return ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1), f"rows-{process}")


@intrinsic
def fetch_ahead(context: Any, table: Any, place: Any) -> Any:
    """Asks for the memory at a flat place of an array, without waiting for it."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = target.make_array(signature.args[0])(target, builder, arguments[0])
        byte = ir.IntType(8).as_pointer()
        number = ir.IntType(32)
        address = builder.bitcast(builder.gep(array.data, [arguments[1]]), byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        builder.call(prefetch, [address, *(ir.Constant(number, flag) for flag in (0, 3, 1))])
        return target.get_dummy_value()

    return types.void(table, types.intp), generate


def widened(value: Any) -> Any:
    """A float32 from what a table holds."""


@overload(widened, strict=False)
def _widened_by_type(value: Any) -> Any:
    if isinstance(value, types.Integer):
        return lambda value: np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)
    return lambda value: value


def narrowed(value: Any, noise: Any, old: Any) -> Any:
    """What a table holds from a float32; `old` says of which type that is."""


@overload(narrowed, strict=False)
def _narrowed_by_type(value: Any, noise: Any, old: Any) -> Any:
    if old == types.uint8:
        return lambda value, noise, old: np.uint8(np.int32(np.float32(value) * np.float32(127.0) + np.float32(0.5)))
    if isinstance(old, types.Integer):
        return lambda value, noise, old: np.uint16(
            (np.float32(value).view(np.uint32) + np.uint32(noise)) >> np.uint32(16)
        )
    return lambda value, noise, old: value


@njit(nogil=True, cache=True)
@no_type_check  # the tests' type checker would wrap it in what Numba cannot compile
def rounded(value: Any, old: Any) -> Any:  # pragma: no cover  # compiled
    """The nearest number to a float32 of the type that `old` has; of two, the one whose last bit is 0.

    A byte counts steps of 1/127, from 0 to 1.
    """
    last_bit = (np.float32(value).view(np.uint32) >> np.uint32(16)) & np.uint32(1)
    return narrowed(value, np.uint32(0x7FFF) + last_bit, old)


@njit(nogil=True, cache=True)
@no_type_check
def table_size(count: int) -> int:  # pragma: no cover  # compiled
    """The length of a hash table that has room enough for so many keys: a power of two."""
    size = 4
    while size < _TABLE_SLACK * count:
        size *= 2
    return size


@njit(nogil=True, cache=True, inline="always")
@no_type_check
def place_in(table: Any, key: Any) -> int:  # pragma: no cover  # compiled
    """Where a hash table of keys above 0 holds the key, or has room for it."""
    place = key & (len(table) - 1)
    while table[place] != 0 and table[place] != key:
        place = (place + 1) & (len(table) - 1)
    return place
