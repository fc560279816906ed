"""The sampled softmax against numbers worked by hand, slow loops and torch's own softmax."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from watchnext.retrieval import loss as module
from watchnext.retrieval.loss import sampled_softmax_loss
from watchnext.retrieval.sampling import SampledVideos

NUM_VIDEOS, DIM = 9, 4
EVERY_ROW = list(range(1, NUM_VIDEOS))


def sampled_of(rows, expected=None, times=None):
    """A sample of rows, each drawn and expected once or as often as is said."""
    expected, times = (torch.tensor(counts or [1.0] * len(rows)).log() for counts in (expected, times))
    return SampledVideos(torch.tensor(rows), times, expected)


def normals(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Batch:
    """Random users, videos, and one target each."""

    def __init__(self, users, num_videos=NUM_VIDEOS, dim=DIM, seed=0):
        self.users = normals(users, dim, seed=seed).requires_grad_()
        self.videos = normals(num_videos, dim, seed=seed + 1).requires_grad_()
        self.watched = torch.randint(1, num_videos, (users,), generator=torch.Generator().manual_seed(seed))

    def loss(self, sampled, **changes):
        return loss_of(self.users, self.videos, self.watched[:, None], sampled, **changes)

    def gradients(self, loss):
        return torch.autograd.grad(loss, [self.users, self.videos])


def loss_of(users, videos, target_rows, sampled, weights=None, **changes):
    weights = (target_rows > 0).float() if weights is None else weights
    targets, negatives = videos[target_rows], videos[sampled.rows]
    return sampled_softmax_loss(users, targets, target_rows, weights, negatives, sampled, **changes)


def by_loop(users, videos, target_rows, sampled, weights, masked_rows=None):
    """Each user and each of its targets in turn, in float64 with torch's own derivatives."""
    users, videos = users.double(), videos.double()
    total = torch.zeros((), dtype=torch.float64)
    for user in range(len(users)):
        wanted = [row for row in target_rows[user].tolist() if row > 0]
        left_out = set(wanted) | set([] if masked_rows is None else masked_rows[user].tolist())
        terms = [users[user] @ videos[row] for row in wanted]
        for row, times, expected in zip(*(column.tolist() for column in vars(sampled).values()), strict=True):
            if row not in left_out:
                terms.append(users[user] @ videos[row] + times - expected)
        for row, weight in zip(target_rows[user].tolist(), weights[user].tolist(), strict=True):
            if row > 0:
                total = total + weight * (torch.stack(terms).logsumexp(0) - users[user] @ videos[row])
    return total / weights.double().sum()


def test_one_target_worked_by_hand():
    # Logits: watched 2; sampled 1 and 0, expected twice and half a time.
    # e² + e/2 + 1/0.5 = 7.38906 + 1.35914 + 2 = 10.74820; ln of it = 2.37473; less 2 = 0.37473.
    videos = torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    loss = loss_of(torch.tensor([[1.0, 0.0]]), videos, torch.tensor([[1]]), sampled_of([2, 3], [2.0, 0.5]))
    assert loss.item() == pytest.approx(0.37473, abs=1e-5)


SIX_VIDEOS = torch.tensor([[1e3], [4.0], [2.0], [3.0], [5.0], [1e3]])


def several_by_hand():
    """Exponentials of the logits 4, 2, 3, 5 of videos 1 to 4; padding and video 5 would be seen at once."""
    return torch.ones(2, 1), SIX_VIDEOS.log(), torch.tensor([[1, 0, 2], [3, 0, 0]]), sampled_of([3, 4], [0.5, 2.5])


def test_several_targets_worked_by_hand():
    # User 1 wants 4 (weight 1) and 2 (weight 1/2): 4 + 2 + 3/0.5 + 5/2.5 = 14; ln(14/4) + ln(14/2)/2 = 2.225718.
    # User 2 wants 3 (weight 2), which was also drawn: 3 + 5/2.5 = 5; 2 ln(5/3) = 1.021651. Both, over 3.5: 0.927820.
    weights = torch.tensor([[1.0, 0.0, 0.5], [2.0, 0.0, 0.0]])
    assert loss_of(*several_by_hand(), weights).item() == pytest.approx(0.927820, abs=1e-5)


def test_masked_rows_worked_by_hand():
    # User 1 saw 4 and 3: the sum is 4 + 2 + 5/2.5 = 8, its own target 4 stays; ln(8/4) + ln(8/2)/2 = 1.386294.
    # User 2 saw 4, the row of 5: 3 alone is left, no loss. Over 3.5: 0.396084.
    weights = torch.tensor([[1.0, 0.0, 0.5], [2.0, 0.0, 0.0]])
    masked = torch.tensor([[1, 3, 0], [4, 4, 0]])
    assert loss_of(*several_by_hand(), weights, masked_rows=masked).item() == pytest.approx(0.396084, abs=1e-5)


