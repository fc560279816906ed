"""The compiled pass over bfloat16 logits against PyTorch's own exponentials, and at the ends of the range."""

import math

import pytest
import torch

from watchnext.layers.exponentials import exponentiate


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (64, 5120), (0, 4)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_exponentials_and_their_sums(shape, dtype):
    logits = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 15).to(dtype)
    expected = logits.double().exp()
    sums = exponentiate(logits)
    # A bfloat16 has 8 significant bits: half a unit in the last place is 2 ** -9.
    torch.testing.assert_close(logits.double(), expected, rtol=2**-8 if dtype == torch.bfloat16 else 1e-6, atol=0)
    assert sums.dtype == torch.float32
    torch.testing.assert_close(sums.double(), logits.double().sum(dim=1), rtol=1e-5, atol=0)


def test_nearly_all_are_rounded_as_the_exact_value_would_be():
    """Every bfloat16 between -87 and 88: a bias of the series would show as many that are one unit off."""
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.bfloat16)
    logits = every[(every > -87) & (every < 88)][None]
    expected = logits.double().exp().to(torch.bfloat16)
    exponentiate(logits)
    assert (logits == expected).float().mean() > 0.99


def test_the_ends_of_the_range():
    logits = torch.tensor([[-math.inf, -200.0, -88.0, 0.0, 200.0, math.inf]], dtype=torch.bfloat16)
    sums = exponentiate(logits)
    assert logits.tolist() == [[0.0, 0.0, 0.0, 1.0, math.inf, math.inf]]
    assert sums.tolist() == [math.inf]


def test_what_is_not_a_number_stays_so():
    logits = torch.tensor([[math.nan, 0.0], [0.0, 0.0]], dtype=torch.bfloat16)
    sums = exponentiate(logits)
    assert logits.isnan().tolist() == [[True, False], [False, False]]
    assert sums.isnan().tolist() == [True, False] and sums[1] == 2.0


def test_nothing_depends_on_the_number_of_threads():
    logits = torch.randn((64, 300), generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    threads = torch.get_num_threads()
    found = []
    for count in (1, 2):
        torch.set_num_threads(count)
        copy = logits.clone()
        found.append((exponentiate(copy), copy))
    torch.set_num_threads(threads)
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])
