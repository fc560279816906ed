"""From logits to probabilities that may be believed."""

from dataclasses import dataclass

import torch

from watchnext.shapes import Float, Tensor


@dataclass(frozen=True)
class Calibration:
    """How probabilities are made of logits: flattened by a temperature, and a share of the watches spread evenly.

    Above 1 the temperature mends a network that is too sure of what it learnt. `spread` is the share of the watches
    that may go to any video: a network expects nothing of those that it never saw being watched, and people do watch
    new ones.

    Source of the temperature: Guo et al. (2017).
    """

    temperature: float = 1.0
    spread: float = 0.0

    def probabilities(self, logits: Float[Tensor, "batch videos"]) -> Float[Tensor, "batch videos"]:
        """Gives probabilities that sum to 1; a video whose logit is -inf has none."""
        there = logits > -torch.inf
        learnt = torch.softmax(logits / self.temperature, dim=1)
        return (1.0 - self.spread) * learnt + self.spread * there / there.sum(dim=1, keepdim=True)


AS_LEARNT = Calibration()
