"""NumPy arrays as tensors where the network is."""

from itertools import chain

import numpy as np
import torch
from torch import nn

from watchnext.shapes import Array, Bool, Float, Tensor


def tensor_on(device: torch.device, array: Array) -> Tensor:
    """Gives the array as a tensor on `device`; on the CPU it shares the array's memory where that is contiguous."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def training_device() -> torch.device:
    """Gives the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_of(module: nn.Module) -> torch.device:
    """Gives the device of the module's tables, or else of its parameters, which all lie together."""
    return next(chain(module.buffers(), module.parameters())).device  # tables, which come first, are buffers


def kept_at_random(shape: torch.Size, dropout: float, generator: torch.Generator) -> Bool[Tensor, "..."]:
    """Says of each whether it is kept, drawn on the CPU: the same on every device."""
    return torch.rand(shape, generator=generator) >= dropout


def interpolated(
    values: Float[Tensor, "rows"], knots: Float[Tensor, "quantiles"], levels: Float[Tensor, "quantiles"]
) -> Float[Tensor, "rows"]:
    """Gives the level at each value, linear between rising knots and flat outside; the `numpy.interp` of tensors.

    >>> interpolated(torch.tensor([0.0, 1.5, 9.0]), torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0])).tolist()
    [10.0, 15.0, 20.0]
    """
    above = torch.searchsorted(knots, values.contiguous(), right=True).clamp(1, len(knots) - 1)
    low, high = knots[above - 1], knots[above]
    share = ((values - low) / (high - low).clamp(min=torch.finfo(knots.dtype).tiny)).clamp(0.0, 1.0)
    return torch.lerp(levels[above - 1], levels[above], share)