def test_a_target_of_weight_zero_stands_in_the_sum_and_is_not_wanted():
    # 4 + 2 + 3/0.5 + 5/2.5 = 14; ln(14/4) = 1.252763.
    users, videos, targets, sampled = several_by_hand()
    loss = loss_of(users[:1], videos, targets[:1], sampled, torch.tensor([[1.0, 0.0, 0.0]]))
    assert loss.item() == pytest.approx(1.252763, abs=1e-5)


def several_targets(users=20, seed=0):
    """Users with one to four distinct targets of random weight, padding between them."""
    random = torch.Generator().manual_seed(seed)
    rows = torch.stack([torch.randperm(NUM_VIDEOS - 1, generator=random)[:4] + 1 for _ in range(users)])
    rows[:, 1:][torch.rand((users, 3), generator=random) < 0.4] = 0
    return rows, torch.rand(rows.shape, generator=random) * (rows > 0)


@pytest.mark.parametrize("block", [256, 20, 7, 1])
@pytest.mark.parametrize("masked", [False, True])
def test_loss_and_gradients_are_those_of_a_slow_loop(monkeypatch, block, masked):
    monkeypatch.setattr(module, "_USERS_AT_ONCE", {"cpu": block})
    batch, (target_rows, weights) = Batch(20), several_targets()
    sampled = sampled_of([8, 2, 5, 3, 1], [0.5, 2.0, 0.01, 3.0, 1.0], [1.0, 3.0, 1.0, 2.0, 1.0])
    masked_rows = torch.randint(0, NUM_VIDEOS, (20, 3), generator=torch.Generator().manual_seed(5)) if masked else None
    loss = loss_of(batch.users, batch.videos, target_rows, sampled, weights, masked_rows=masked_rows)
    expected = by_loop(batch.users, batch.videos, target_rows, sampled, weights, masked_rows)
    assert_close(loss.double(), expected, rtol=1e-5, atol=1e-5)
    for gradient, slow in zip(batch.gradients(loss), batch.gradients(expected), strict=True):
        assert_close(gradient, slow, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_samples", [1, 127, 128, 129])
def test_samples_are_padded_to_a_round_number_without_a_trace(num_samples):
    """The first user's target is the last of the samples, the second's is none of them."""
    batch = Batch(2, num_videos=200)
    target_rows = torch.tensor([[num_samples], [199]])
    sampled = sampled_of(list(range(1, num_samples + 1)))
    loss = loss_of(batch.users, batch.videos, target_rows, sampled)
    expected = by_loop(batch.users, batch.videos, target_rows, sampled, torch.ones(2, 1))
    assert_close(loss.double(), expected, rtol=1e-5, atol=1e-5)
    for gradient, slow in zip(batch.gradients(loss), batch.gradients(expected), strict=True):
        assert_close(gradient, slow, rtol=1e-5, atol=1e-5)


def test_with_every_video_it_is_the_full_softmax_and_so_are_the_gradients():
    batch = Batch(300)  # more than one block
    loss = batch.loss(sampled_of(EVERY_ROW))
    full = cross_entropy(batch.users @ batch.videos[1:].T, batch.watched - 1)
    assert_close(loss, full, rtol=1e-5, atol=1e-5)
    for gradient, dense in zip(batch.gradients(loss), batch.gradients(full), strict=True):
        assert_close(gradient, dense, rtol=1e-5, atol=1e-5)


def test_gradients_of_targets_and_of_negatives_are_each_their_own():
    batch = Batch(20)
    sampled = sampled_of([8, 2, 5], [0.5, 2.0, 0.01])
    target_rows = batch.watched[:, None]
    targets = batch.videos.detach()[target_rows].requires_grad_()
    negatives = batch.videos.detach()[sampled.rows].requires_grad_()
    loss = sampled_softmax_loss(batch.users, targets, target_rows, torch.ones(20, 1), negatives, sampled)
    gradients = torch.autograd.grad(3.0 * loss, [batch.users, targets, negatives])

    logits = batch.users @ negatives.T - sampled.log_expected_counts
    logits = logits.masked_fill(target_rows == sampled.rows, -torch.inf)
    logits = torch.cat([torch.einsum("bd,btd->bt", batch.users, targets), logits], dim=1)
    full = cross_entropy(logits, torch.zeros(20, dtype=torch.int64))
    for gradient, dense in zip(
        gradients, torch.autograd.grad(3.0 * full, [batch.users, targets, negatives]), strict=True
    ):
        assert_close(gradient, dense, rtol=1e-5, atol=1e-5)


def test_several_targets_with_every_video_are_the_full_softmax():
    batch, (target_rows, weights) = Batch(20), several_targets()
    loss = loss_of(batch.users, batch.videos, target_rows, sampled_of(EVERY_ROW), weights)
    total = torch.zeros(())
    for user in range(20):
        log_probabilities = (batch.users[user] @ batch.videos[1:].T).log_softmax(0)
        for row, weight in zip(target_rows[user], weights[user], strict=True):
            if row > 0:
                total = total - weight * log_probabilities[row - 1]
    full = total / weights.sum()
    assert_close(loss, full, rtol=1e-5, atol=1e-5)
    for gradient, dense in zip(batch.gradients(loss), batch.gradients(full), strict=True):
        assert_close(gradient, dense, rtol=1e-5, atol=1e-5)


def test_more_padding_changes_nothing():
    batch, (target_rows, weights) = Batch(20), several_targets()
    sampled = sampled_of([8, 2, 5], [0.5, 2.0, 0.01])
    loss = loss_of(batch.users, batch.videos, target_rows, sampled, weights)
    nobody = torch.zeros(20, 2)
    wider = loss_of(
        batch.users,
        batch.videos,
        torch.cat([nobody.long(), target_rows, nobody.long()], dim=1),
        sampled,
        torch.cat([nobody, weights, nobody], dim=1),
        masked_rows=nobody.long(),
    )
    assert_close(wider, loss)
    for gradient, narrow in zip(batch.gradients(wider), batch.gradients(loss), strict=True):
        assert_close(gradient, narrow)


def test_a_user_without_targets_counts_for_nothing():
    batch = Batch(3)
    sampled = sampled_of([8, 2, 5])
    rows = torch.tensor([[1], [0], [4]])
    loss = loss_of(batch.users, batch.videos, rows, sampled)
    assert_close(loss, loss_of(batch.users[[0, 2]], batch.videos, rows[[0, 2]], sampled))
    users, videos = batch.gradients(loss)
    assert not users[1].any() and videos.isfinite().all()


def test_an_accidental_hit_has_no_influence():
    batch = Batch(1)
    watched = batch.watched.item()
    others = [row for row in EVERY_ROW if row != watched][:3]
    clean = batch.loss(sampled_of(others))
    # The hit's vector would give a logit of about 100 if it took part.
    negatives = batch.videos.detach()[[others[0], watched, *others[1:]]]
    negatives[1] = 100.0 * batch.users.detach()[0] / batch.users.detach().norm() ** 2
    negatives.requires_grad_()
    sampled = sampled_of([others[0], watched, *others[1:]])
    rows = batch.watched[:, None]
    hit = sampled_softmax_loss(batch.users, batch.videos[rows], rows, torch.ones(1, 1), negatives, sampled)
    assert_close(hit, clean)
    (gradient,) = torch.autograd.grad(hit, [negatives])
    assert not gradient[1].any()
    assert gradient[[0, 2, 3]].all()


def test_a_hit_for_one_user_is_a_negative_for_another():
    batch = Batch(2)
    batch.watched = torch.tensor([3, 4])
    # The first user's only negative is a hit (loss 0); the second chooses between 4 and 3.
    second = cross_entropy((batch.users[1] @ batch.videos[[4, 3]].T)[None], torch.tensor([0]))
    assert_close(batch.loss(sampled_of([3])), second / 2)


def test_only_hits_give_no_loss_and_no_gradient():
    batch = Batch(1)
    loss = batch.loss(sampled_of([batch.watched.item()]))
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert batch.gradients(loss)[0].abs().max() < 1e-6


def test_a_video_drawn_three_times_counts_as_three_columns():
    batch = Batch(1)
    others = [row for row in EVERY_ROW if row != batch.watched.item()]
    loss = batch.loss(sampled_of(others[:2], [0.7, 2.0], [3.0, 1.0]))
    logits = batch.users @ batch.videos[[batch.watched.item(), *[others[0]] * 3, others[1]]].T
    correction = torch.tensor([1.0, 0.7, 0.7, 0.7, 2.0]).log()
    columns = cross_entropy(logits - correction, torch.tensor([0]))
    assert_close(loss, columns)
    for gradient, dense in zip(batch.gradients(loss), batch.gradients(columns), strict=True):
        assert_close(gradient, dense)


def test_a_video_of_probability_one_in_ten_million_is_corrected_exactly():
    # 5,000 draws at q = 1e-7 expect it 0.0005 times: 2,000 e^0.5; beside the target's e^1 and nothing else.
    videos = torch.tensor([[0.0], [1.0], [0.5]])
    sampled = sampled_of([2], [5000 * 1e-7])
    loss = loss_of(torch.ones(1, 1), videos, torch.tensor([[1]]), sampled)
    assert loss.item() == pytest.approx(math.log(math.e + 2000 * math.exp(0.5)) - 1.0, rel=1e-6)


def bfloat16():
    return torch.autocast("cpu", torch.bfloat16)


def test_under_autocast_loss_and_gradients_stay_within_a_few_percent():
    batch = Batch(300, num_videos=2000, dim=32)
    batch.users.data *= 0.7
    rows = (torch.randperm(1999, generator=torch.Generator().manual_seed(0))[:500] + 1).tolist()
    sampled = sampled_of(rows, torch.rand(500, generator=torch.Generator().manual_seed(1)).add(0.01).tolist())
    exact = batch.loss(sampled)
    with bfloat16():
        loss = batch.loss(sampled)
    assert loss.dtype == torch.float32
    # Eight bits a logit, whose errors average out: half a percent for the loss, three for gradients.
    assert loss.item() == pytest.approx(exact.item(), rel=0.005)
    for gradient, dense in zip(batch.gradients(loss), batch.gradients(exact), strict=True):
        assert gradient.dtype == torch.float32
        assert 0 < (gradient - dense).norm() < 0.03 * dense.norm()


def test_under_autocast_a_correction_keeps_more_than_eight_bits():
    # The target's logit is the correction, 7.609: between the neighbours 7.59375 and 7.625. The two terms are e^0
    # each; a correction rounded to 7.59375 would make the second 1.5 % smaller.
    videos = torch.tensor([[0.0], [7.609], [0.0]])
    sampled = sampled_of([2], [math.exp(-7.609)])
    with bfloat16():
        loss = loss_of(torch.ones(1, 1), videos, torch.tensor([[1]]), sampled)
    assert loss.item() == pytest.approx(math.log(2.0), abs=0.003)


EXTREMES = {
    "the target far below": ([[120.0]], [[-1.0]], [[100.0]]),
    "the target very far below": ([[1e4], [-1e4]], [[-1e4], [1e4]], [[1e4], [0.0], [-1e4]]),
    "the target far above": ([[1e4], [-1e4]], [[1e4], [-1e4]], [[-1e4], [0.0], [1e4]]),
    "long vectors at right angles": ([[15.0, 0.0]], [[0.0, 1.0]], [[0.0, 10.0], [0.0, -10.0]]),
    "very long vectors at right angles": ([[300.0, 0.0]], [[0.0, 100.0]], [[0.0, 100.0], [-1.0, 100.0]]),
    "all logits far below zero": ([[-30.0]], [[10.0]], [[10.0], [10.1]]),
}


@pytest.mark.parametrize("expected", [1.0, 1e-7])
@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize(("users", "targets", "negatives"), EXTREMES.values(), ids=EXTREMES)
def test_extreme_logits_give_the_loss_and_finite_gradients(users, targets, negatives, halves, expected):
    users = torch.tensor(users, requires_grad=True)
    videos = torch.tensor([[0.0] * users.shape[1], *targets, *negatives], requires_grad=True)
    target_rows = torch.arange(1, len(targets) + 1)[:, None]
    sampled = sampled_of(list(range(len(targets) + 1, len(videos))), [expected] * len(negatives))
    with torch.autocast("cpu", torch.bfloat16, enabled=halves):
        loss = loss_of(users, videos, target_rows, sampled)
    slow = by_loop(users, videos, target_rows, sampled, torch.ones(target_rows.shape))
    # A logit has 24 bits, under autocast 8.
    largest = (users @ videos.T).abs().max().item()
    assert loss.item() == pytest.approx(slow.item(), rel=0.001, abs=largest * 2.0 ** (-8 if halves else -22) + 1e-5)
    gradients = torch.autograd.grad(loss, [users, videos])
    assert all(gradient.isfinite().all() for gradient in gradients)
    if not halves and largest < 1e6:
        longest = max(users.abs().max().item(), videos.abs().max().item())
        for gradient, dense in zip(gradients, torch.autograd.grad(slow, [users, videos]), strict=True):
            assert_close(gradient, dense, rtol=0.001, atol=1e-6 * longest)


def test_a_masked_video_with_an_extreme_logit_has_no_influence():
    users, videos = torch.ones(1, 1, requires_grad=True), torch.tensor([[0.0], [1.0], [500.0], [0.5]])
    loss = loss_of(users, videos, torch.tensor([[1]]), sampled_of([2, 3]), masked_rows=torch.tensor([[2]]))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-0.5)), rel=1e-5)
    assert torch.autograd.grad(loss, users)[0].item() == pytest.approx(-0.5 / (1 + math.exp(0.5)), rel=1e-5)
