import math

import numpy as np
import pytest
import torch

from watchnext.config import RankingConfig
from watchnext.ranking.duration_quantiles import DurationQuantiles
from watchnext.ranking.objectives import Outcomes


def outcomes_of(watched, durations) -> Outcomes:
    watched = torch.as_tensor(watched, dtype=torch.float32)
    durations = torch.as_tensor(durations, dtype=torch.float32).expand(len(watched))
    clicked = watched > 0
    return Outcomes(watched, durations, clicked, clicked, clicked)


def fitted(outcomes: Outcomes) -> DurationQuantiles:
    objective = DurationQuantiles(RankingConfig())
    objective.fit(outcomes)
    return objective


def seconds_at(objective: DurationQuantiles, quantiles, durations) -> list[float]:
    outputs = torch.as_tensor(quantiles, dtype=torch.float32).logit()[:, None]
    durations = torch.as_tensor(durations, dtype=torch.float32).expand(len(outputs))
    return objective.expected_watch_seconds(outputs, durations).tolist()


ONE_GROUP = outcomes_of([0.0, 0.0, 0.0, 10.0, 20.0], 60.0)


def test_labels_are_the_share_of_shorter_watches_and_half_that_of_equal_ones():
    # Three at 0: 1.5 of 5; then 3.5 and 4.5 of 5.
    assert fitted(ONE_GROUP).labels(ONE_GROUP).tolist() == pytest.approx([0.3, 0.3, 0.3, 0.7, 0.9])


def test_labels_of_other_watches_lie_between_and_never_outside():
    others = outcomes_of([5.0, 15.0, 1e5], 60.0)
    assert fitted(ONE_GROUP).labels(others).tolist() == pytest.approx([0.5, 0.8, 0.9])


def test_the_seconds_at_a_quantile_are_the_watch_with_that_label():
    found = seconds_at(fitted(ONE_GROUP), [0.001, 0.3, 0.5, 0.7, 0.8, 0.9, 0.999], 60.0)
    assert found == pytest.approx([0.0, 0.0, 5.0, 10.0, 15.0, 20.0, 20.0], abs=1e-4)


def test_the_loss_is_the_mean_squared_error_of_the_quantile():
    # Half way, against 0.3 and 0.7.
    loss = fitted(ONE_GROUP).loss(torch.zeros(2, 1), outcomes_of([0.0, 10.0], 60.0))
    assert loss.item() == pytest.approx(0.04)


def test_the_best_quantile_of_all_impressions_is_a_half_and_the_start():
    objective = DurationQuantiles(RankingConfig())
    start = objective.fit(ONE_GROUP).requires_grad_()
    assert start.sigmoid().tolist() == [0.5]
    (slope,) = torch.autograd.grad(objective.loss(start.expand(5, 1), ONE_GROUP), start)
    assert slope.item() == pytest.approx(0.0, abs=1e-7)


def many() -> Outcomes:
    """Two thousand impressions of videos all of different lengths, watched in proportion to them."""
    random = np.random.default_rng(0)
    durations = random.permutation(np.linspace(10.0, 3_600.0, 2_000))
    return outcomes_of(durations * random.random(2_000), durations)


def test_groups_are_of_equal_size_and_rise_with_the_duration():
    outcomes = many()
    group = fitted(outcomes).groups(outcomes.duration_seconds)
    assert group.bincount().tolist() == [100] * 20
    assert (group[outcomes.duration_seconds.argsort()].diff() >= 0).all()


def test_fewer_durations_than_groups_have_one_each():
    durations = torch.tensor([10.0, 20.0, 30.0])
    group = fitted(outcomes_of([1.0, 2.0, 3.0], durations)).groups(torch.tensor([5.0, 10.0, 15.0, 20.0, 30.0, 1e4]))
    assert group[0] == group[1] < group[2] == group[3] < group[4]
    assert group[4] <= group[5] == 19


def test_labels_are_ranks_within_the_group():
    outcomes = many()
    objective = fitted(outcomes)
    labels, group = objective.labels(outcomes), objective.groups(outcomes.duration_seconds)
    for number in range(20):
        members = group == number
        ranks = outcomes.watch_seconds[members].argsort().argsort()
        assert labels[members].tolist() == pytest.approx(((ranks + 0.5) / 100).tolist(), abs=1e-5)


def test_labels_and_seconds_are_each_others_inverse():
    outcomes = many()
    objective = fitted(outcomes)
    back = seconds_at(objective, objective.labels(outcomes), outcomes.duration_seconds)
    assert back == pytest.approx(outcomes.watch_seconds.tolist(), rel=1e-3, abs=0.05)


def test_a_group_too_large_to_be_kept_whole_is_known_within_a_quantile_step():
    watched = np.random.default_rng(1).exponential(60.0, 5_000)
    outcomes = outcomes_of(watched, 60.0)
    objective = fitted(outcomes)
    labels = objective.labels(outcomes)
    ranks = (watched.argsort().argsort() + 0.5) / 5_000
    assert labels.tolist() == pytest.approx(ranks.tolist(), abs=1 / 256)
    back = np.array(seconds_at(objective, labels, 60.0))
    assert np.abs((watched[:, None] < back[::50]).mean(axis=0) - ranks[::50]).max() < 1 / 256


def test_watches_of_the_same_rank_have_the_same_label_however_long_their_videos():
    short = np.random.default_rng(2).exponential(10.0, 40)
    outcomes = outcomes_of(np.concatenate([short, 30.0 * short]), np.repeat([30.0, 900.0], 40))
    objective = fitted(outcomes)
    labels = objective.labels(outcomes)
    assert labels[:40].tolist() == pytest.approx(labels[40:].tolist(), abs=1e-5)
    brief, long = seconds_at(objective, [0.6, 0.6], [30.0, 900.0])
    assert long == pytest.approx(30.0 * brief, rel=1e-4)


def test_unknown_durations_are_a_group_of_their_own():
    # Known: 100 s and 200 s; unknown: 1 s and 3 s.
    objective = fitted(outcomes_of([100.0, 200.0, 1.0, 3.0], [60.0, 60.0, math.nan, math.nan]))
    assert seconds_at(objective, [0.5, 0.5], [60.0, math.nan]) == pytest.approx([150.0, 2.0])


def test_a_group_without_examples_has_the_distribution_of_all():
    # All four: levels 1/8, 3/8, 5/8, 7/8.
    objective = fitted(outcomes_of([1.0, 2.0, 4.0, 8.0], [30.0, 30.0, 60.0, 60.0]))
    assert seconds_at(objective, [0.5, 0.875], math.nan) == pytest.approx([3.0, 8.0])
    assert seconds_at(objective, [0.5], 30.0) == pytest.approx([1.5])
    assert seconds_at(objective, [0.5], 60.0) == pytest.approx([6.0])
