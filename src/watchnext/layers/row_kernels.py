"""Reading and changing scattered rows of large tables: machine code for CPUs, plain PyTorch for accelerators.

A step that averages bags of 50 ids reads four hundred thousand rows of 512 bytes from all over a table. PyTorch
does that in passes over copies; here each row is read once and written once, and asked for before it is needed.
docs/results.md has what that is worth. Numba compiles the loops at the first call and keeps them on disk.

Rows in bfloat16 are unsigned 16-bit integers in here: the upper half of a float32.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any, no_type_check

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload
from torch.nn import functional

from watchnext.shapes import Array, Float, Int, Tensor, UInt16

EPSILON = 1e-8
_NOISE_LENGTH = 8192
_ROWS_AHEAD = 3
_WORTH_A_THREAD = 4096
_PARTS_OF_A_THREAD = 8
_ROW_COST = 4  # reading and writing a row, in occurrences whose gradient is added


def bag_means(table: Float[Tensor, "rows dim"], bags: Int[Tensor, "batch history"]) -> Float[Tensor, "batch dim"]:
    """Gives the mean row of each bag in float32, row 0 left out; an empty bag gives the zero vector."""
    if table.device.type != "cpu":
        return functional.embedding_bag(bags, table, mode="mean", padding_idx=0).float()
    means = np.empty((len(bags), table.shape[1]), dtype=np.float32)
    bounds = [int(bound) for bound in np.linspace(0, len(bags), _num_parts(bags.numel()) + 1)]
    _side_by_side(_bag_means, bounds, (as_array(table), bags.contiguous().numpy(), means))
    return torch.from_numpy(means)


def adagrad_on_rows(
    table: Float[Tensor, "rows dim"],
    squared_gradient: Float[Tensor, "rows"],
    occurrences: Int[Tensor, "batch"],
    sources: Int[Tensor, "batch"],
    gradients: Float[Tensor, "samples dim"],
    learning_rate: float,
    noise: UInt16[Array, "_"],
) -> None:
    """Sums the gradients of each distinct row and makes one step of row-wise Adagrad there, in place.

    `gradients` are float32 or bfloat16. `occurrences[i]` is a row that was used and `gradients[sources[i]]` the
    gradient which that use contributes. Row 0 stays as it is. `noise` (from `rounding_noise`) decides how bfloat16
    rows are rounded: up with the probability that keeps the mean right. Nothing depends on the number of threads.
    """
    ordered, order = torch.sort(occurrences.int(), stable=True)  # half the bytes, half the time
    sources = sources[order]
    if table.device.type == "cpu":
        _adagrad_on_cpu(table, squared_gradient, ordered, sources, gradients, learning_rate, noise)
    else:
        adagrad_in_torch(table, squared_gradient, ordered, sources, gradients, learning_rate, noise)


def rounding_noise(seed: int, step: int, dim: int) -> UInt16[Array, "_"]:
    """Gives the random 16 bits that a step's roundings take a stretch of `dim` from, each row another stretch."""
    return np.random.default_rng([seed, step]).integers(0, 2**16, _NOISE_LENGTH + dim, dtype=np.uint16)


def as_array(table: Float[Tensor, "rows dim"]) -> Array:
    """Gives a tensor's own memory as NumPy, bfloat16 as 16-bit integers."""
    if table.dtype == torch.bfloat16:
        bits: Array = table.view(torch.int16).numpy().view(np.uint16)
        return bits
    floats: Array = table.numpy()
    return floats


