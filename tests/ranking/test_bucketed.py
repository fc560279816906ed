import itertools
import math

import numpy as np
import pytest
import torch

from watchnext.config import RankingConfig
from watchnext.errors import ConfigurationError
from watchnext.ranking import bucketed
from watchnext.ranking.bucketed import ErrorAdaptive, Ordinal, Tree
from watchnext.ranking.objectives import Outcomes

# Four unwatched impressions and six watched: with thresholds 0, 20 and 40, buckets of 4, 2, 2 and 2 impressions whose
# means are 0, 15, 35 and 55 s. The mean of all is 21 s, the variance 9,100 / 10 - 21² = 469.
SAMPLE = [0.0, 0.0, 0.0, 0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0]


def outcomes_of(watched) -> Outcomes:
    watched = torch.as_tensor(watched)
    clicked = watched > 0
    return Outcomes(watched, torch.full_like(watched, math.nan), clicked, clicked, clicked)


def fitted(kind, watched, num_buckets: int = 4):
    """The objective of that many buckets in double precision, and what it starts from."""
    objective = kind(RankingConfig(num_buckets=num_buckets)).double()
    return objective, objective.fit(outcomes_of(torch.as_tensor(watched, dtype=torch.float64)))


def logits_of(*probabilities: float) -> torch.Tensor:
    return torch.tensor([probabilities], dtype=torch.float64).logit()


def seconds_of(objective, outputs) -> float:
    return objective.expected_watch_seconds(outputs, torch.full((len(outputs),), math.nan)).item()


def minimiser(objective, watched, rate: float, steps: int = 400) -> torch.Tensor:
    """The outputs, the same for all impressions, to which gradient descent from 0 leads."""
    outcomes = outcomes_of(torch.as_tensor(watched, dtype=torch.float64))
    outputs = torch.zeros(1, objective.num_outputs, dtype=torch.float64, requires_grad=True)
    for _ in range(steps):
        (slope,) = torch.autograd.grad(objective.loss(outputs.expand(len(watched), -1), outcomes), outputs)
        outputs.data -= rate * slope
    return outputs.detach()


# Ordinal


def test_thresholds_are_zero_and_the_even_quantiles_of_what_was_watched():
    # A third and two thirds of six watches: the second and the fourth.
    objective, _ = fitted(Ordinal, SAMPLE)
    assert objective.thresholds.tolist() == [0.0, 20.0, 40.0]


def test_a_quantile_between_two_watches_is_never_moved_on_by_rounding():
    # The k / 25 quantiles of 1 … 100 are 4k; in floating point, 7 / 25 · 100 is more than 28.
    objective, _ = fitted(Ordinal, np.arange(101.0), num_buckets=34)
    assert objective.thresholds[:25].tolist() == [4.0 * k for k in range(25)]


def test_a_quarter_of_the_thresholds_reach_geometrically_into_the_tail():
    # Eight thresholds: 0, five quantiles at sixths (1 … 5), and two on the way from 5 to 320 in factors of 4: the
    # longest watches up to 20 and 80 are 5 once more, and 30.
    quantiles = [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0, 5.0, 5.0]
    objective, _ = fitted(Ordinal, [0.0, *quantiles, 30.0, 320.0], num_buckets=9)
    assert objective.thresholds.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 30.0, math.inf]
    # Ten more of 5 s leave the quantiles 2, 4, 5, 5 and 5.
    objective, _ = fitted(Ordinal, [*quantiles, *[5.0] * 10, 18.0, 30.0, 320.0], num_buckets=9)
    assert objective.thresholds.tolist() == [0.0, 2.0, 4.0, 5.0, 18.0, 30.0, math.inf, math.inf]


def test_the_odds_to_start_from_are_those_of_the_training_impressions_with_half_an_impression_more():
    _, start = fitted(Ordinal, SAMPLE)
    assert start.exp().tolist() == pytest.approx([6.5 / 4.5, 4.5 / 6.5, 2.5 / 8.5], rel=1e-5)


