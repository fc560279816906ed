import math

import pytest
import torch

from watchnext.ranking.loss import watch_time_loss

LOGITS, WATCHED, CLICKED = torch.tensor([0.0, math.log(3.0)]), torch.tensor([20.0, 0.0]), torch.tensor([True, False])


def gradient_at(odds: float, watched: torch.Tensor, clicked: torch.Tensor, unit: float, negatives: str) -> float:
    """The slope of the loss of one logit for everything."""
    logit = torch.tensor(math.log(odds), dtype=torch.float64, requires_grad=True)
    watch_time_loss(logit.expand(len(watched)), watched.double(), clicked, unit, negatives).backward()
    return logit.grad.item()


def test_with_all_negatives_the_loss_is_the_one_worked_by_hand():
    # A click of 20 s is 2 units: 2·ln 2 as a positive, ln 2 as a negative: 2.0794. The other: ln(1 + 3) = 1.3863.
    loss = watch_time_loss(LOGITS, WATCHED, CLICKED, 10.0, "all")
    assert loss.item() == pytest.approx((2.0794 + 1.3863) / 2, abs=1e-4)


def test_with_unclicked_negatives_the_loss_is_the_one_worked_by_hand():
    # The click is a positive only: 2·ln 2 = 1.3863.
    loss = watch_time_loss(LOGITS, WATCHED, CLICKED, 10.0, "unclicked")
    assert loss.item() == pytest.approx((1.3863 + 1.3863) / 2, abs=1e-4)


def test_an_unclicked_impression_counts_no_watch_time_in_the_papers_loss():
    without = watch_time_loss(LOGITS, WATCHED, CLICKED, 10.0, "unclicked")
    with_some = watch_time_loss(LOGITS, torch.tensor([20.0, 50.0]), CLICKED, 10.0, "unclicked")
    assert with_some.item() == without.item()


MANY_WATCHED = torch.tensor([30.0, 90.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
MANY_CLICKED = MANY_WATCHED > 0


def test_with_all_negatives_the_best_odds_are_the_mean_watch_time():
    # 120 s in 8 impressions are 15 s, 1.5 units of 10 s.
    assert gradient_at(1.5, MANY_WATCHED, MANY_CLICKED, 10.0, "all") == pytest.approx(0.0, abs=1e-12)
    assert gradient_at(1.4, MANY_WATCHED, MANY_CLICKED, 10.0, "all") < -0.01
    assert gradient_at(1.6, MANY_WATCHED, MANY_CLICKED, 10.0, "all") > 0.01


def test_with_unclicked_negatives_the_best_odds_are_the_papers():
    # ΣT / (N - k) = 12 units / (8 - 2) = 2.
    assert gradient_at(2.0, MANY_WATCHED, MANY_CLICKED, 10.0, "unclicked") == pytest.approx(0.0, abs=1e-12)
    assert gradient_at(1.9, MANY_WATCHED, MANY_CLICKED, 10.0, "unclicked") < -0.01
    assert gradient_at(2.1, MANY_WATCHED, MANY_CLICKED, 10.0, "unclicked") > 0.01


@pytest.mark.parametrize("negatives", ["all", "unclicked"])
def test_extreme_logits_stay_finite(negatives):
    logits = torch.tensor([1e4, -1e4, 1e4, -1e4], requires_grad=True)
    watched, clicked = torch.tensor([10.0, 10.0, 0.0, 0.0]), torch.tensor([True, True, False, False])
    loss = watch_time_loss(logits, watched, clicked, 10.0, negatives)
    loss.backward()
    assert math.isfinite(loss.item())
    assert logits.grad.isfinite().all()
