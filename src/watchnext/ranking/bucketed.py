"""Watch time learnt in buckets: what share of watches pass each threshold, and how many seconds that makes.

The first threshold is 0 (watched at all); the others are watch times of training impressions, so that no bucket above
it is empty. Where there are too few different ones, the thresholds left over are +inf and stand for no seconds.
"""

import math

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, huber_loss, logsigmoid

from watchnext.config import RankingConfig
from watchnext.errors import ConfigurationError
from watchnext.ranking.objectives import Objective, Outcomes
from watchnext.shapes import Float, Int, Tensor

_SPREAD_WEIGHT = 0.1
_ALPHAS = torch.linspace(0.0, 12.0, 49, dtype=torch.float64).clamp(min=1e-9)  # at 0 the levels are 0 / 0
_ROUNDING = 1e-9


class Ordinal(Objective):
    """One logit for each threshold, of P(T > t): the whole distribution, without a shape assumed.

    Most thresholds are quantiles of the positive watch times at even levels; a quarter of them is spaced geometrically
    from the last quantile to the longest watch, as the few longest watches hold most of the seconds.

    Source: Li & Lin, Ordinal regression by extended binary classification, 2006.
    """

    thresholds: Tensor
    seconds: Tensor
    ranks: Tensor

    def __init__(self, config: RankingConfig) -> None:
        super().__init__()
        self.num_outputs = config.num_buckets - 1
        self.register_buffer("thresholds", torch.full((self.num_outputs,), torch.inf))
        self.register_buffer("seconds", torch.zeros(self.num_outputs))
        self.register_buffer("ranks", torch.zeros(self.num_outputs))

    def fit(self, outcomes: Outcomes) -> Float[Tensor, "outputs"]:
        """Places the thresholds; gives the log odds of passing each."""
        positive = _positive(outcomes)
        chosen = _with_geometric_tail(positive, self.num_outputs - 1, self.num_outputs // 4)
        self.thresholds.copy_(_distinct(chosen, positive, self.num_outputs))
        counts, means = _buckets(outcomes, self.thresholds)
        self.seconds.copy_(means.diff())
        middles = (counts.cumsum(0) - counts / 2) / counts.sum()
        self.ranks.copy_(middles.diff().where(self.thresholds.isfinite(), 0.0))
        return _log_odds_of_passing(counts)

    def loss(self, outputs: Float[Tensor, "rows outputs"], outcomes: Outcomes) -> Float[Tensor, ""]:
        """Gives the mean binary cross entropy, over the finite thresholds and the impressions."""
        return _cross_entropy(outputs, outcomes, self.thresholds).mean()

    def expected_watch_seconds(
        self, outputs: Float[Tensor, "rows outputs"], duration_seconds: Float[Tensor, "rows"]
    ) -> Float[Tensor, "rows"]:
        """Gives Σ P(T > t_k)·(m_k - m_(k-1)), m_k the mean of the bucket above t_k: right where those do not drift."""
        return _expected(outputs, self.seconds)

    def order(
        self, outputs: Float[Tensor, "rows outputs"], duration_seconds: Float[Tensor, "rows"]
    ) -> Float[Tensor, "rows"]:
        """Gives the expected rank among the training impressions (a bucket's is its middle), but for a constant."""
        return _expected(outputs, self.ranks)


class Tree(Objective):
    """A complete binary tree over the buckets, with one logit at each inner node for going right, to longer watches.

    P(bucket) is the product of the probabilities along its path. With m the buckets' means, E and Var the mean and
    the variance of the predicted distribution over them, and V the variance of the training impressions:

        loss = -log P(bucket of T) + 0.1·(Var + (E - T)²) / V

    The paper has these three terms; both weights, 0.1, and the scale are ours.

    Source: Lin et al., Tree based progressive regression model for watch-time prediction (TPM), KDD 2023.
    """

    thresholds: Tensor
    means: Tensor
    variance: Tensor
    splits: Tensor

    def __init__(self, config: RankingConfig) -> None:
        super().__init__()
        leaves = config.num_buckets
        if leaves & (leaves - 1):
            nearest = min((2**depth for depth in range(1, 11)), key=lambda power: abs(power - leaves))
            raise ConfigurationError(
                f"[ranking] num_buckets is {leaves}, but objective 'tree' needs a power of two: take {nearest}."
            )
        self.num_outputs = leaves - 1
        self.register_buffer("thresholds", torch.full((self.num_outputs,), torch.inf))
        self.register_buffer("means", torch.zeros(leaves))
        self.register_buffer("variance", torch.tensor(1.0))
        self.register_buffer("splits", level_by_level(leaves), persistent=False)

    def fit(self, outcomes: Outcomes) -> Float[Tensor, "outputs"]:
        """Places thresholds at even levels of the positive watch times; gives each node's log odds of going right."""
        positive = _positive(outcomes)
        chosen = _at_levels(positive, _even_levels(self.num_outputs - 1, positive))
        self.thresholds.copy_(_distinct(chosen, positive, self.num_outputs))
        counts, means = _buckets(outcomes, self.thresholds)
        self.means.copy_(means)
        self.variance.copy_(outcomes.watch_seconds.var(correction=0).clamp(min=1.0))
        depth = self.num_outputs.bit_length()
        below, above = torch.cat([counts.reshape(2**level, 2, -1).sum(dim=2) for level in range(depth)]).unbind(1)
        return _log_odds(above, below)

    def log_probabilities(self, outputs: Float[Tensor, "rows outputs"]) -> Float[Tensor, "rows buckets"]:
        """Gives log P(bucket): nodes at +inf send everything left."""
        logits = outputs.to(self.means.dtype).masked_fill(self.thresholds[self.splits].isinf(), -torch.inf)
        found = torch.zeros_like(logits[:, :1])
        while found.shape[1] <= self.num_outputs:
            level = logits[:, found.shape[1] - 1 : 2 * found.shape[1] - 1]
            found = torch.stack([found + logsigmoid(-level), found + logsigmoid(level)], dim=2).flatten(1)
        return found

    def loss(self, outputs: Float[Tensor, "rows outputs"], outcomes: Outcomes) -> Float[Tensor, ""]:
        """Gives the mean of the loss above, where Var + (E - T)² is Σ P(bucket)·(m - T)²."""
        log_probabilities = self.log_probabilities(outputs)
        bucket = torch.bucketize(outcomes.watch_seconds.contiguous(), self.thresholds)
        likelihood = log_probabilities.gather(1, bucket[:, None])[:, 0]
        distances = (self.means - outcomes.watch_seconds[:, None]).square() / self.variance
        spread = (log_probabilities.exp() * distances).sum(dim=1)
        return (_SPREAD_WEIGHT * spread - likelihood).mean()

    def expected_watch_seconds(
        self, outputs: Float[Tensor, "rows outputs"], duration_seconds: Float[Tensor, "rows"]
    ) -> Float[Tensor, "rows"]:
        """Gives Σ P(bucket)·m."""
        return (self.log_probabilities(outputs).exp() * self.means).sum(dim=1)


class ErrorAdaptive(Objective):
    """One logit for each threshold, of P(T > t), and seconds restored from them; the thresholds balance two errors.

    The loss is, with equal weights: cross entropy (mean over thresholds); Huber loss of the restored seconds, in
    standard deviations of the training impressions; Σ relu(P(T > t_(k+1)) - P(T > t_k)), as passing must not get
    likelier. The paper leaves the weights open.

    Source: Sun et al., CREAD: a classification-restoration framework with error adaptive discretization, AAAI 2024.
    """

    thresholds: Tensor
    widths: Tensor
    deviation: Tensor

    def __init__(self, config: RankingConfig) -> None:
        super().__init__()
        self.num_outputs = config.num_buckets - 1
        self.register_buffer("thresholds", torch.full((self.num_outputs,), torch.inf))
        self.register_buffer("widths", torch.zeros(self.num_outputs))
        self.register_buffer("deviation", torch.tensor(1.0))

    def fit(self, outcomes: Outcomes) -> Float[Tensor, "outputs"]:
        """Places the thresholds where `discretisation_error` is least; gives the log odds of passing each."""
        positive = _positive(outcomes)
        choices = [
            _distinct(_at_levels(positive, adapted_levels(self.num_outputs, alpha)), positive, self.num_outputs)
            for alpha in _ALPHAS.tolist()
        ]
        self.thresholds.copy_(min(choices, key=lambda thresholds: discretisation_error(thresholds, positive)))
        counts, means = _buckets(outcomes, self.thresholds)
        self.widths.copy_(_widths(self.thresholds, means[-1]))
        self.deviation.copy_(outcomes.watch_seconds.std(correction=0).clamp(min=1.0))
        return _log_odds_of_passing(counts)

    def loss(self, outputs: Float[Tensor, "rows outputs"], outcomes: Outcomes) -> Float[Tensor, ""]:
        """Gives the mean of the loss above."""
        probabilities = torch.sigmoid(outputs)
        restored = _expected(outputs, self.widths) / self.deviation
        huber = huber_loss(restored, outcomes.watch_seconds / self.deviation, reduction="none")
        rises = probabilities.diff(dim=1).relu() * self.thresholds[1:].isfinite()
        return (_cross_entropy(outputs, outcomes, self.thresholds) + huber + rises.sum(dim=1)).mean()

    def expected_watch_seconds(
        self, outputs: Float[Tensor, "rows outputs"], duration_seconds: Float[Tensor, "rows"]
    ) -> Float[Tensor, "rows"]:
        """Gives Σ P(T > t_k)·(t_(k+1) - t_k); the last bucket ends at its mean, as a long tail outweighs all."""
        return _expected(outputs, self.widths)


def level_by_level(leaves: int) -> Int[Tensor, "outputs"]:
    """Gives, from the root down and left to right, which of the thresholds between the leaves each node splits at.

    >>> level_by_level(8).tolist()
    [3, 1, 5, 0, 2, 4, 6]
    """
    sizes = [leaves >> depth for depth in range(leaves.bit_length() - 1)]
    return torch.cat([torch.arange(size // 2 - 1, leaves - 1, size) for size in sizes])


def adapted_levels(num: int, alpha: float) -> Float[Tensor, "outputs"]:
    """Gives (1 - exp(-alpha·z)) / (1 - exp(-alpha)) at z = 1 / num, 2 / num, … below 1.

    With an alpha near 0 the levels are even, and so all buckets equally full; a large one moves them to the tail. If
    watch times are exponential, cut at `alpha` times their mean, the buckets become equally wide.

    Source: CREAD, error-adaptive discretisation.
    """
    shares = torch.arange(1, num, dtype=torch.float64) / num
    return torch.expm1(-alpha * shares) / math.expm1(-alpha)


def discretisation_error(thresholds: Float[Tensor, "outputs"], positive: Float[Tensor, "rows"]) -> float:
    """Gives the sum of learning and restoration error, in square seconds.

    Over buckets of width w, each with n of the N positive watches, it is Σ w² / n + Σ (n / N)·w² / 12: the seconds of a
    bucket are learnt with a relative variance of 1 / n, and all watches in it are restored alike. In CREAD too, the
    one falls with a bucket's examples and the other grows with its width; the constants are ours, and take the place
    of its hyperparameter between the two.
    """
    passed = len(positive) - torch.searchsorted(positive, thresholds, right=True)
    counts = -torch.cat([passed, passed.new_zeros(1)]).diff()
    squares = _widths(thresholds, positive[-1]).double().square()
    return float((squares / counts.clamp(min=1.0) + squares * counts / (12 * len(positive))).sum())


def _positive(outcomes: Outcomes) -> Float[Tensor, "rows"]:
    """The watch times above 0, shortest first; 0 alone where there are none."""
    watched = outcomes.watch_seconds[outcomes.watch_seconds > 0]
    return watched.sort().values if len(watched) else watched.new_zeros(1)


def _even_levels(num: int, like: Float[Tensor, "rows"]) -> Float[Tensor, "quantiles"]:
    return torch.arange(1, num + 1, dtype=torch.float64, device=like.device) / (num + 1)


def _at_levels(positive: Float[Tensor, "rows"], levels: Float[Tensor, "quantiles"]) -> Float[Tensor, "quantiles"]:
    """The shortest watch at or above each level."""
    # A level of 3 / 10 of ten watches is the third, not the fourth because of the last bit.
    places = (levels.to(positive.device) * len(positive) - _ROUNDING).ceil().long() - 1
    return positive[places.clamp(0, len(positive) - 1)]


def _with_geometric_tail(positive: Float[Tensor, "rows"], num: int, tail: int) -> Float[Tensor, "quantiles"]:
    """Watches at even levels; the last `tail` of the `num` are spaced geometrically between those and the longest."""
    quantiles = _at_levels(positive, _even_levels(num - tail, positive))
    if not tail:
        return quantiles
    levels = _even_levels(tail, positive)
    wanted = positive[-1] ** levels * quantiles[-1] ** (1.0 - levels)
    places = torch.searchsorted(positive, wanted.to(positive.dtype), right=True) - 1
    return torch.cat([quantiles, positive[places.clamp(min=0)]])


def _distinct(
    chosen: Float[Tensor, "quantiles"], positive: Float[Tensor, "rows"], num: int
) -> Float[Tensor, "outputs"]:
    """0 and the different ones of the chosen thresholds below the longest watch, filled up with +inf."""
    rising = torch.unique_consecutive(chosen[chosen < positive[-1:]])
    return torch.cat([rising.new_zeros(1), rising, rising.new_full((num - 1 - len(rising),), torch.inf)])


def _buckets(
    outcomes: Outcomes, thresholds: Float[Tensor, "outputs"]
) -> tuple[Float[Tensor, "buckets"], Float[Tensor, "buckets"]]:
    """How many impressions each bucket has and how long they were watched; an empty one repeats the one before."""
    bucket, num = torch.bucketize(outcomes.watch_seconds.contiguous(), thresholds), len(thresholds) + 1
    counts = torch.bincount(bucket, minlength=num).double()
    sums = torch.bincount(bucket, outcomes.watch_seconds.double(), minlength=num)
    return counts, (sums / counts.clamp(min=1.0)).cummax(0).values


def _widths(thresholds: Float[Tensor, "outputs"], end: Float[Tensor, ""]) -> Float[Tensor, "outputs"]:
    """From each threshold to the next, from the last finite one to the end; 0 of the others."""
    return torch.cat([thresholds, end[None]]).clamp(max=end).diff()


def _expected(outputs: Float[Tensor, "rows outputs"], steps: Float[Tensor, "outputs"]) -> Float[Tensor, "rows"]:
    """The sum of the steps, each times the probability of being taken; no matrix product, which may be in bfloat16."""
    return (torch.sigmoid(outputs.to(steps.dtype)) * steps).sum(dim=1)


def _log_odds(above: Float[Tensor, "outputs"], below: Float[Tensor, "outputs"]) -> Float[Tensor, "outputs"]:
    """Of counts, half an impression added to each so that none is infinite."""
    return ((above + 0.5) / (below + 0.5)).log().float()


def _log_odds_of_passing(counts: Float[Tensor, "buckets"]) -> Float[Tensor, "outputs"]:
    """Of each threshold, from how many impressions each bucket has."""
    below = counts.cumsum(0)[:-1]
    return _log_odds(counts.sum() - below, below)


def _cross_entropy(
    outputs: Float[Tensor, "rows outputs"], outcomes: Outcomes, thresholds: Float[Tensor, "outputs"]
) -> Float[Tensor, "rows"]:
    """Of T > t, the mean over the finite thresholds."""
    passed = (outcomes.watch_seconds[:, None] > thresholds).to(outputs.dtype)
    finite = thresholds.isfinite().to(outputs.dtype)
    losses = binary_cross_entropy_with_logits(outputs, passed, reduction="none")
    return (losses @ finite) / finite.sum().clamp(min=1.0)
