"""From a good order and a good mean to one honest number of seconds, fitted after training."""

import numpy as np
import torch
from scipy.optimize import isotonic_regression
from torch import nn

from watchnext.layers.tensors import interpolated
from watchnext.shapes import Array, Float, Tensor

_BINS, _FEWEST_BINS, _ROWS_OF_A_BIN = 60, 5, 200
_LEVELS = 257
_SLOPE_SECONDS = 1e-3


class Calibration(nn.Module):
    """Gives expected watch seconds from an order R and a mean m, two predictions of one impression.

    With r the quantile of R, f the isotonic mean of watch time given r, and c the scale that makes m right in the sum:

        p = (1 - r²)·f(r) + r²·c·m

    So the order is R's nearly everywhere, and at its top, where a step of f would lump long and very long watches
    together, the mean has its say. As made, p = m.
    """

    levels: Tensor
    seconds: Tensor
    quantiles: Tensor
    scale: Tensor
    has_curve: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("levels", torch.linspace(0.0, 1.0, _BINS))
        self.register_buffer("seconds", torch.zeros(_BINS))
        self.register_buffer("quantiles", torch.linspace(0.0, 1.0, _LEVELS))
        self.register_buffer("scale", torch.tensor(1.0))
        self.register_buffer("has_curve", torch.tensor(False))

    def fit(self, order: Float[Array, "rows"], mean: Float[Array, "rows"], watch_seconds: Float[Array, "rows"]) -> None:
        """Fits everything to what was watched; few impressions give the scale alone, none nothing."""
        bins = min(_BINS, len(order) // _ROWS_OF_A_BIN)
        self.has_curve.fill_(bins >= _FEWEST_BINS)
        if self.has_curve:
            parts = np.array_split(np.argsort(order, kind="stable"), bins)
            means = np.array([watch_seconds[part].mean() for part in parts])
            rising = isotonic_regression(means, weights=[len(part) for part in parts]).x
            # Bins that are missing repeat the last one.
            places = np.minimum(np.arange(_BINS), bins - 1)
            self.levels.copy_(torch.from_numpy((places + 0.5) / bins))
            self.seconds.copy_(torch.from_numpy(rising[places]))
        self.adopt(order, mean, watch_seconds)

    def adopt(
        self, order: Float[Array, "rows"], mean: Float[Array, "rows"], watch_seconds: Float[Array, "rows"]
    ) -> None:
        """Takes quantiles and scale from another network's predictions, and keeps the shape of the curve.

        Networks that learnt alike have the same order and much the same spread, but each its own level.
        """
        if mean.sum() <= 0.0:
            return
        self.scale.fill_(float(watch_seconds.sum() / mean.sum()))
        if self.has_curve:
            self.quantiles.copy_(torch.from_numpy(np.quantile(order, np.linspace(0.0, 1.0, _LEVELS))))
            fitted = self(*(torch.from_numpy(part.astype(np.float32)) for part in (order, mean)))
            factor = float(watch_seconds.sum() / fitted.sum().item())
            self.scale.mul_(factor)
            self.seconds.mul_(factor)

    def forward(self, order: Float[Tensor, "rows"], mean: Float[Tensor, "rows"]) -> Float[Tensor, "rows"]:
        """Gives expected watch seconds."""
        scaled = self.scale * mean
        if not self.has_curve:
            return scaled
        level = interpolated(order, self.quantiles, torch.linspace(0.0, 1.0, _LEVELS, device=order.device))
        curve, share = interpolated(level, self.levels, self.seconds), level.square()
        # A slight slope keeps the order where the curve is flat.
        return (1.0 - share) * curve + share * scaled + _SLOPE_SECONDS * level
