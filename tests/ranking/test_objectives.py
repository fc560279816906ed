import math

import pytest
import torch

from watchnext.config import RankingConfig
from watchnext.ranking.kinds import objective_of
from watchnext.ranking.objectives import LogSquared, Outcomes, Tweedie, WeightedLogistic

NAMES = ("weighted_logistic", "tweedie", "log_squared", "ordinal", "tree", "error_adaptive", "duration_quantiles")


def outcomes_of(watched, durations=None, clicked=None) -> Outcomes:
    """What came of impressions; all videos are a minute long and what was watched was clicked unless said."""
    watched = torch.as_tensor(watched)
    durations = torch.full_like(watched, 60.0) if durations is None else torch.as_tensor(durations)
    clicked = watched > 0 if clicked is None else torch.as_tensor(clicked)
    return Outcomes(watched, durations, clicked, clicked, clicked)


def predicted(objective, outputs) -> torch.Tensor:
    return objective.expected_watch_seconds(outputs, torch.full((len(outputs),), math.nan))


# Weighted logistic regression

LOGITS = torch.tensor([[0.0], [math.log(3.0)]])
WATCHED, CLICKED = [20.0, 0.0], [True, False]


def weighted_logistic(unit: float = 10.0, **changes) -> WeightedLogistic:
    return WeightedLogistic(RankingConfig(watch_unit_seconds=unit, **changes))


def gradient_at(odds: float, watched: torch.Tensor, negatives: str) -> float:
    """The slope of the loss of one logit for everything."""
    logit = torch.tensor([math.log(odds)], dtype=torch.float64, requires_grad=True)
    outcomes = outcomes_of(watched.double())
    weighted_logistic(negatives=negatives).loss(logit.expand(len(watched), 1), outcomes).backward()
    return logit.grad.item()


def test_with_all_negatives_the_loss_is_the_one_worked_by_hand():
    # A click of 20 s is 2 units: 2·ln 2 as a positive, ln 2 as a negative: 2.0794. The other: ln(1 + 3) = 1.3863.
    loss = weighted_logistic(negatives="all").loss(LOGITS, outcomes_of(WATCHED, clicked=CLICKED))
    assert loss.item() == pytest.approx((2.0794 + 1.3863) / 2, abs=1e-4)


def test_with_unclicked_negatives_the_loss_is_the_one_worked_by_hand():
    # The click is a positive only: 2·ln 2 = 1.3863.
    loss = weighted_logistic(negatives="unclicked").loss(LOGITS, outcomes_of(WATCHED, clicked=CLICKED))
    assert loss.item() == pytest.approx((1.3863 + 1.3863) / 2, abs=1e-4)


def test_with_equal_weights_a_click_weighs_one_however_long_it_was():
    # The click: ln 2 as a positive and ln 2 as a negative. The other, a negative only: ln 4, watched or not.
    for watched in ([20.0, 0.0], [500.0, 7.0]):
        loss = weighted_logistic(weights="equal").loss(LOGITS, outcomes_of(watched, clicked=CLICKED))
        assert loss.item() == pytest.approx((2 * math.log(2) + math.log(4)) / 2, abs=1e-6)


def test_an_unclicked_impression_counts_no_watch_time_in_the_papers_loss():
    objective = weighted_logistic(negatives="unclicked")
    without = objective.loss(LOGITS, outcomes_of(WATCHED, clicked=CLICKED))
    with_some = objective.loss(LOGITS, outcomes_of([20.0, 50.0], clicked=CLICKED))
    assert with_some.item() == without.item()


MANY_WATCHED = torch.tensor([30.0, 90.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])


def test_with_all_negatives_the_best_odds_are_the_mean_watch_time():
    # 120 s in 8 impressions are 15 s, 1.5 units of 10 s.
    assert gradient_at(1.5, MANY_WATCHED, "all") == pytest.approx(0.0, abs=1e-12)
    assert gradient_at(1.4, MANY_WATCHED, "all") < -0.01
    assert gradient_at(1.6, MANY_WATCHED, "all") > 0.01


def test_with_unclicked_negatives_the_best_odds_are_the_papers():
    # ΣT / (N - k) = 12 units / (8 - 2) = 2.
    assert gradient_at(2.0, MANY_WATCHED, "unclicked") == pytest.approx(0.0, abs=1e-12)
    assert gradient_at(1.9, MANY_WATCHED, "unclicked") < -0.01
    assert gradient_at(2.1, MANY_WATCHED, "unclicked") > 0.01


def test_weighted_logistic_starts_at_the_best_odds_of_all_impressions_together():
    start = weighted_logistic().fit(outcomes_of(MANY_WATCHED))
    assert start.exp().tolist() == pytest.approx([1.5], rel=1e-5)
    paper = weighted_logistic(negatives="unclicked").fit(outcomes_of(MANY_WATCHED))
    assert paper.exp().tolist() == pytest.approx([2.0], rel=1e-5)


def test_the_odds_are_seconds_in_units():
    assert predicted(weighted_logistic(unit=10.0), LOGITS).tolist() == pytest.approx([10.0, 30.0])


# Tweedie