def adagrad_in_torch(
    table: Float[Tensor, "rows dim"],
    squared_gradient: Float[Tensor, "rows"],
    ordered: Int[Tensor, "batch"],
    sources: Int[Tensor, "batch"],
    gradients: Float[Tensor, "samples dim"],
    learning_rate: float,
    noise: UInt16[Array, "_"],
) -> None:
    """`adagrad_on_rows` from sorted occurrences, for any device, without waiting for it.

    There are as many places for sums as occurrences, since counting the distinct rows would stop the host; the
    places left over belong to row 0 and hold zeros.
    """
    count, ordered = len(ordered), ordered.long()
    begins = functional.pad(ordered[1:] != ordered[:-1], (1, 0), value=True)
    place = begins.cumsum(0) - 1
    starts = torch.full_like(ordered, count)
    starts.scatter_reduce_(0, place, torch.arange(count, device=ordered.device), "amin")
    rows = torch.zeros_like(ordered).scatter_(0, place, ordered)
    gradient = functional.embedding_bag(sources, gradients.float(), starts, mode="sum")
    gradient = gradient * (rows > 0)[:, None]
    squared_gradient.index_add_(0, rows, gradient.square().mean(dim=1))
    rate = learning_rate / (squared_gradient[rows].sqrt() + EPSILON)
    changed = table[rows].float() - rate[:, None] * gradient
    if table.dtype == torch.bfloat16:
        changed = _rounded_at_random(changed, rows, noise)
    # The places left over all write row 0 back as it was.
    table[rows] = changed.to(table.dtype)


def _rounded_at_random(
    values: Float[Tensor, "batch dim"], rows: Int[Tensor, "batch"], noise: UInt16[Array, "_"]
) -> Float[Tensor, "batch dim"]:
    """Float32 values whose lower half is cut off after noise was added to it."""
    dim = values.shape[1]
    begins = ((rows * _SCATTER) & 0x7FFFFFFF) % _NOISE_LENGTH
    bits = torch.from_numpy(noise.astype(np.int32)).to(values.device)
    picked = bits[begins[:, None] + torch.arange(dim, device=values.device)]
    rounded = (values.view(torch.int32) + picked) & -65536
    return torch.where((rows > 0)[:, None], rounded.view(torch.float32), 0.0)


def _adagrad_on_cpu(
    table: Float[Tensor, "rows dim"],
    squared_gradient: Float[Tensor, "rows"],
    ordered: Int[Tensor, "batch"],
    sources: Int[Tensor, "batch"],
    gradients: Float[Tensor, "samples dim"],
    learning_rate: float,
    noise: UInt16[Array, "_"],
) -> None:
    used = ordered.numpy()
    starts = np.flatnonzero(np.concatenate([[True], used[1:] != used[:-1]])) if len(used) else np.zeros(0, np.int64)
    rows = used[starts].astype(np.int64)
    starts = np.append(starts, len(used))
    first = int(len(rows) > 0 and rows[0] == 0)
    # Parts that cost the same: a popular row has thousands of occurrences, a rare one must be fetched for a single.
    cost = starts + _ROW_COST * np.arange(len(starts))
    cuts = np.linspace(cost[first], cost[-1], _num_parts(len(used)) + 1)
    bounds = [int(bound) for bound in np.searchsorted(cost, cuts)]
    arguments = (
        as_array(table),
        squared_gradient.numpy(),
        rows,
        starts,
        sources.numpy(),
        as_array(gradients.contiguous()),
        np.float32(learning_rate),
        noise,
    )
    _side_by_side(_adagrad, bounds, arguments)


def _num_parts(work: int) -> int:
    """One part where threads are not worth it, else some for each thread: none is to wait for a slow one."""
    threads = torch.get_num_threads()
    return threads * _PARTS_OF_A_THREAD if threads > 1 and work >= _WORTH_A_THREAD else 1


def _side_by_side(kernel: Callable[..., None], bounds: list[int], arguments: tuple[Any, ...]) -> None:
    """Calls the kernel for each part, in threads: compiled loops let go of the interpreter."""
    parts = pairwise(bounds)

    def work() -> None:
        for first, last in parts:  # whoever is free takes the next part
            kernel(*arguments, first, last)

    helpers = min(torch.get_num_threads(), len(bounds) - 1) - 1
    jobs = [_threads(os.getpid()).submit(work) for _ in range(helpers)]
    work()
    for job in jobs:
        job.result()


