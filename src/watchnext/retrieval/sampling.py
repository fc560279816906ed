"""Negatives of the sampled softmax, drawn from the background distribution (§3.1)."""

from collections import Counter
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from watchnext.config import RetrievalConfig
from watchnext.shapes import Array, Float, Int, Tensor


@dataclass(frozen=True)
class SampledVideos:
    """Negative videos shared by a batch: distinct rows, and logs of how often each was drawn, and was expected."""

    rows: Int[Tensor, "samples"]
    log_times_drawn: Float[Tensor, "samples"]
    log_expected_counts: Float[Tensor, "samples"]

    def on(self, device: torch.device) -> "SampledVideos":
        """Gives the same sample where the network is."""
        return SampledVideos(**{name: column.to(device, non_blocking=True) for name, column in vars(self).items()})


@runtime_checkable
class Sampler(Protocol):
    """Draws the negatives of one step."""

    def sample(self, random: np.random.Generator, target_row: Int[Array, "batch targets"]) -> SampledVideos:
        """Gives the negatives, never row 0. `target_row` are the targets of the step's examples."""
        ...


@runtime_checkable
class Distribution(Protocol):
    """One way of drawing: which rows come, and how many times each of some rows is expected to."""

    def draw(self, random: np.random.Generator, target_row: Int[Array, "batch targets"]) -> Int[Array, "_"]:
        """Gives rows; with repeats where it draws with replacement."""
        ...

    def expected_counts(self, rows: Int[Array, "samples"], batch_size: int) -> Float[Array, "samples"]:
        """Gives E[times that each of `rows` is drawn in one step], exact also at 1e-7."""
        ...


class Weighted:
    """Draws `num_samples` videos by weight, from one running sum in float64.

    With replacement the expected count of video i is n·q_i. Without, the draw is systematic (Madow 1949): n points
    at equal distances on the running sum of the inclusion probabilities π_i = min(1, c·w_i), c such that they sum
    to n, with one random start. That takes each video at most once, and exactly with probability π_i.
    """

    def __init__(self, weights: Float[Array, "videos"], num_samples: int, replacement: bool) -> None:
        expected = num_samples * weights / weights.sum() if replacement else inclusion(weights, num_samples)
        self._replacement = replacement
        self._num_samples = num_samples
        self._expected = expected
        self._cumulative = np.cumsum(expected)

    def draw(self, random: np.random.Generator, target_row: Int[Array, "batch targets"]) -> Int[Array, "_"]:
        """Gives `num_samples` rows."""
        if self._replacement:
            points = np.sort(random.random(self._num_samples))  # in order they are found sooner
        else:
            points = (np.arange(self._num_samples) + random.random()) / self._num_samples
        # A sum of points may be rounded up to 1: the last place is below the total.
        places = np.minimum(points * self._cumulative[-1], np.nextafter(self._cumulative[-1], 0.0))
        rows: Array = np.searchsorted(self._cumulative, places, side="right") + 1
        return rows

    def expected_counts(self, rows: Int[Array, "samples"], batch_size: int) -> Float[Array, "samples"]:
        """Gives n·q_i, or π_i."""
        counts: Array = self._expected[rows - 1]
        return counts


class InBatch:
    """The targets of the batch's other examples.

    Video i is expected B·n_i/N times in a batch of B of the N examples, n_i of which want it: exactly so when the
    examples of a pass are in random order.
    """

    def __init__(self, num_wanted: Int[Array, "videos"], num_examples: int) -> None:
        self._share = num_wanted / num_examples

    def draw(self, random: np.random.Generator, target_row: Int[Array, "batch targets"]) -> Int[Array, "_"]:
        """Gives the batch's own rows."""
        return target_row[target_row > 0]

    def expected_counts(self, rows: Int[Array, "samples"], batch_size: int) -> Float[Array, "samples"]:
        """Gives B·n_i/N."""
        counts: Array = batch_size * self._share[rows - 1]
        return counts


