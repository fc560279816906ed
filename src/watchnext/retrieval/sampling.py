"""Negatives of the sampled softmax, drawn from the background distribution (§3.1)."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from watchnext.shapes import Float, Int, Tensor


@dataclass(frozen=True)
class SampledVideos:
    """Negative videos shared by a batch, and the log of how often each was expected among them."""

    rows: Int[Tensor, "samples"]
    log_expected_counts: Float[Tensor, "samples"]


@runtime_checkable
class Sampler(Protocol):
    """Draws the negatives of one step."""

    def sample(self, generator: torch.Generator) -> SampledVideos:
        """Gives the negatives; never row 0."""
        ...


class FrequencySampler:
    """Draws `num_samples` videos with replacement, video i with probability q_i ∝ (watches of i + 1) ** power.

    The expected count of video i is num_samples · q_i, computed and kept in float64 so that it is exact for the
    rarest video of a large catalogue. Power 0 draws uniformly.
    """

    def __init__(self, num_completed: Int[Tensor, "videos"], num_samples: int, power: float) -> None:
        weights = (num_completed[1:].double() + 1.0) ** power
        self._cumulative = weights.cumsum(0)
        self._log_q = weights.log() - self._cumulative[-1].log()
        self._num_samples = num_samples

    def sample(self, generator: torch.Generator) -> SampledVideos:
        """Gives the negatives."""
        uniform = torch.rand(self._num_samples, generator=generator, dtype=torch.float64)
        # A uniform number is below 1, and its product below the total even after rounding: no place is past the last.
        places = torch.searchsorted(self._cumulative, uniform * self._cumulative[-1], right=True)
        expected = self._log_q[places] + torch.log(torch.tensor(float(self._num_samples), dtype=torch.float64))
        return SampledVideos(places + 1, expected.float())


class EveryVideo:
    """The full softmax in the clothes of a sampler: every video once, certainly."""

    def __init__(self, num_videos: int) -> None:
        self._all = SampledVideos(torch.arange(1, num_videos), torch.zeros(num_videos - 1))

    def sample(self, generator: torch.Generator) -> SampledVideos:
        """Gives all videos."""
        return self._all