def test_ordinal_loss_is_the_mean_cross_entropy_of_passing_each_threshold():
    # 30 s pass 0 and 20 but not 40: -ln 0.8 - ln 0.4 - ln 0.9 over three.
    objective, _ = fitted(Ordinal, SAMPLE)
    loss = objective.loss(logits_of(0.8, 0.4, 0.1), outcomes_of(torch.tensor([30.0], dtype=torch.float64)))
    assert loss.item() == pytest.approx(-math.log(0.8 * 0.4 * 0.9) / 3)


def test_expected_seconds_are_the_probabilities_times_the_steps_between_means():
    # 0.8·(15 - 0) + 0.4·(35 - 15) + 0.1·(55 - 35) = 22.
    objective, _ = fitted(Ordinal, SAMPLE)
    assert seconds_of(objective, logits_of(0.8, 0.4, 0.1)) == pytest.approx(22.0)


def test_the_order_is_the_expected_rank_among_the_training_impressions():
    # Middles of the buckets: 0.2, 0.5, 0.7, 0.9; the first is the constant left out.
    objective, _ = fitted(Ordinal, SAMPLE)
    for bucket, middle in enumerate([0.2, 0.5, 0.7, 0.9]):
        surely = torch.tensor([[50.0 if place < bucket else -50.0 for place in range(3)]], dtype=torch.float64)
        assert objective.order(surely, torch.tensor([math.nan])).item() == pytest.approx(middle - 0.2)


def test_thresholds_left_over_teach_nothing_and_stand_for_nothing():
    # Two different watch times: only 0 and the shorter one part anything.
    objective, _ = fitted(Ordinal, [0.0, 7.0, 7.0, 9.0], num_buckets=8)
    assert objective.thresholds.tolist() == [0.0, 7.0, *[math.inf] * 5]
    some, others = logits_of(0.5, 0.25, *[0.1] * 5), logits_of(0.5, 0.25, *[0.9] * 5)
    outcomes = outcomes_of(torch.tensor([7.0], dtype=torch.float64))
    assert objective.loss(some, outcomes).item() == pytest.approx(-math.log(0.5 * 0.75) / 2)
    assert objective.loss(others, outcomes).item() == objective.loss(some, outcomes).item()
    # 0.5·7 + 0.25·(9 - 7)
    assert seconds_of(objective, others) == pytest.approx(4.0)
    nowhere = torch.tensor([math.nan])
    assert objective.order(some, nowhere).item() == objective.order(others, nowhere).item()


@pytest.mark.parametrize("watched", [SAMPLE, [0.0, 1.0, 1.0, 5.0, 5.0, 5.0, 700.0], [3.0, 4.0, 5.0, 6.0]])
def test_the_least_ordinal_loss_has_the_true_frequencies_and_so_the_true_mean(watched):
    objective, _ = fitted(Ordinal, watched, num_buckets=6)
    outputs = minimiser(objective, watched, rate=16.0, steps=800)
    for threshold, probability in zip(objective.thresholds.tolist(), outputs[0].sigmoid().tolist(), strict=True):
        if math.isfinite(threshold):
            assert probability == pytest.approx(np.mean(np.array(watched) > threshold), abs=1e-3)
    assert seconds_of(objective, outputs) == pytest.approx(np.mean(watched), rel=1e-3)


# Tree

TREE = logits_of(0.75, 0.5, 0.25)  # at 20, 0 and 40: leaves of 1/8, 1/8, 9/16 and 3/16
LEAVES = [0.125, 0.125, 0.5625, 0.1875]


def test_the_root_splits_in_the_middle_and_its_children_in_the_middle_of_the_halves():
    objective, start = fitted(Tree, SAMPLE)
    assert objective.thresholds.tolist() == [0.0, 20.0, 40.0]
    # Root: 4 above 20 and 6 not; of these 2 above 0 and 4 not; of the others 2 above 40 and 2 not. Half of one more.
    assert start.exp().tolist() == pytest.approx([4.5 / 6.5, 2.5 / 4.5, 2.5 / 2.5], rel=1e-5)


