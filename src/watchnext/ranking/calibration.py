"""From a good order and a good mean to one honest number of seconds, fitted after training."""

import numpy as np
import torch
from torch import nn

from watchnext.layers.tensors import interpolated
from watchnext.shapes import Array, Float, Tensor

_BINS, _FEWEST_BINS, _ROWS_OF_A_BIN = 60, 5, 200
_LEVELS = 257
_SLOPE_SECONDS = 1e-3
_CUTS = (0.2, 0.4, 0.6, 0.8, 0.9)
_LEAST_RISE = 0.01
_LARGEST_CORRECTION = 4.0


class Calibration(nn.Module):
    """Gives expected watch seconds from an order R and a mean m, two predictions of one impression.

    With r the quantile of R, f the isotonic mean of watch time given r, and c the scale that makes m right in the sum:

        s = (1 - r²)·f(r) + r²·c·m        p = s·g(s)

    So the order is R's nearly everywhere, and at its top, where a step of f would lump long and very long watches
    together, the mean has its say. A mixture of two right means is not right where they differ: g, the ratio of what
    was watched to s in the lower four fifths and the upper two tenths of the impressions, straight in logarithms
    between them, mends that. As made, p = m.
    """

    levels: Tensor
    seconds: Tensor
    quantiles: Tensor
    scale: Tensor
    has_curve: Tensor
    log_mixed: Tensor
    log_ratio: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("levels", torch.linspace(0.0, 1.0, _BINS))
        self.register_buffer("seconds", torch.zeros(_BINS))
        self.register_buffer("quantiles", torch.linspace(0.0, 1.0, _LEVELS))
        self.register_buffer("scale", torch.tensor(1.0))
        self.register_buffer("has_curve", torch.tensor(False))
        self.register_buffer("log_mixed", torch.arange(len(_CUTS) + 1.0))
        self.register_buffer("log_ratio", torch.zeros(len(_CUTS) + 1))

    def fit(self, order: Float[Array, "rows"], mean: Float[Array, "rows"], watch_seconds: Float[Array, "rows"]) -> None:
        """Fits everything to what was watched; few impressions give the scale alone, none nothing."""
        from scipy.optimize import isotonic_regression  # here: half a second to load, and who serves fits nothing

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
        self.log_ratio.zero_()
        self.adopt(order, mean, watch_seconds)
        if self.has_curve:
            self._mend(self._of(order, mean), watch_seconds)
            self._make_sum_right(order, mean, watch_seconds)

    def _mend(self, mixed: Float[Array, "rows"], watch_seconds: Float[Array, "rows"]) -> None:
        """Fits g, as far as it keeps the order; not where a part watched nothing, or where parts hardly differ."""
        parts = np.split(np.argsort(mixed, kind="stable"), [int(cut * len(mixed)) for cut in _CUTS])
        knots = np.array([mixed[part].mean() for part in parts])
        watched = np.array([watch_seconds[part].mean() for part in parts])
        if (knots[1:] <= knots[:-1] * (1.0 + _LEAST_RISE)).any() or (watched <= 0.0).any():
            return
        ratio = np.clip(watched / knots, 1.0 / _LARGEST_CORRECTION, _LARGEST_CORRECTION)
        rising = np.maximum.accumulate(np.log(knots * ratio))
        self.log_mixed.copy_(torch.from_numpy(np.log(knots)))
        self.log_ratio.copy_(torch.from_numpy(rising - np.log(knots)))

    def _of(self, order: Float[Array, "rows"], mean: Float[Array, "rows"]) -> Float[Array, "rows"]:
        found: Array = self(*(torch.from_numpy(part.astype(np.float32)) for part in (order, mean))).numpy()
        return found.astype(np.float64)

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
            self._make_sum_right(order, mean, watch_seconds)

    def _make_sum_right(
        self, order: Float[Array, "rows"], mean: Float[Array, "rows"], watch_seconds: Float[Array, "rows"]
    ) -> None:
        factor = float(watch_seconds.sum() / self._of(order, mean).sum())
        self.scale.mul_(factor)
        self.seconds.mul_(factor)
        self.log_mixed.add_(np.log(factor))

    def forward(self, order: Float[Tensor, "rows"], mean: Float[Tensor, "rows"]) -> Float[Tensor, "rows"]:
        """Gives expected watch seconds."""
        scaled = self.scale * mean
        if not self.has_curve:
            return scaled
        level = interpolated(order, self.quantiles, torch.linspace(0.0, 1.0, _LEVELS, device=order.device))
        curve, share = interpolated(level, self.levels, self.seconds), level.square()
        # A slight slope keeps the order where the curve is flat.
        mixed = (1.0 - share) * curve + share * scaled + _SLOPE_SECONDS * level
        logarithms = mixed.clamp(min=torch.finfo(mixed.dtype).tiny).log()
        return mixed * interpolated(logarithms, self.log_mixed, self.log_ratio).exp()
