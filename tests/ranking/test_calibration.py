import numpy as np
import pytest
import torch

from watchnext.ranking.calibration import Calibration


def told(calibration: Calibration, order, mean) -> np.ndarray:
    with torch.no_grad():
        return calibration(
            torch.as_tensor(order, dtype=torch.float32), torch.as_tensor(mean, dtype=torch.float32)
        ).numpy()


def test_as_made_it_takes_the_mean():
    np.testing.assert_array_equal(told(Calibration(), [1.0, 2.0], [10.0, 30.0]), [10.0, 30.0])


def test_few_impressions_give_the_scale_alone():
    # 90 s watched where 60 s were predicted.
    calibration = Calibration()
    calibration.fit(np.array([3.0, 1.0]), np.array([20.0, 40.0]), np.array([50.0, 40.0]))
    np.testing.assert_allclose(told(calibration, [3.0, 1.0], [20.0, 40.0]), [30.0, 60.0])


@pytest.mark.parametrize("rows", [0, 5])
def test_nothing_predicted_changes_nothing(rows):
    calibration = Calibration()
    calibration.fit(np.zeros(rows), np.zeros(rows), np.ones(rows))
    np.testing.assert_array_equal(told(calibration, [1.0], [10.0]), [10.0])


def test_the_formula_worked_by_hand():
    """Order 0 to 5 in six equal groups, whose watch times are 0, 10, ..., 50 s; the mean says 7 everywhere."""
    order = np.repeat(np.arange(6.0), 200)
    watched = order * 10.0
    calibration = Calibration()
    calibration.fit(order, np.full(1200, 7.0), watched)
    calibration.log_ratio.zero_()  # the mixture alone
    # r of the values 0 .. 5 is the quantile that is reached last, by the interpolated distribution.
    at = np.array([0.5, 2.5, 4.5])
    found = told(calibration, at, np.full(3, 7.0))
    level = np.interp(at, np.quantile(order, np.linspace(0, 1, 257)), np.linspace(0, 1, 257))
    # The sixths have their means in their middles, and lines between.
    curve = np.interp(level, (np.arange(6) + 0.5) / 6, np.arange(6) * 10.0)
    by_hand = (1 - level**2) * curve + level**2 * 25.0
    np.testing.assert_allclose(found / by_hand, found[0] / by_hand[0], rtol=1e-3)
    assert told(calibration, order, np.full(1200, 7.0)).sum() == pytest.approx(watched.sum(), rel=1e-4)


def test_what_mends_the_mixture_worked_by_hand():
    """Knots at 1 and e seconds, mended by 2 and by 1: between them, straight in logarithms; outside, as at the end."""
    calibration = Calibration()
    calibration.has_curve.fill_(True)
    calibration.log_mixed.copy_(torch.arange(6.0))
    calibration.log_ratio.copy_(torch.tensor([np.log(2.0), 0.0, 0.0, 0.0, 0.0, 0.0]))
    top = np.full(4, 9.0)  # of all orders, so that the mixture is the mean
    found = told(calibration, top, [0.5, 1.0, np.exp(0.5), 100.0])
    np.testing.assert_allclose(found, [1.0, 2.0, np.exp(0.5) * np.sqrt(2.0), 100.0], rtol=3e-3)


def world(rows: int = 40_000, seed: int = 1):
    """What impressions are truly worth, a distorted order of it, a noisy mean, and what was watched."""
    random = np.random.default_rng(seed)
    truth = random.gamma(2.0, 10.0, rows)
    return truth, np.log(truth), truth * 0.5, random.exponential(truth)


def test_a_distorted_order_becomes_seconds():
    _truth, order, mean, watched = world()
    calibration = Calibration()
    calibration.fit(order, mean, watched)
    fresh_truth, fresh_order, fresh_mean, _ = world(seed=2)
    found = told(calibration, fresh_order, fresh_mean)
    for part in np.array_split(np.argsort(fresh_truth), 10):
        assert found[part].mean() == pytest.approx(fresh_truth[part].mean(), rel=0.06)