def tweedie_deviance(watched: float, mean: float, power: float) -> float:
    """Jørgensen's unit deviance, for powers between 1 and 2."""
    full = watched ** (2 - power) / ((1 - power) * (2 - power))
    return 2 * (full - watched * mean ** (1 - power) / (1 - power) + mean ** (2 - power) / (2 - power))


def tweedie_loss(watched: float, mean: float) -> float:
    objective = Tweedie(RankingConfig(watch_unit_seconds=1.0))
    output = torch.tensor([[mean]], dtype=torch.float64).log()
    return objective.loss(output, outcomes_of(torch.tensor([watched], dtype=torch.float64))).item()


@pytest.mark.parametrize("watched", [0.0, 0.3, 4.0, 900.0])
def test_tweedie_is_half_the_deviance_of_power_one_and_a_half_but_for_a_constant(watched):
    constant = tweedie_loss(watched, 1.0) - tweedie_deviance(watched, 1.0, 1.5) / 2
    for mean in (0.01, 2.5, 80.0):
        expected = tweedie_deviance(watched, mean, 1.5) / 2 + constant
        assert tweedie_loss(watched, mean) == pytest.approx(expected, rel=1e-9)


def test_tweedie_has_the_gradient_of_lightgbm():
    # LightGBM: gradient = -label·exp((1 - rho)·score) + exp((2 - rho)·score), rho = 1.5. At label 3 and score ln 4:
    # -3 / 2 + 2 = 0.5.
    output = torch.tensor([[math.log(4.0)]], requires_grad=True)
    Tweedie(RankingConfig(watch_unit_seconds=10.0)).loss(output, outcomes_of([30.0])).backward()
    assert output.grad.item() == pytest.approx(0.5, abs=1e-6)


def test_tweedie_is_least_at_the_mean_and_starts_there():
    # 15 s, 1.5 units.
    objective = Tweedie(RankingConfig(watch_unit_seconds=10.0))
    output = torch.tensor([[math.log(1.5)]], dtype=torch.float64, requires_grad=True)
    objective.loss(output.expand(8, 1), outcomes_of(MANY_WATCHED.double())).backward()
    assert output.grad.item() == pytest.approx(0.0, abs=1e-12)
    start = objective.fit(outcomes_of(MANY_WATCHED))
    assert start.tolist() == pytest.approx([math.log(1.5)], abs=1e-5)
    assert predicted(objective, start[None]).tolist() == pytest.approx([15.0], rel=1e-4)


# Squared error of the logarithm


def test_the_squared_error_of_logarithms_is_the_one_worked_by_hand():
    # ln(1 + 0) = 0 and ln(1 + e² - 1) = 2, against 1 and 1: half the mean of 1 and 1.
    loss = LogSquared(RankingConfig()).loss(torch.ones(2, 1), outcomes_of([0.0, math.exp(2) - 1]))
    assert loss.item() == pytest.approx(0.5, abs=1e-6)


def test_the_squared_error_of_logarithms_starts_at_their_mean_which_is_no_mean_of_seconds():
    # (0 + ln 100) / 2 = ln 10: 9 s, where the mean is 49.5 s.
    objective = LogSquared(RankingConfig())
    start = objective.fit(outcomes_of([0.0, 99.0]))
    assert start.tolist() == pytest.approx([math.log(10)], abs=1e-6)
    assert predicted(objective, start[None]).tolist() == pytest.approx([9.0], abs=1e-4)


def test_a_logarithm_below_zero_is_no_time_at_all():
    assert predicted(LogSquared(RankingConfig()), torch.tensor([[-2.0]])).tolist() == [0.0]


# All of them

