"""Reading and changing scattered rows of large tables: machine code for CPUs, plain PyTorch for accelerators.

A step that averages bags of 50 ids reads four hundred thousand rows of 512 bytes from all over a table. PyTorch
does that in passes over copies; here each row is read once and written once, and asked for before it is needed.
docs/results.md has what that is worth.
"""

from functools import cache
from typing import Any, no_type_check

import numpy as np
import torch
from numba import njit
from torch.nn import functional

from watchnext.native import as_array, even_parts, fetch_ahead, narrowed, num_parts, side_by_side, widened
from watchnext.shapes import Array, Float, Int, Tensor, UInt16

EPSILON = 1e-8
_NOISE_LENGTH = 8192
_ROWS_AHEAD = 3
_ROW_COST = 4  # reading and writing a row, in occurrences whose gradient is added


def bag_means(table: Float[Tensor, "rows dim"], bags: Int[Tensor, "batch history"]) -> Float[Tensor, "batch dim"]:
    """Gives the mean row of each bag in float32, row 0 left out; an empty bag gives the zero vector."""
    if table.device.type != "cpu":
        return functional.embedding_bag(bags, table, mode="mean", padding_idx=0).float()
    means = np.empty((len(bags), table.shape[1]), dtype=np.float32)
    side_by_side(_bag_means, even_parts(len(bags), bags.numel()), (as_array(table), bags.contiguous().numpy(), means))
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


@cache
def no_noise(dim: int) -> UInt16[Array, "_"]:
    """Gives what stands in its place where nothing is rounded: drawing it took a twentieth of small training steps."""
    return np.zeros(_NOISE_LENGTH + dim, dtype=np.uint16)


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
    cuts = np.linspace(cost[first], cost[-1], num_parts(len(used)) + 1)
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
    side_by_side(_adagrad, bounds, arguments)


_SCATTER = 2654435761  # Knuth's multiplicative hash: which stretch of the noise a row takes


@njit(nogil=True, cache=True)
@no_type_check  # the tests' type checker would wrap it in what Numba cannot compile
def _bag_means(table: Any, bags: Any, means: Any, first: int, last: int) -> None:  # pragma: no cover  # compiled
    length, dim = bags.shape[1], table.shape[1]
    flat = table.reshape(-1)
    rows = bags.reshape(-1)
    line = 64 // table.itemsize
    total = np.zeros(dim, np.float32)
    for bag in range(first, last):
        total[:] = 0.0
        count = 0
        for place in range(length):
            ahead = bag * length + place + 2 * _ROWS_AHEAD
            if ahead < len(rows):
                begin = rows[ahead] * dim
                for component in range(0, dim, line):
                    fetch_ahead(flat, begin + component)
            if bags[bag, place] > 0:
                count += 1
                row = table[bags[bag, place]]
                for component in range(dim):
                    total[component] += widened(row[component])
        share = np.float32(1.0) / np.float32(max(count, 1))
        for component in range(dim):
            means[bag, component] = total[component] * share


@njit(nogil=True, cache=True, fastmath={"reassoc", "nsz"})  # in any order, else one product would wait for another
@no_type_check
def _sum_of_squares(vector: Any) -> Any:  # pragma: no cover  # compiled
    total = np.float32(0.0)
    for component in range(len(vector)):
        total += vector[component] * vector[component]
    return total


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
                fetch_ahead(flat, begin + component)
            fetch_ahead(squared_gradient, rows[place + _ROWS_AHEAD])
        total[:] = 0.0
        for use in range(starts[place], starts[place + 1]):
            gradient = gradients[sources[use]]
            for component in range(dim):
                total[component] += widened(gradient[component])
        row = rows[place]
        squared_gradient[row] += _sum_of_squares(total) / np.float32(dim)
        rate = learning_rate / (np.sqrt(squared_gradient[row]) + np.float32(EPSILON))
        begin = ((row * _SCATTER) & 0x7FFFFFFF) % _NOISE_LENGTH
        vector = table[row]
        bits = noise[begin : begin + dim]
        for component in range(dim):
            changed = widened(vector[component]) - rate * total[component]
            vector[component] = narrowed(changed, bits[component], vector[component])