@cache
def _threads(process: int) -> ThreadPoolExecutor:
    """The helpers of this process; a forked one has none of its parent's."""
    return ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1), f"rows-{process}")


_SCATTER = 2654435761  # Knuth's multiplicative hash: which stretch of the noise a row takes


@intrinsic
def _fetch_ahead(context: Any, table: Any, place: Any) -> Any:
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


def _widened(value: Any) -> Any:
    """A float32 from what a table holds."""


@overload(_widened, strict=False)
def _widened_by_type(value: Any) -> Any:
    if isinstance(value, types.Integer):
        return lambda value: np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)
    return lambda value: value


def _narrowed(value: Any, noise: Any, old: Any) -> Any:
    """What a table holds from a float32; `old` says of which type that is."""


@overload(_narrowed, strict=False)
def _narrowed_by_type(value: Any, noise: Any, old: Any) -> Any:
    if isinstance(old, types.Integer):
        return lambda value, noise, old: np.uint16(
            (np.float32(value).view(np.uint32) + np.uint32(noise)) >> np.uint32(16)
        )
    return lambda value, noise, old: value


@njit(nogil=True, cache=True)
@no_type_check  # the tests' type checker would wrap it in what Numba cannot compile
def _bag_means(table: Any, bags: Any, means: Any, first: int, last: int) -> None:  # pragma: no cover  # compiled
    length, dim = bags.shape[1], table.shape[1]
    flat = table.reshape(-1)
    line = 64 // table.itemsize
    total = np.zeros(dim, np.float32)
    for bag in range(first, last):
        total[:] = 0.0
        count = 0
        for place in range(length):
            if place + 2 * _ROWS_AHEAD < length:
                begin = bags[bag, place + 2 * _ROWS_AHEAD] * dim
                for component in range(0, dim, line):
                    _fetch_ahead(flat, begin + component)
            if bags[bag, place] > 0:
                count += 1
                row = table[bags[bag, place]]
                for component in range(dim):
                    total[component] += _widened(row[component])
        share = np.float32(1.0) / np.float32(max(count, 1))
        for component in range(dim):
            means[bag, component] = total[component] * share


@njit(nogil=True, cache=True)
@no_type_check  # the tests' type checker would wrap it in what Numba cannot compile
def _adagrad(
    table: Any,
    squared_gradient: Any,
    rows: Any,
    starts: Any,
    sources: Any,
    gradients: Any,
    learning_rate: Any,
    noise: Any,
    first: int,
    last: int,
) -> None:  # pragma: no cover  # compiled
    dim = table.shape[1]
    flat = table.reshape(-1)
    line = 64 // table.itemsize
    total = np.zeros(dim, np.float32)
    for place in range(first, last):
        if place + _ROWS_AHEAD < last:
            begin = rows[place + _ROWS_AHEAD] * dim
            for component in range(0, dim, line):
                _fetch_ahead(flat, begin + component)
            _fetch_ahead(squared_gradient, rows[place + _ROWS_AHEAD])
        total[:] = 0.0
        for use in range(starts[place], starts[place + 1]):
            gradient = gradients[sources[use]]
            for component in range(dim):
                total[component] += _widened(gradient[component])
        # Sixteen sums at once: a single one would have to be taken in order.
        lanes = np.zeros(16, np.float32)
        whole = dim - dim % 16
        for component in range(0, whole, 16):
            for lane in range(16):
                lanes[lane] += total[component + lane] * total[component + lane]
        square = lanes.sum()
        for component in range(whole, dim):
            square += total[component] * total[component]
        row = rows[place]
        squared_gradient[row] += square / np.float32(dim)
        rate = learning_rate / (np.sqrt(squared_gradient[row]) + np.float32(EPSILON))
        begin = ((row * _SCATTER) & 0x7FFFFFFF) % _NOISE_LENGTH
        vector = table[row]
        bits = noise[begin : begin + dim]
        for component in range(dim):
            changed = _widened(vector[component]) - rate * total[component]
            vector[component] = _narrowed(changed, bits[component], vector[component])
