import math

import torch
from torch.nn.functional import cross_entropy

from watchnext.retrieval.loss import sampled_softmax_loss
from watchnext.retrieval.sampling import EveryVideo, FrequencySampler, SampledVideos

NUM_VIDEOS, DIM = 9, 4


def certainly(rows: list[int]) -> SampledVideos:
    return SampledVideos(torch.tensor(rows), torch.zeros(len(rows)))


def random_batch(users: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    watched = torch.randint(1, NUM_VIDEOS, (users,), generator=random)
    return (
        torch.randn((users, DIM), generator=random),
        torch.randn((NUM_VIDEOS, DIM), generator=random),
        watched,
    )


def test_loss_is_the_one_worked_by_hand():
    # Logits: watched 2; sampled 1 and 0, expected twice and half a time.
    # e² + e/2 + 1/0.5 = 7.38906 + 1.35914 + 2 = 10.74820; ln of it = 2.37473; less 2 = 0.37473.
    loss = sampled_softmax_loss(
        torch.tensor([[1.0, 0.0]]),
        torch.tensor([[2.0, 0.0]]),
        torch.tensor([7]),
        torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        SampledVideos(torch.tensor([5, 6]), torch.tensor([math.log(2.0), math.log(0.5)])),
    )
    assert abs(loss.item() - 0.37473) < 1e-4


def test_with_every_video_it_is_the_full_softmax():
    users, videos, watched = random_batch(20)
    sampled = EveryVideo(NUM_VIDEOS).sample(torch.Generator())
    loss = sampled_softmax_loss(users, videos[watched], watched, videos[sampled.rows], sampled)
    torch.testing.assert_close(loss, cross_entropy(users @ videos[1:].T, watched - 1))


def test_an_accidental_hit_has_no_influence():
    users, videos, watched = random_batch(1)
    others = [row for row in range(1, NUM_VIDEOS) if row != watched[0]][:3]
    clean = sampled_softmax_loss(users, videos[watched], watched, videos[others], certainly(others))
    with_hits = [watched.item(), *others, watched.item()]
    # The hit's vector would give a logit of about 100 if it took part.
    negatives = videos[with_hits].clone()
    negatives[[0, 4]] = 100.0 * users[0] / users[0].norm() ** 2
    negatives.requires_grad_()
    hit = sampled_softmax_loss(users, videos[watched], watched, negatives, certainly(with_hits))
    torch.testing.assert_close(hit, clean)
    hit.backward()
    assert negatives.grad[[0, 4]].abs().max() == 0.0
    assert negatives.grad[1:4].abs().min() > 0.0


def test_a_hit_for_one_user_is_a_negative_for_another():
    users, videos, _ = random_batch(2)
    watched = torch.tensor([3, 4])
    loss = sampled_softmax_loss(users, videos[watched], watched, videos[[3]], certainly([3]))
    # The first user's only negative is a hit (loss 0); the second chooses between 4 and 3.
    second = cross_entropy((users[1] @ videos[[4, 3]].T)[None], torch.tensor([0]))
    torch.testing.assert_close(loss, second / 2)


def test_only_hits_give_no_loss_and_a_finite_gradient():
    users, videos, _ = random_batch(1)
    users.requires_grad_()
    loss = sampled_softmax_loss(users, videos[[2]], torch.tensor([2]), videos[[2]], certainly([2]))
    loss.backward()
    assert loss.item() == 0.0
    assert users.grad.abs().max() == 0.0


def mean_sampled_gradient(corrected: bool, draws: int = 1500) -> torch.Tensor:
    """The gradient of the user vector, averaged over draws of 100 negatives by skewed frequencies."""
    users, videos, watched = random_batch(1)
    users.requires_grad_()
    random = torch.Generator().manual_seed(1)
    sampler = FrequencySampler(torch.tensor([0, 0, 1, 3, 7, 15, 31, 63, 127]), 100, 1.0)
    total = torch.zeros(())
    for _ in range(draws):
        sampled = sampler.sample(random)
        if not corrected:
            sampled = SampledVideos(sampled.rows, torch.zeros(len(sampled.rows)))
        total = total + sampled_softmax_loss(users, videos[watched], watched, videos[sampled.rows], sampled)
    (total / draws).backward()
    return users.grad


def full_gradient() -> torch.Tensor:
    users, videos, watched = random_batch(1)
    users.requires_grad_()
    cross_entropy(users @ videos[1:].T, watched - 1).backward()
    return users.grad


def test_expected_gradient_is_that_of_the_full_softmax():
    # The estimate of the normaliser has a bias of the order of 1/samples; 5 % of the gradient's length covers it.
    full = full_gradient()
    assert (mean_sampled_gradient(corrected=True) - full).norm() < 0.05 * full.norm()


def test_without_the_correction_the_gradient_is_clearly_off():
    full = full_gradient()
    assert (mean_sampled_gradient(corrected=False, draws=100) - full).norm() > 0.5 * full.norm()


def test_extreme_logits_stay_finite():
    users = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    videos = torch.tensor([[1e4], [-1e4], [0.0]])
    watched = torch.tensor([1, 1])
    sampled = SampledVideos(torch.tensor([2, 3]), torch.full((2,), math.log(1e-7)))
    loss = sampled_softmax_loss(users, videos[[0, 0]], watched, videos[[1, 2]], sampled)
    loss.backward()
    assert math.isfinite(loss.item()) and loss.item() > 1e7
    assert users.grad.isfinite().all()