def test_leaves_have_the_product_of_the_probabilities_along_their_paths():
    objective, _ = fitted(Tree, SAMPLE)
    assert objective.log_probabilities(TREE)[0].exp().tolist() == pytest.approx(LEAVES)


def leaf_probability(logits: list[float], leaf: int, depth: int) -> float:
    """Walks down from the root; node n has the children 2n + 1 and 2n + 2."""
    node, probability = 0, 1.0
    for level in reversed(range(depth)):
        right = leaf >> level & 1
        share = 1 / (1 + math.exp(-logits[node]))
        probability *= share if right else 1 - share
        node = 2 * node + 1 + right
    return probability


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_leaves_are_those_of_a_walk_down_and_add_up_to_one(depth):
    objective, _ = fitted(Tree, np.arange(200.0), num_buckets=2**depth)
    outputs = 2.0 * torch.randn(3, 2**depth - 1, generator=torch.Generator().manual_seed(depth), dtype=torch.float64)
    found = objective.log_probabilities(outputs).exp()
    for row, leaf in itertools.product(range(3), range(2**depth)):
        assert found[row, leaf].item() == pytest.approx(leaf_probability(outputs[row].tolist(), leaf, depth))
    assert found.sum(dim=1).tolist() == pytest.approx([1.0] * 3)


def test_tree_loss_is_likelihood_variance_and_squared_error():
    # Of the leaves above, E = 15/8 + 35·9/16 + 55·3/16 = 31.875 and Var = Σ P·(m - E)².
    objective, _ = fitted(Tree, SAMPLE)
    mean = 31.875
    variance = sum(share * (seconds - mean) ** 2 for share, seconds in zip(LEAVES, [0, 15, 35, 55], strict=True))
    for watched, leaf in ((0.0, 0), (20.0, 1), (30.0, 2), (41.0, 3), (9e4, 3)):
        expected = -math.log(LEAVES[leaf]) + 0.1 * (variance + (mean - watched) ** 2) / 469
        loss = objective.loss(TREE, outcomes_of(torch.tensor([watched], dtype=torch.float64)))
        assert loss.item() == pytest.approx(expected)


def test_expected_seconds_are_the_leaves_probabilities_times_their_means():
    objective, _ = fitted(Tree, SAMPLE)
    assert seconds_of(objective, TREE) == pytest.approx(31.875)


def test_the_likelihood_alone_is_least_at_the_true_shares(monkeypatch):
    monkeypatch.setattr(bucketed, "_SPREAD_WEIGHT", 0.0)
    objective, _ = fitted(Tree, SAMPLE)
    outputs = minimiser(objective, SAMPLE, rate=4.0)
    assert objective.log_probabilities(outputs)[0].exp().tolist() == pytest.approx([0.4, 0.2, 0.2, 0.2], abs=1e-3)
    assert seconds_of(objective, outputs) == pytest.approx(21.0, abs=0.05)


def test_the_two_other_terms_move_the_least_loss_by_little_towards_certainty():
    objective, _ = fitted(Tree, SAMPLE)
    outputs = minimiser(objective, SAMPLE, rate=4.0)
    shares = objective.log_probabilities(outputs)[0].exp().tolist()
    assert shares == pytest.approx([0.4, 0.2, 0.2, 0.2], abs=0.06)
    assert shares[1] > 0.205 and shares[3] < 0.195  # 15 s is the nearest to the mean, 55 s the farthest
    assert seconds_of(objective, outputs) == pytest.approx(21.0, rel=0.1)


def test_leaves_that_nothing_can_reach_get_no_probability_and_their_nodes_no_gradient():
    objective, start = fitted(Tree, [0.0, 7.0, 7.0, 9.0], num_buckets=8)
    assert objective.thresholds.tolist() == [0.0, 7.0, *[math.inf] * 5]
    outputs = torch.full_like(start, 3.0).double()[None].requires_grad_()
    assert objective.log_probabilities(outputs)[0].exp()[3:].tolist() == [0.0] * 5
    objective.loss(outputs.expand(2, -1), outcomes_of(torch.tensor([0.0, 1e5], dtype=torch.float64))).backward()
    # Nodes 1, 3 and 4 split at 7 (of leaves 0 … 3), 0 and +inf.
    assert (outputs.grad[0] != 0).tolist() == [False, True, False, True, False, False, False]


