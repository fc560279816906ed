"""Watch time as its quantile among videos of the same duration."""

import torch
from torch.nn.functional import mse_loss

from watchnext.config import RankingConfig
from watchnext.ranking.objectives import Objective, Outcomes
from watchnext.shapes import Float, Int, Tensor

_GROUPS = 20
_KNOTS = 257


class DurationQuantiles(Objective):
    """The quantile of the watch time within a group of impressions whose videos are about as long.

    Short and long videos are so learnt with the same labels, evenly spread over (0, 1). Groups are of equal size (as
    far as equal durations allow); impressions of unknown duration are one more. A group without training impressions
    has the distribution of all.

    A group's distribution is kept as some of its watch times and their levels: the share of shorter watches plus half
    that of equal ones. Both ways between seconds and levels are linear between these, and so each other's inverse.

    Source: Zhan et al., Deconfounding duration bias in watch-time prediction (D2Q), KDD 2022, section 4.
    """

    bounds: Tensor
    seconds: Tensor
    levels: Tensor

    def __init__(self, config: RankingConfig) -> None:
        super().__init__()
        self.register_buffer("bounds", torch.full((_GROUPS - 1,), torch.inf))
        self.register_buffer("seconds", torch.zeros(_GROUPS + 1, _KNOTS))
        self.register_buffer("levels", torch.full((_GROUPS + 1, _KNOTS), 0.5))

    def fit(self, outcomes: Outcomes) -> Float[Tensor, "outputs"]:
        """Takes each group's distribution; gives the logit of ½, the mean of all quantiles."""
        known = outcomes.duration_seconds[~outcomes.duration_seconds.isnan()].sort().values
        if len(known):
            places = torch.arange(1, _GROUPS, device=known.device) * len(known) // _GROUPS - 1
            self.bounds.copy_(known[places.clamp(min=0)])
        group = self.groups(outcomes.duration_seconds)
        for number in range(_GROUPS + 1):
            members = outcomes.watch_seconds[group == number]
            seconds, levels = _distribution(members if len(members) else outcomes.watch_seconds)
            self.seconds[number].copy_(seconds)
            self.levels[number].copy_(levels)
        return torch.zeros(1, device=outcomes.watch_seconds.device)

    def groups(self, duration_seconds: Float[Tensor, "rows"]) -> Int[Tensor, "rows"]:
        """Gives each video's group, from short to long; the last is that of unknown durations."""
        group = torch.bucketize(duration_seconds.to(self.bounds.dtype).contiguous(), self.bounds)
        return group.masked_fill(duration_seconds.isnan(), _GROUPS)

    def labels(self, outcomes: Outcomes) -> Float[Tensor, "rows"]:
        """Gives the quantile of each watch time within its group."""
        group = self.groups(outcomes.duration_seconds)
        return _interpolated(outcomes.watch_seconds, self.seconds[group], self.levels[group])

    def loss(self, outputs: Float[Tensor, "rows outputs"], outcomes: Outcomes) -> Float[Tensor, ""]:
        """Gives the mean squared error of the quantile."""
        return mse_loss(torch.sigmoid(outputs[:, 0]), self.labels(outcomes))

    def expected_watch_seconds(
        self, outputs: Float[Tensor, "rows outputs"], duration_seconds: Float[Tensor, "rows"]
    ) -> Float[Tensor, "rows"]:
        """Gives the watch time at the predicted quantile of the video's group: no mean; calibration makes it one."""
        group = self.groups(duration_seconds)
        quantile = torch.sigmoid(outputs[:, 0].to(self.levels.dtype))
        return _interpolated(quantile, self.levels[group], self.seconds[group])


def _distribution(
    watch_seconds: Float[Tensor, "rows"],
) -> tuple[Float[Tensor, "quantiles"], Float[Tensor, "quantiles"]]:
    """Some of the watch times, shortest first, and the level of each; a few repeat themselves."""
    rising, num = watch_seconds.sort().values, len(watch_seconds)
    knots = rising[torch.arange(_KNOTS, device=rising.device) * (num - 1) // (_KNOTS - 1)]
    shorter, not_longer = (torch.searchsorted(rising, knots, right=right) for right in (False, True))
    return knots, (shorter + not_longer) / (2 * num)


def _interpolated(
    values: Float[Tensor, "rows"], knots: Float[Tensor, "rows quantiles"], levels: Float[Tensor, "rows quantiles"]
) -> Float[Tensor, "rows"]:
    """The level at each value as in `layers.tensors.interpolated`, but with knots of each row's own."""
    above = torch.searchsorted(knots, values[:, None].contiguous(), right=True).clamp(1, _KNOTS - 1)
    low, high = knots.gather(1, above - 1), knots.gather(1, above)
    share = ((values[:, None] - low) / (high - low).clamp(min=torch.finfo(knots.dtype).tiny)).clamp(0.0, 1.0)
    return torch.lerp(levels.gather(1, above - 1), levels.gather(1, above), share)[:, 0]
