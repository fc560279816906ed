import numpy as np
import pytest

from watchnext.config import EvaluationConfig
from watchnext.evaluation.predictions import baseline_predictions, score_predictions

CONFIG = EvaluationConfig(bootstrap_draws=20)


def test_baselines_are_those_worked_by_hand(make_impressions):
    past = make_impressions([1, 1, 2, 2], [3, 3, 4, 4], [30.0, 60.0, 0.0, 30.0])
    truth = make_impressions([5, 5, 5], [4, 3, 9], [1.0, 2.0, 3.0])
    predictions = baseline_predictions(past, truth)
    # Everybody's mean is 30 s and counts as ten impressions of each video:
    # video 4 (30 + 300) / 12 = 27.5; video 3 (90 + 300) / 12 = 32.5; video 9 is unknown.
    np.testing.assert_allclose(predictions["per-video mean"], [27.5, 32.5, 30.0])
    np.testing.assert_allclose(predictions["global mean"], [30.0, 30.0, 30.0])


def test_baselines_do_not_see_what_they_predict(make_impressions):
    past = make_impressions([1, 1], [3, 4], [30.0, 60.0])
    one, other = (make_impressions([1, 1], [3, 4], seconds) for seconds in ([0.0, 1.0], [500.0, 2.0]))
    for name, predicted in baseline_predictions(past, one).items():
        np.testing.assert_array_equal(predicted, baseline_predictions(past, other)[name])


def test_figures_are_those_worked_by_hand(make_impressions):
    # User 1: 20 s completed against 4 s, predicted the wrong way round; user 2: 60 s against 0 s, the right way.
    truth = make_impressions([1, 1, 2, 2], [3, 4, 3, 4], [20.0, 4.0, 60.0, 0.0])
    predicted = np.array([10.0, 12.0, 50.0, 2.0])
    scores = score_predictions({"ours": predicted}, truth, CONFIG)["ours"]
    assert scores["weighted_loss"].value == pytest.approx(20 / 80)
    assert scores["xauc_within_users"].value == pytest.approx(1 / 2)
    assert scores["mae_seconds"] == pytest.approx((10 + 8 + 10 + 2) / 4)
    assert scores["rmse_seconds"] == pytest.approx(np.sqrt((100 + 64 + 100 + 4) / 4))
    assert scores["sum_ratio"] == pytest.approx(74 / 84)
    # Four impressions are four bins, each off by its own error: 30 of 84 s.
    assert scores["calibration_error"] == pytest.approx(30 / 84)
    # Of the six pairs of different watch times only 20 s against 4 s is reversed.
    assert scores["xauc"] == pytest.approx(5 / 6, abs=0.005)


def test_the_loss_is_of_pairs_on_one_page(make_impressions):
    # On one page 20 s are reversed, on the other nothing is; of all four pairs of the user it would be 20 of 160 s.
    truth = make_impressions([1, 1, 1, 1], [3, 4, 5, 6], [20.0, 4.0, 60.0, 1.0], [7, 7, 8, 8])
    loss = score_predictions({"ours": np.array([1.0, 2.0, 4.0, 0.5])}, truth, CONFIG)["ours"]["weighted_loss"]
    assert loss.value == pytest.approx(20 / 80)


def test_every_predictor_is_scored(make_impressions):
    truth = make_impressions([1, 1], [3, 4], [20.0, 4.0])
    scores = score_predictions({"right": np.array([2.0, 1.0]), "wrong": np.array([1.0, 2.0])}, truth, CONFIG)
    assert scores["right"]["weighted_loss"].value == 0.0
    assert scores["wrong"]["weighted_loss"].value == 1.0