@pytest.mark.parametrize(("buckets", "nearest"), [(3, 2), (5, 4), (30, 32), (1000, 1024)])
def test_a_tree_of_no_power_of_two_is_refused_with_the_nearest_named(buckets, nearest):
    with pytest.raises(ConfigurationError, match=rf"num_buckets is {buckets}\b.*take {nearest}\."):
        Tree(RankingConfig(num_buckets=buckets))


# Error-adaptive discretisation


def test_adapted_levels_are_those_of_the_cut_exponential():
    # At z = 1/2 and alpha = 2·ln 3: (1 - 1/3) / (1 - 1/9) = 3/4.
    assert bucketed.adapted_levels(2, 2 * math.log(3)).tolist() == pytest.approx([0.75])
    assert bucketed.adapted_levels(4, 1e-9).tolist() == pytest.approx([0.25, 0.5, 0.75])


def test_a_larger_alpha_puts_more_thresholds_into_the_tail():
    in_tail = [int((bucketed.adapted_levels(32, alpha) > 0.9).sum()) for alpha in (1e-9, 1.0, 3.0, 6.0, 12.0)]
    assert in_tail == sorted(set(in_tail))


def test_exponential_watch_times_get_equally_wide_buckets_at_the_alpha_of_their_cut():
    # Mean 20 s, cut at 100 s: alpha = 5. Bounds at 20, 40, 60 and 80 s.
    places = (np.arange(200_000) + 0.5) / 200_000
    watched = torch.from_numpy(-20.0 * np.log1p(-places * -np.expm1(-5.0)))
    bounds = watched.quantile(bucketed.adapted_levels(5, 5.0))
    assert bounds.tolist() == pytest.approx([20.0, 40.0, 60.0, 80.0], rel=1e-3)


def test_the_discretisation_error_is_the_one_worked_by_hand():
    # Widths 10, 20 and, up to the longest, 60; two watches each. Learning: 50 + 200 + 1,800; restoration:
    # (100 + 400 + 3,600) / 3 / 12.
    positive = torch.tensor([5.0, 10.0, 20.0, 30.0, 50.0, 90.0])
    error = bucketed.discretisation_error(torch.tensor([0.0, 10.0, 30.0, math.inf]), positive)
    assert error == pytest.approx(2050 + 4100 / 36)


def error_by_hand(bounds: np.ndarray, positive: np.ndarray) -> float:
    total = 0.0
    for low, high in itertools.pairwise([*bounds, positive.max()]):
        inside = ((positive > low) & (positive <= high)).sum()
        total += (high - low) ** 2 * (1 / inside + inside / len(positive) / 12)
    return total


@pytest.mark.parametrize("spread", [0.3, 1.0, 2.0])
def test_the_thresholds_chosen_have_the_least_error_of_all_alphas(spread):
    positive = np.exp(np.random.default_rng(1).normal(3.0, spread, 2000))
    objective, _ = fitted(ErrorAdaptive, np.concatenate([np.zeros(3000), positive]), num_buckets=9)
    errors = []
    for alpha in np.arange(49) / 4:
        shares = np.arange(1, 8) / 8
        levels = np.expm1(-alpha * shares) / np.expm1(-alpha) if alpha else shares
        chosen = np.unique(np.quantile(positive, levels, method="inverted_cdf"))
        errors.append(error_by_hand(np.concatenate([[0.0], chosen[chosen < positive.max()]]), positive))
    found = objective.thresholds.numpy()
    assert error_by_hand(found[np.isfinite(found)], positive) == pytest.approx(min(errors))
    assert min(errors) < 0.9 * errors[0]


