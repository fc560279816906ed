"""Ways to learn watch time, all behind one interface: what the network puts out, its loss, and what it says (§4.2)."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import softplus

from watchnext.config import RankingConfig
from watchnext.shapes import Bool, Float, Tensor

_TINY = 1e-6
_LARGEST_EXPONENT = 60.0


@dataclass(frozen=True)
class Outcomes:
    """What came of some impressions, and how long their videos are (NaN where unknown)."""

    watch_seconds: Float[Tensor, "rows"]
    duration_seconds: Float[Tensor, "rows"]
    clicked: Bool[Tensor, "rows"]
    completed: Bool[Tensor, "rows"]
    liked: Bool[Tensor, "rows"]


class Objective(nn.Module):
    """Some outputs of the network for each impression, the loss that teaches them, and what they mean.

    What is fitted before training (thresholds, distributions) is kept in buffers, and so saved with the weights.
    """

    num_outputs = 1

    @abstractmethod
    def fit(self, outcomes: Outcomes) -> Float[Tensor, "outputs"]:
        """Takes what the loss needs from the training impressions; gives the outputs that suit all of them best."""

    @abstractmethod
    def loss(self, outputs: Float[Tensor, "rows outputs"], outcomes: Outcomes) -> Float[Tensor, ""]:
        """Gives the mean loss of some impressions."""

    @abstractmethod
    def expected_watch_seconds(
        self, outputs: Float[Tensor, "rows outputs"], duration_seconds: Float[Tensor, "rows"]
    ) -> Float[Tensor, "rows"]:
        """Gives the watch time that the outputs stand for, before calibration."""

    def order(
        self, outputs: Float[Tensor, "rows outputs"], duration_seconds: Float[Tensor, "rows"]
    ) -> Float[Tensor, "rows"]:
        """Gives what impressions are to be sorted by where this objective gives the order."""
        return self.expected_watch_seconds(outputs, duration_seconds)


class WeightedLogistic(Objective):
    """Weighted logistic regression (§4.2): the odds are the expected watch time in units.

    Every impression is a positive whose weight is its watch time T in units; with equal weights, a click weighs 1.
    Which are also a negative of weight 1:

    - "all": each one. The learnt odds are then ΣT / N = E[T], whatever the click rate.
    - "unclicked": only those not clicked; clicked ones alone are positives. The odds are ΣT / (N - k), the paper's
      E[T]·(1 + P) for a small click probability P.
    """

    def __init__(self, config: RankingConfig) -> None:
        super().__init__()
        self.unit_seconds = config.watch_unit_seconds
        self.negatives = config.negatives
        self.weights = config.weights

    def fit(self, outcomes: Outcomes) -> Float[Tensor, "outputs"]:
        """Needs nothing; gives the log odds of all impressions together."""
        positive, negative = self._weights(outcomes)
        return ((positive.mean() + _TINY) / (negative.mean() + _TINY)).log()[None]

    def loss(self, outputs: Float[Tensor, "rows outputs"], outcomes: Outcomes) -> Float[Tensor, ""]:
        """Gives the mean weighted cross entropy."""
        positive, negative = self._weights(outcomes)
        logits = outputs[:, 0]
        return (positive * softplus(-logits) + negative * softplus(logits)).mean()

    def expected_watch_seconds(
        self, outputs: Float[Tensor, "rows outputs"], duration_seconds: Float[Tensor, "rows"]
    ) -> Float[Tensor, "rows"]:
        """Gives exp(logit), in seconds (§4.2)."""
        return outputs[:, 0].clamp(max=_LARGEST_EXPONENT).exp() * self.unit_seconds

    def _weights(self, outcomes: Outcomes) -> tuple[Float[Tensor, "rows"], Float[Tensor, "rows"]]:
        """What each impression weighs as a positive and as a negative."""
        if self.weights == "equal":
            positive = outcomes.clicked.float()
        else:
            positive = outcomes.watch_seconds / self.unit_seconds
        if self.negatives == "unclicked":
            return torch.where(outcomes.clicked, positive, 0.0), (~outcomes.clicked).float()
        return positive, torch.ones_like(positive)


class Tweedie(Objective):
    """Tweedie deviance of power 1.5: a mean by its logarithm, with variances between Poisson's and gamma's.

    Source: Jørgensen, The theory of dispersion models, 1997; LightGBM's `tweedie` is the same.
    """

    def __init__(self, config: RankingConfig) -> None:
        super().__init__()
        self.unit_seconds = config.watch_unit_seconds

    def fit(self, outcomes: Outcomes) -> Float[Tensor, "outputs"]:
        """Needs nothing; gives the logarithm of the mean."""
        return (outcomes.watch_seconds.mean() / self.unit_seconds + _TINY).log()[None]

    def loss(self, outputs: Float[Tensor, "rows outputs"], outcomes: Outcomes) -> Float[Tensor, ""]:
        """Gives half the deviance, without what does not depend on the prediction."""
        half = 0.5 * outputs[:, 0].clamp(-_LARGEST_EXPONENT, _LARGEST_EXPONENT)
        return 2.0 * (outcomes.watch_seconds / self.unit_seconds * (-half).exp() + half.exp()).mean()

    def expected_watch_seconds(
        self, outputs: Float[Tensor, "rows outputs"], duration_seconds: Float[Tensor, "rows"]
    ) -> Float[Tensor, "rows"]:
        """Gives exp(output), in seconds."""
        return outputs[:, 0].clamp(max=_LARGEST_EXPONENT).exp() * self.unit_seconds


class LogSquared(Objective):
    """Squared error of log(1 + T), T in seconds: a good order, but a mean of logarithms only calibration makes one."""

    def __init__(self, config: RankingConfig) -> None:
        super().__init__()

    def fit(self, outcomes: Outcomes) -> Float[Tensor, "outputs"]:
        """Needs nothing; gives the mean logarithm."""
        return outcomes.watch_seconds.log1p().mean()[None]

    def loss(self, outputs: Float[Tensor, "rows outputs"], outcomes: Outcomes) -> Float[Tensor, ""]:
        """Gives half the mean square."""
        return 0.5 * (outputs[:, 0] - outcomes.watch_seconds.log1p()).square().mean()

    def expected_watch_seconds(
        self, outputs: Float[Tensor, "rows outputs"], duration_seconds: Float[Tensor, "rows"]
    ) -> Float[Tensor, "rows"]:
        """Gives exp(output) - 1."""
        return outputs[:, 0].clamp(0.0, _LARGEST_EXPONENT).expm1()