NOBODY_KNOWS = [math.nan] * 6
HARD = {
    "all equal": outcomes_of([30.0] * 6),
    "all zero": outcomes_of([0.0] * 6),
    "one impression": outcomes_of([12.0]),
    "one unwatched impression": outcomes_of([0.0]),
    "unknown durations": outcomes_of([0.0, 3.0, 3.0, 9.0, 27.0, 81.0], NOBODY_KNOWS),
    "some unknown durations": outcomes_of([0.0, 3.0, 3.0, 9.0, 27.0, 81.0], [math.nan, 5.0, 5.0, 90.0, 90.0, math.nan]),
    "a whole day": outcomes_of([0.0, 0.0, 1.0, 2.0, 86_400.0, 86_400.0]),
    "many duplicates": outcomes_of([0.0, 5.0, 5.0, 5.0, 5.0, 60.0]),
    "nothing unwatched": outcomes_of([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
    "nearly nothing": outcomes_of([0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2]),
}
LATER = outcomes_of([0.0, 1e-9, 30.0, 1e5], [1.0, math.nan, 7_200.0, 0.0])


@pytest.fixture(params=NAMES)
def name(request) -> str:
    return request.param


@pytest.fixture
def objective(name):
    return objective_of(name, RankingConfig(num_buckets=8))


@pytest.mark.parametrize("buckets", [2, 4, 1024])
def test_few_and_many_buckets_are_learnt_alike(name, buckets):
    objective = objective_of(name, RankingConfig(num_buckets=buckets))
    start = objective.fit(HARD["some unknown durations"])
    assert start.shape == (objective.num_outputs,)
    assert objective.loss(start.expand(4, -1), LATER).isfinite()


@pytest.mark.parametrize("kind", HARD)
def test_no_sample_breaks_an_objective(objective, kind):
    start = objective.fit(HARD[kind]).requires_grad_()
    assert start.shape == (objective.num_outputs,)
    assert all(buffer.isnan().sum() == 0 for buffer in objective.buffers())
    for outcomes in (HARD[kind], LATER):
        outputs = start.expand(len(outcomes.watch_seconds), -1)
        loss = objective.loss(outputs, outcomes)
        (gradient,) = torch.autograd.grad(loss, start)
        assert loss.isfinite()
        assert gradient.isfinite().all()
        for meaning in (objective.expected_watch_seconds, objective.order):
            told = meaning(outputs, outcomes.duration_seconds)
            assert told.shape == outcomes.watch_seconds.shape
            assert told.isfinite().all()
        assert (objective.expected_watch_seconds(outputs, outcomes.duration_seconds) >= 0).all()


@pytest.mark.parametrize("kind", HARD)
def test_extreme_outputs_stay_finite(name, objective, kind):
    objective.fit(HARD[kind])
    rows, extreme = len(LATER.watch_seconds), 1e4
    alternating = extreme * (-1.0) ** torch.arange(objective.num_outputs)
    for values in (torch.tensor(extreme), torch.tensor(-extreme), alternating, -alternating):
        outputs = values.expand(rows, objective.num_outputs).clone().requires_grad_()
        loss = objective.loss(outputs, LATER)
        loss.backward()
        assert loss.isfinite()
        assert outputs.grad.isfinite().all()


def mixed() -> Outcomes:
    """Impressions of two kinds of rows, in turn: short watches and long ones, and some of both unwatched."""
    random = torch.Generator().manual_seed(0)
    watched = 10.0 * torch.empty(400).exponential_(generator=random)
    watched[1::2] *= 6.0
    watched[torch.rand(400, generator=random) < 0.3] = 0.0
    return outcomes_of(watched, torch.empty(400).uniform_(10.0, 600.0, generator=random))


def learnt(objective, outcomes, kinds: int = 2, steps: int = 300, rate: float = 0.05) -> torch.Tensor:
    """Free outputs for each kind of row, trained."""
    outputs = objective.fit(outcomes).repeat(kinds, 1).requires_grad_()
    optimiser = torch.optim.Adam([outputs], rate)
    for _ in range(steps):
        optimiser.zero_grad()
        objective.loss(outputs.repeat(len(outcomes.watch_seconds) // kinds, 1), outcomes).backward()
        optimiser.step()
    return outputs.detach()


def test_every_objective_learns_which_impressions_are_watched_longer(objective):
    outcomes = mixed()
    start = objective.fit(outcomes).expand(400, -1)
    outputs = learnt(objective, outcomes)
    assert objective.loss(outputs.repeat(200, 1), outcomes) < objective.loss(start, outcomes)
    durations = torch.full((2,), 60.0)
    short, long = objective.expected_watch_seconds(outputs, durations).tolist()
    assert long > 1.5 * short
    first, second = objective.order(outputs, durations).tolist()
    assert second > first


def test_what_is_fitted_is_saved_with_the_weights(name, objective):
    outcomes = mixed()
    start = objective.fit(outcomes)
    outputs = start + torch.linspace(-1.0, 1.0, 5)[:, None]
    fresh = objective_of(name, RankingConfig(num_buckets=8))
    fresh.load_state_dict(objective.state_dict())
    durations = torch.tensor([1.0, 60.0, 600.0, math.nan, 0.0])
    for meaning in ("expected_watch_seconds", "order"):
        assert torch.equal(getattr(fresh, meaning)(outputs, durations), getattr(objective, meaning)(outputs, durations))
    part = Outcomes(*(column[:5] for column in vars(outcomes).values()))
    assert torch.equal(fresh.loss(outputs, part), objective.loss(outputs, part))


def test_a_batch_is_the_mean_of_its_rows(objective):
    outcomes = mixed()
    noise = torch.randn(400, objective.num_outputs, generator=torch.Generator().manual_seed(1))
    outputs = objective.fit(outcomes) + noise
    rows = [
        objective.loss(outputs[row : row + 1], Outcomes(*(column[row : row + 1] for column in vars(outcomes).values())))
        for row in range(400)
    ]
    assert objective.loss(outputs, outcomes).item() == pytest.approx(torch.stack(rows).mean().item(), rel=1e-5)


@pytest.mark.parametrize("name", ["ordinal", "tree", "error_adaptive", "duration_quantiles"], indirect=True)
def test_outputs_of_half_precision_mean_seconds_of_full_precision(objective):
    outcomes = mixed()
    outputs = objective.fit(outcomes).expand(400, -1).bfloat16()
    for meaning in (objective.expected_watch_seconds, objective.order):
        told = meaning(outputs, outcomes.duration_seconds)
        assert torch.equal(told, meaning(outputs.float(), outcomes.duration_seconds))