def by_hand() -> ErrorAdaptive:
    """Thresholds 0, 20 and 40, each bucket 20 s wide, a standard deviation of 10 s."""
    objective = ErrorAdaptive(RankingConfig(num_buckets=4)).double()
    objective.thresholds.copy_(torch.tensor([0.0, 20.0, 40.0]))
    objective.widths.copy_(torch.tensor([20.0, 20.0, 20.0]))
    objective.deviation.fill_(10.0)
    return objective


def test_seconds_are_restored_from_the_widths():
    # 0 passed surely, 20 with a half.
    outputs = torch.tensor([[50.0, 0.0, -50.0]], dtype=torch.float64)
    assert seconds_of(by_hand(), outputs) == pytest.approx(30.0)


def test_the_last_bucket_ends_at_its_mean():
    # A threshold at 7 has the error 49 / 2 + 16 / 2 + (49 + 16) / 2 / 12 = 35.2; at 9, 81 / 3 + 4 + 61.75 / 12 = 36.1;
    # none at all, 121 / 4 + 121 / 12 = 40.3. Above 7, the mean is 10.
    objective, _ = fitted(ErrorAdaptive, [0.0, 7.0, 7.0, 9.0, 11.0], num_buckets=3)
    assert objective.thresholds.tolist() == [0.0, 7.0]
    assert objective.widths.tolist() == [7.0, 3.0]


def test_error_adaptive_loss_is_cross_entropy_huber_and_rises():
    # Probabilities 1/2, 1/4, 3/4 rise by 1/2 and restore 30 s. 30 s pass the first two: -ln(1/2 · 1/4 · 1/4) / 3 and
    # no Huber loss; 50 s pass all: -ln(1/2 · 1/4 · 3/4) / 3, and two deviations off: 2 - 1/2.
    outputs = logits_of(0.5, 0.25, 0.75)
    for watched, expected in (
        (30.0, -math.log(1 / 32) / 3 + 0.5),
        (50.0, -math.log(3 / 32) / 3 + 0.5 + 1.5),
    ):
        loss = by_hand().loss(outputs, outcomes_of(torch.tensor([watched], dtype=torch.float64)))
        assert loss.item() == pytest.approx(expected)


def test_error_adaptive_thresholds_left_over_teach_nothing_and_stand_for_nothing():
    objective, _ = fitted(ErrorAdaptive, [0.0, 7.0, 7.0, 9.0], num_buckets=8)
    assert objective.thresholds.tolist() == [0.0, 7.0, *[math.inf] * 5]
    assert objective.widths.tolist() == [7.0, 2.0, *[0.0] * 5]
    some, others = logits_of(0.5, 0.25, *[0.1] * 5), logits_of(0.5, 0.25, 0.3, 0.5, 0.7, 0.9, 0.9)
    outcomes = outcomes_of(torch.tensor([7.0], dtype=torch.float64))
    assert objective.loss(some, outcomes).item() == objective.loss(others, outcomes).item()
    assert seconds_of(objective, others) == pytest.approx(4.0)


def test_every_probability_adds_to_what_is_restored():
    objective, start = fitted(ErrorAdaptive, SAMPLE)
    outputs = start[None].double().requires_grad_()
    objective.expected_watch_seconds(outputs, torch.tensor([math.nan])).sum().backward()
    assert (outputs.grad > 0).all()


def test_the_deviation_is_that_of_the_training_impressions():
    objective, _ = fitted(ErrorAdaptive, SAMPLE)
    assert objective.deviation.item() == pytest.approx(math.sqrt(469))


def test_the_least_error_adaptive_loss_is_near_the_true_frequencies():
    # The Huber loss pulls the sum, which takes each bucket at its upper end, down towards the true seconds.
    objective, _ = fitted(ErrorAdaptive, SAMPLE)
    probabilities = minimiser(objective, SAMPLE, rate=1.0)[0].sigmoid().tolist()
    truth = [np.mean(np.array(SAMPLE) > threshold) for threshold in objective.thresholds.tolist()]
    assert probabilities == pytest.approx(truth, abs=0.15)
    assert probabilities == sorted(probabilities, reverse=True)
