import numpy as np
import torch

from watchnext.retrieval.sampling import EveryVideo, FrequencySampler, Sampler


def drawn(counts: list[int], power: float, num_samples: int = 200_000) -> np.ndarray:
    sampler = FrequencySampler(torch.tensor(counts), num_samples, power)
    rows = sampler.sample(torch.Generator().manual_seed(0)).rows
    return np.bincount(rows.numpy(), minlength=len(counts))


def chi_square(observed: np.ndarray, shares: np.ndarray) -> float:
    expected = shares / shares.sum() * observed.sum()
    return float((np.square(observed - expected) / expected).sum())


def test_videos_are_drawn_as_often_as_their_smoothed_count_to_the_power():
    # 4 videos, 3 degrees of freedom: a right sampler exceeds 25 once in 60,000 seeds.
    observed = drawn([0, 0, 3, 15, 80], power=0.75)
    assert chi_square(observed[1:], np.array([1.0, 4.0, 16.0, 81.0]) ** 0.75) < 25
    assert chi_square(observed[1:], np.array([1.0, 4.0, 16.0, 81.0])) > 1000


def test_power_zero_draws_uniformly():
    assert chi_square(drawn([0, 0, 3, 15, 80], power=0.0)[1:], np.ones(4)) < 25


def test_row_0_is_never_drawn_however_often_it_was_watched():
    assert drawn([1_000_000, 0, 1], power=1.0)[0] == 0


def test_log_expected_count_is_exact_for_a_rare_video_beside_a_hugely_popular_one():
    # Weights 900,000,000 and a million times 100: q = 0.9 and 1e-7; of 5,000 draws 4,500 and 0.0005 are expected.
    counts = torch.full((1_000_002,), 99)
    counts[1] = 899_999_999
    sampled = FrequencySampler(counts, 5_000, power=1.0).sample(torch.Generator().manual_seed(0))
    popular = sampled.rows == 1
    assert 400 < int((~popular).sum()) < 600
    np.testing.assert_allclose(sampled.log_expected_counts[popular], np.log(4_500.0), rtol=1e-6)
    np.testing.assert_allclose(sampled.log_expected_counts[~popular], np.log(0.0005), rtol=1e-6)
    # Drawn evenly: the middle of the tail halves the draws (standard deviation 11).
    assert abs(int((sampled.rows[~popular] > 500_001).sum()) - int((~popular).sum()) / 2) < 60


def test_expected_counts_are_those_of_the_draws():
    sampled = FrequencySampler(torch.tensor([0, 0, 3, 15]), 10_000, 1.0).sample(torch.Generator().manual_seed(1))
    # Weights 1, 4, 16 of 21: 476.19, 1904.76 and 7619.05 of 10,000.
    by_row = dict(zip(sampled.rows.tolist(), sampled.log_expected_counts.exp().tolist(), strict=True))
    np.testing.assert_allclose([by_row[row] for row in (1, 2, 3)], [476.19, 1904.76, 7619.05], rtol=1e-4)


def test_the_same_seed_draws_the_same():
    sampler = FrequencySampler(torch.arange(100), 50, 0.75)
    first, again, other = (sampler.sample(torch.Generator().manual_seed(seed)).rows for seed in (3, 3, 4))
    assert first.equal(again) and not first.equal(other)


def test_every_video_comes_once_and_certainly():
    sampled = EveryVideo(5).sample(torch.Generator())
    assert sampled.rows.tolist() == [1, 2, 3, 4]
    assert sampled.log_expected_counts.exp().tolist() == [1.0, 1.0, 1.0, 1.0]


def test_both_are_samplers():
    assert isinstance(EveryVideo(3), Sampler)
    assert isinstance(FrequencySampler(torch.tensor([0, 5, 1]), 1, 0.0), Sampler)