class Mixture:
    """Draws from each of some distributions; a video is expected as often as all of them together expect it."""

    def __init__(self, distributions: list[Distribution]) -> None:
        self._distributions = distributions

    def sample(self, random: np.random.Generator, target_row: Int[Array, "batch targets"]) -> SampledVideos:
        """Gives the distinct rows of all draws."""
        drawn = np.concatenate([distribution.draw(random, target_row) for distribution in self._distributions])
        rows, times = np.unique(drawn, return_counts=True)
        expected = sum(distribution.expected_counts(rows, len(target_row)) for distribution in self._distributions)
        return _sampled(rows, np.log(times), np.log(expected))


class EveryVideo:
    """The full softmax in the clothes of a sampler: every one of `rows` once, certainly."""

    def __init__(self, rows: Int[Array, "samples"]) -> None:
        nothing = np.zeros(len(rows))
        self._all = _sampled(rows, nothing, nothing)

    def sample(self, random: np.random.Generator, target_row: Int[Array, "batch targets"]) -> SampledVideos:
        """Gives all videos."""
        return self._all


def sampler_for(
    config: RetrievalConfig,
    num_completed: Int[Array, "videos"],
    num_wanted: Int[Array, "videos"],
    num_examples: int,
) -> Sampler:
    """Gives the sampler that the settings ask for.

    `num_completed` counts the watches of each row of the vocabulary, which is in order of frequency, and
    `num_wanted` how many of the `num_examples` examples have it as a target. `sampling` names the parts of a
    mixture; each gets an equal share of the draws, a name that stands twice two shares. A catalogue that is not
    larger than `num_negatives` is taken whole. With a video tower, what nobody watched yet is no negative: the tower
    would learn that new means unwanted.
    """
    names = Counter(config.sampling)
    eligible = np.ones(len(num_completed) - 1, dtype=bool) if config.videos == "free" else num_completed[1:] > 0
    if "full" in names or config.num_negatives >= eligible.sum():
        return EveryVideo(np.flatnonzero(eligible) + 1)
    drawn = {name: parts for name, parts in names.items() if name != "in_batch"}
    distributions: list[Distribution] = []
    for name, parts in drawn.items():
        share = max(1, config.num_negatives * parts // sum(drawn.values()))
        weights = _weights(name, num_completed[1:], config) * eligible
        distributions.append(Weighted(weights, share, config.replacement))
    if "in_batch" in names:
        distributions.append(InBatch(num_wanted[1:], num_examples))
    return Mixture(distributions)


def inclusion(weights: Float[Array, "videos"], num_samples: int) -> Float[Array, "videos"]:
    """Gives probabilities that sum to `num_samples`, in proportion to the weights where that is not above 1.

    >>> inclusion(np.array([8.0, 1.0, 1.0, 2.0]), 2).tolist()
    [1.0, 0.25, 0.25, 0.5]
    """
    certain = np.zeros(len(weights), dtype=bool)
    while True:
        left = num_samples - certain.sum()
        chances = np.where(certain, 1.0, left * weights / weights[~certain].sum())
        above = chances > 1.0
        if not above.any():
            return chances
        certain |= above


def _weights(name: str, num_completed: Int[Array, "videos"], config: RetrievalConfig) -> Float[Array, "videos"]:
    places = np.arange(len(num_completed), dtype=np.float64)
    if name == "uniform":
        return np.ones(len(num_completed))
    if name == "log_uniform":
        return np.log1p(1.0 / (places + 1.0))
    weights: Array = (num_completed + 1.0) ** config.sampling_power
    return weights


def _sampled(rows: Int[Array, "samples"], log_times: Array, log_expected: Array) -> SampledVideos:
    return SampledVideos(
        torch.from_numpy(rows.astype(np.int64)),
        torch.from_numpy(log_times.astype(np.float32)),
        torch.from_numpy(log_expected.astype(np.float32)),
    )
