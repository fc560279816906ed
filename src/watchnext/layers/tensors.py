"""NumPy arrays as tensors where the network is."""

import numpy as np
import torch
from torch import nn

from watchnext.shapes import Array, Bool, Tensor


def tensor_on(device: torch.device, array: Array) -> Tensor:
    """Gives the array as a tensor on `device`; on the CPU it shares the array's memory where that is contiguous."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def training_device() -> torch.device:
    """Gives the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_of(module: nn.Module) -> torch.device:
    """Gives the device of the module's parameters."""
    return next(module.parameters()).device


def kept_at_random(shape: torch.Size, dropout: float, generator: torch.Generator) -> Bool[Tensor, "..."]:
    """Says of each whether it is kept, drawn on the CPU: the same on every device."""
    return torch.rand(shape, generator=generator) >= dropout
