"""Exponentials of a block of logits, and the sum of each row, in one pass."""

import math
from typing import Any, no_type_check

import numpy as np
import torch
from numba import njit

from watchnext.native import as_array, even_parts, side_by_side, widened
from watchnext.shapes import Float, Tensor

_LOG2_E = math.log2(math.e)
_SMALLEST_EXPONENT, _INFINITY = -126.0, 128.0  # powers of two of normal float32 numbers, and the first above
# 2 ** x for x in [-1/2, 1/2], within 6e-5: a bfloat16 holds 4e-3.
_P1, _P2, _P3, _P4 = 0.69315, 0.24022, 0.05550, 0.00962


def exponentiate(logits: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch"]:
    """Replaces the logits by their exponentials, and gives the float32 sum of each row of these.

    In bfloat16 on a CPU what is below the smallest normal float32 becomes zero.
    """
    if logits.dtype != torch.bfloat16 or logits.device.type != "cpu":
        return logits.exp_().sum(dim=1, dtype=torch.float32)
    sums = np.empty(len(logits), dtype=np.float32)
    side_by_side(_exponentiate_rows, even_parts(len(logits), logits.numel()), (as_array(logits), sums))
    return torch.from_numpy(sums)


@njit(nogil=True, cache=True)
@no_type_check  # the tests' type checker would wrap it in what Numba cannot compile
def _exponentiate_rows(logits: Any, sums: Any, first: int, last: int) -> None:  # pragma: no cover  # compiled
    for row in range(first, last):
        sums[row] = _exponentiate(logits[row])


@njit(nogil=True, cache=True, fastmath={"reassoc", "nsz", "contract"})  # sums in any order; NaN and inf stay
@no_type_check
def _exponentiate(row: Any) -> Any:  # pragma: no cover  # compiled
    total = np.float32(0.0)
    for place in range(len(row)):
        power = widened(row[place]) * np.float32(_LOG2_E)
        whole = np.rint(min(max(power, np.float32(_SMALLEST_EXPONENT)), np.float32(_INFINITY)))
        rest = power - whole
        series = np.float32(1.0) + rest * (
            np.float32(_P1) + rest * (np.float32(_P2) + rest * (np.float32(_P3) + rest * np.float32(_P4)))
        )
        scale = np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)
        bits = np.float32(series * scale).view(np.uint32) * np.uint32(not power < np.float32(_SMALLEST_EXPONENT))
        half = np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))
        row[place] = half
        total += widened(half)
    return total