def test_tenths_of_the_prediction_are_right_where_order_and_mean_differ():
    """Both know half of the truth: what the one adds to the other's level is not the mean given both."""
    truth, order, _, watched = world(200_000)
    noise = np.random.default_rng(9).normal(0.0, 0.7, (2, len(truth)))
    order, mean = order + noise[0], truth * np.exp(noise[1])
    calibration = Calibration()
    calibration.fit(order[::2], mean[::2], watched[::2])
    found, truth = told(calibration, order[1::2], mean[1::2]), truth[1::2]
    for part in np.array_split(np.argsort(found), 10):
        assert found[part].mean() == pytest.approx(truth[part].mean(), rel=0.08)


def test_a_fifth_that_watched_nothing_is_not_mended():
    order = np.arange(5000.0)
    calibration = Calibration()
    calibration.fit(order, np.ones(5000), np.maximum(order - 2000.0, 0.0))
    assert not calibration.log_ratio.any()
    assert np.isfinite(told(calibration, order, np.ones(5000))).all()


def test_an_order_that_says_nothing_leaves_the_mean_of_everything():
    truth, _, _, watched = world()
    random = np.random.default_rng(5)
    calibration = Calibration()
    calibration.fit(random.normal(size=len(truth)), np.full(len(truth), 5.0), watched)
    found = told(calibration, random.normal(size=1000), np.full(1000, 5.0))
    np.testing.assert_allclose(found, watched.mean(), rtol=0.12)


def test_the_order_survives_where_the_curve_is_flat():
    """Watch times that fall with the order make one flat step of it; a slight slope still tells candidates apart."""
    order = np.arange(2000.0)
    calibration = Calibration()
    calibration.fit(order, np.ones(2000), 2000.0 - order)
    found = told(calibration, [100.0, 900.0, 1500.0], np.full(3, 1.0))
    assert found[0] < found[1] < found[2]
    assert found[2] == pytest.approx(found[0], rel=0.01)


def test_values_beyond_all_that_was_fitted_stay_finite():
    _, order, mean, watched = world(5000)
    calibration = Calibration()
    calibration.fit(order, mean, watched)
    assert np.isfinite(told(calibration, [-1e30, 1e30], [0.0, 1e4])).all()
    assert told(calibration, [1e30], [1e4])[0] > told(calibration, [1e30], [1e3])[0]


def test_all_orders_equal_stay_finite():
    calibration = Calibration()
    calibration.fit(np.ones(5000), np.ones(5000), np.full(5000, 8.0))
    assert told(calibration, [0.0, 1.0, 2.0], [1.0, 1.0, 1.0]) == pytest.approx([8.0, 8.0, 8.0], rel=0.01)


def test_another_network_brings_its_own_level_and_keeps_the_curve():
    """The same order and mean, but the one shifted and stretched and the other a fifth too low."""
    _, order, mean, watched = world()
    calibration, other = Calibration(), Calibration()
    calibration.fit(order, mean, watched)
    other.load_state_dict(calibration.state_dict())
    other.adopt(3.0 * order - 7.0, 0.8 * mean, watched)
    np.testing.assert_allclose(told(other, 3.0 * order - 7.0, 0.8 * mean), told(calibration, order, mean), rtol=5e-3)
    assert told(other, order, mean).sum() != pytest.approx(watched.sum(), rel=0.05)


@pytest.mark.parametrize("rows", [50, 5000])
def test_the_level_of_another_network_is_made_right_in_the_sum(rows):
    _, order, mean, watched = world(rows)
    calibration = Calibration()
    calibration.fit(order, mean, watched)
    calibration.adopt(order + 1.0, mean, 2.0 * watched)
    assert told(calibration, order + 1.0, mean).sum() == pytest.approx(2.0 * watched.sum(), rel=1e-4)


def test_it_is_saved_with_the_network():
    _, order, mean, watched = world(5000)
    calibration, other = Calibration(), Calibration()
    calibration.fit(order, mean, watched)
    other.load_state_dict(calibration.state_dict())
    np.testing.assert_array_equal(told(other, order, mean), told(calibration, order, mean))
