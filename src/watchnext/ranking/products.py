"""Layers for many rows at a time, in the precision that a processor multiplies fast."""

import platform
from typing import Any, no_type_check

import numpy as np
import torch
from numba import njit
from torch.nn.functional import linear, pad

from watchnext.shapes import Float, Tensor, UInt8

MOST_OF_A_BYTE = 127
"""Activations are bytes of seven bits: of two products of eight bits the sum would not fit into sixteen."""

_USUAL_ROWS = 512
_NUMBERS_OF_A_LINE = 32


def chosen_precision(asked: str) -> str:
    """Gives what to compute in: `asked`, or for 'auto' the fastest; float32 where the processor cannot."""
    able = {"bfloat16": has_bfloat16(), "int8": has_bytes()}
    wanted = [asked] if asked != "auto" else list(able)
    return next((name for name in wanted if able.get(name)), "float32")


def has_bfloat16() -> bool:
    """Says whether the processor multiplies bfloat16; PyTorch calls it supported also where that is imitated."""
    return _has_onednn() and torch.cpu._is_avx512_bf16_supported()


def has_bytes() -> bool:
    """Says whether oneDNN multiplies bytes here: on x86 of the last ten years, by a PyTorch that offers it."""
    offered = hasattr(torch.ops.onednn, "qlinear_pointwise") and hasattr(torch.ops.onednn, "qlinear_prepack")
    return _has_onednn() and offered and platform.machine() in ("x86_64", "AMD64") and torch.cpu._is_avx2_supported()


def _has_onednn() -> bool:
    is_there: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # left untyped
    return is_there


class FloatLayer:
    """A layer of floats: weights of one type, lying as the products of oneDNN want them."""

    def __init__(
        self, weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, "outputs"], dtype: torch.dtype, relu: bool
    ) -> None:
        self.dtype = dtype
        self.bias = bias.detach()
        self.relu = relu
        self.weight = weight.detach().to(dtype).contiguous()
        self.is_packed = _has_onednn()
        if self.is_packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, _USUAL_ROWS)

    def __call__(
        self, rows: Float[Tensor, "rows inputs"], bias: Float[Tensor, "outputs"] | None = None
    ) -> Float[Tensor, "rows outputs"]:
        """Gives the activations; `bias` takes the place of the layer's own."""
        bias = self.bias if bias is None else bias
        rows = rows.to(self.dtype)
        if self.is_packed:
            after = "relu" if self.relu else "none"
            product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.weight, bias, after, [], "")
            return product
        product = linear(rows, self.weight, bias)
        return product.relu_() if self.relu else product


class ByteProduct:
    """Products of bytes with weights that are bytes too, each output with a scale of its own; sums are exact."""

    def __init__(self, weight: Float[Tensor, "outputs inputs"]) -> None:
        weight = weight.detach().float()
        self._scale = (weight.abs().amax(dim=1) / MOST_OF_A_BYTE).clamp(min=torch.finfo(torch.float32).tiny)
        rounded = (weight / self._scale[:, None]).round().to(torch.int8)
        self._weight = torch.ops.onednn.qlinear_prepack(rounded, [_USUAL_ROWS, rounded.shape[1]])
        self._zero = torch.zeros(len(weight), dtype=torch.long)

    def __call__(self, rows: UInt8[Tensor, "rows inputs"], scale: float) -> Float[Tensor, "rows outputs"]:
        """Gives the products of `rows` · `scale`."""
        scales = (scale, 0, self._weight, self._scale, self._zero, None, 1.0, 0)
        product: Tensor = torch.ops.onednn.qlinear_pointwise(rows, *scales, torch.float32, "none", [], "")
        return product


class MixedLayer:
    """A first layer with ReLU of embeddings, which are floats, and of numbers in [0, 1], which are bytes."""

    def __init__(self, weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, "outputs"], embedded: int) -> None:
        self._embedded = FloatLayer(padded(weight[:, :embedded]), bias, torch.float32, relu=False)
        self._numbers = ByteProduct(padded(weight[:, embedded:]))

    def __call__(
        self,
        embedded: Float[Tensor, "rows inputs"],
        numbers: UInt8[Tensor, "rows values"],
        bias: Float[Tensor, "outputs"] | None = None,
    ) -> Float[Tensor, "rows outputs"]:
        """Gives the activations; `bias` takes the place of the layer's own."""
        return self._numbers(numbers, 1.0 / MOST_OF_A_BYTE).add_(self._embedded(embedded, bias)).relu_()


class ByteLayer:
    """A layer with ReLU whose rows are activations, none of them negative: each row has a scale of its own.

    A candidate's scale is its own largest activation, so that nothing depends on who else is in the list.
    """

    def __init__(self, weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, "outputs"]) -> None:
        self._product = ByteProduct(weight)
        self._bias = bias.detach().float().numpy()

    def __call__(self, rows: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows outputs"]:
        """Gives the activations."""
        narrow = torch.empty_like(rows, dtype=torch.uint8)
        scales = np.empty(len(rows), dtype=np.float32)
        _as_bytes(rows.numpy(), narrow.numpy(), scales)
        product = self._product(narrow, 1.0)
        _finish(product.numpy(), scales, self._bias)
        return product


def padded(weight: Float[Tensor, "outputs inputs"]) -> Float[Tensor, "outputs _"]:
    """Gives the weight of rows that zeros fill up to whole lines of memory, which makes products faster."""
    return pad(weight, (0, padding(weight.shape[1])))


def padding(num_inputs: int) -> int:
    """Gives how many zeros these are."""
    return -num_inputs % _NUMBERS_OF_A_LINE


@njit(nogil=True, cache=True, fastmath={"nnan", "nsz"})  # else the largest of a row is looked for one by one
@no_type_check  # the tests' type checker would wrap it in what Numba cannot compile
def _as_bytes(rows: Any, narrow: Any, scales: Any) -> None:  # pragma: no cover  # compiled
    """Writes each row in steps of its largest number / 127."""
    for row in range(len(rows)):
        own = rows[row]
        largest = np.float32(0.0)
        for place in range(len(own)):
            largest = max(largest, own[place])
        scales[row] = largest / np.float32(MOST_OF_A_BYTE)
        steps = np.float32(MOST_OF_A_BYTE) / max(largest, np.float32(1e-30))
        target = narrow[row]
        for place in range(len(own)):
            target[place] = np.uint8(np.int32(own[place] * steps + np.float32(0.5)))


@njit(nogil=True, cache=True, fastmath={"nnan", "nsz", "contract"})
@no_type_check
def _finish(product: Any, scales: Any, bias: Any) -> None:  # pragma: no cover  # compiled
    """Turns products of bytes into activations."""
    for row in range(len(product)):
        own, scale = product[row], scales[row]
        for place in range(len(own)):
            own[place] = max(own[place] * scale + bias[place], np.float32(0.0))
