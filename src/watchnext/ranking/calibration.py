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

    With f the isotonic mean of watch time given R, r the quantile of R, and c the scale that makes m right in the sum:

        p = (1 - r²)·f(R) + r²·c·m

    So the order is R's nearly everywhere, and at its top, where a step of f would lump long and very long watches
    together, the mean has its say. As made, p = m.
    """

    knots: Tensor
    seconds: Tensor
    quantiles: Tensor
    scale: Tensor
    has_curve: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("knots", torch.linspace(0.0, 1.0, _BINS))
        self.register_buffer("seconds", torch.zeros(_BINS))
        self.register_buffer("quantiles", torch.linspace(0.0, 1.0, _LEVELS))
        self.register_buffer("scale", torch.tensor(1.0))
        self.register_buffer("has_curve", torch.tensor(False))

    def fit(self, order: Float[Array, "rows"], mean: Float[Array, "rows"], watch_seconds: Float[Array, "rows"]) -> None:
        """Fits everything to what was watched; few impressions give the scale alone, none nothing."""
        if mean.sum() <= 0.0:
            return
        self.scale.fill_(float(watch_seconds.sum() / mean.sum()))
        bins = min(_BINS, len(order) // _ROWS_OF_A_BIN)
        self.has_curve.fill_(bins >= _FEWEST_BINS)
        if not self.has_curve:
            return
        parts = np.array_split(np.argsort(order, kind="stable"), bins)
        centres = np.array([order[part].mean() for part in parts])
        means = np.array([watch_seconds[part].mean() for part in parts])
        rising = isotonic_regression(means, weights=[len(part) for part in parts]).x
        # Bins that are missing repeat the last one.
        padded = np.minimum(np.arange(_BINS), bins - 1)
        self.knots.copy_(torch.from_numpy(centres[padded]))
        self.seconds.copy_(torch.from_numpy(rising[padded]))
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
        curve, share = interpolated(order, self.knots, self.seconds), level.square()
        # A slight slope keeps the order where the curve is flat.
        return (1.0 - share) * curve + share * scaled + _SLOPE_SECONDS * level
