"""Upper bounds of dot products from numbers of 16 bits: several times as fast as the products themselves.

Let q' and v' be q and v rounded to bfloat16. Then q·v = q'·v' + q·(v - v') + (q - q')·v', and by Cauchy and Schwarz

    q·v  ≤  q'·v' + |q| |v - v'| + |q - q'| |v'|.

The last two terms are two more components of the same product: one matrix product gives the bound. Whatever is not
among those with the highest bounds can then be proven not to be among the best.
"""

import numpy as np
import torch

from watchnext.shapes import Array, Float, Tensor

_UNIT = 2.0**-8  # half the distance of neighbouring bfloat16, relative
_SUM = 1e-4  # what adding up in float32 may cost, relative to the lengths


def rounded_products_are_fast() -> bool:
    """Says whether this processor multiplies bfloat16 faster than float32."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class UpperBounds:
    """Bounds of the dot products of some queries with any vectors."""

    def __init__(self, queries: Float[Tensor, "batch dim"]) -> None:
        rounded, missed = _rounded(queries)
        length = queries.norm(dim=1)
        self._queries = torch.cat([rounded, _up(length)[:, None], _up(missed + _SUM * length)[:, None]], dim=1)

    def __call__(self, vectors: Float[Tensor, "block dim"]) -> Float[Tensor, "batch block"]:
        """Gives the bounds, themselves rounded to bfloat16."""
        rounded, missed = _rounded(vectors)
        more = torch.stack([_up(missed), _up(rounded.float().norm(dim=1))], dim=1)
        return self._queries @ torch.cat([rounded, more], dim=1).T

    @staticmethod
    def at_most(bounds: Float[Array, "..."]) -> Float[Array, "..."]:
        """Gives what no product is above whose bound is one of these."""
        most: Array = bounds * (1 + 2 * _UNIT * np.sign(bounds))
        return most


def _rounded(vectors: Float[Tensor, "rows dim"]) -> tuple[Tensor, Float[Tensor, "rows"]]:
    """Rounds, and tells how far each vector moved."""
    rounded = vectors.to(torch.bfloat16)
    return rounded, (vectors - rounded.float()).norm(dim=1)


def _up(lengths: Float[Tensor, "rows"]) -> Tensor:
    """Rounds up."""
    return (lengths * (1 + 2 * _UNIT)).to(torch.bfloat16)
