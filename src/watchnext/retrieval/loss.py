"""Sampled softmax with the log-expected-count correction (§3.1)."""

from typing import Any

import torch
from torch.nn import functional

from watchnext.layers.exponentials import exponentiate
from watchnext.retrieval.sampling import SampledVideos
from watchnext.shapes import Float, Int, Tensor

_USERS_AT_ONCE = {"cpu": 2048, "cuda": 8192}
_SAMPLES_AT_ONCE = 128  # matrix products are a tenth faster where rows begin at round addresses
_LARGEST_EXPONENT = 60.0


def sampled_softmax_loss(
    user_vectors: Float[Tensor, "batch dim"],
    target_vectors: Float[Tensor, "batch targets dim"],
    target_rows: Int[Tensor, "batch targets"],
    target_weights: Float[Tensor, "batch targets"],
    sampled_vectors: Float[Tensor, "samples dim"],
    sampled: SampledVideos,
    masked_rows: Int[Tensor, "batch history"] | None = None,
) -> Float[Tensor, ""]:
    """Gives the weighted mean of -log P(target | user), its normaliser estimated from the sampled videos.

    A user may have several targets: later watches, each with its weight; row 0 is padding. Each sampled logit is
    lowered by the log of its expected count, which makes the sum of exponentials an unbiased estimate of the sum
    over the catalogue. A user's targets stand in the sum exactly once (draws of them, accidental hits, are
    masked), so their own expected count is 1 and their logits stay as they are.

    `masked_rows` are no choice for the user: the sum leaves them out, unless they are a target.

    Under autocast the logits are computed in its type, a block of users at a time: forward and backward pass of a
    block happen while its logits are in the cache, and they are never written to memory.

    Source: §3.1, "importance weighting"; the estimate is that of Bengio and Senécal (2008).
    """
    left_out = target_rows if masked_rows is None else torch.cat([target_rows, masked_rows], dim=1)
    total: Tensor = _SampledSoftmax.apply(  # type: ignore[no-untyped-call]
        user_vectors, target_vectors, target_rows, target_weights, left_out, sampled_vectors, sampled
    )
    return total / target_weights.sum().clamp(min=1e-12)


class _SampledSoftmax(torch.autograd.Function):
    """The sum of the losses; its gradients are known as soon as it is."""

    @staticmethod
    def forward(
        ctx: Any,
        users: Tensor,
        targets: Tensor,
        target_rows: Tensor,
        weights: Tensor,
        left_out: Tensor,
        negatives: Tensor,
        sampled: SampledVideos,
    ) -> Tensor:
        device = users.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else users.dtype
        with torch.autocast(device, enabled=False):
            blocks = _Blocks(
                users.float(), targets.float(), target_rows, weights, left_out, negatives.float(), sampled, dtype
            )
            for start in range(0, len(users), _USERS_AT_ONCE[device]):
                blocks.add(slice(start, start + _USERS_AT_ONCE[device]))
        ctx.save_for_backward(blocks.user_gradient, blocks.target_gradient, blocks.negative_gradient)
        return blocks.total

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        users, targets, negatives = ctx.saved_tensors
        return users * scale, targets * scale, None, None, None, negatives * scale, None


class _Blocks:
    """Loss and gradients, summed over blocks of users.

    With s_i about the best logit among the targets of user i and c_j the correction of sample j, the matrix product of
    [u_i, -s_i, 1, 1] and [v_j, 1, -c_j], c_j split in two so that a 16-bit type holds it, is the corrected logit
    relative to s_i: one product, one exponential in place, and no further pass over the logits. Only for users whose
    exponentials might leave the range of floats is there one: their highest logit becomes the new zero.
    """

    def __init__(
        self,
        users: Float[Tensor, "batch dim"],
        targets: Float[Tensor, "batch targets dim"],
        target_rows: Int[Tensor, "batch targets"],
        weights: Float[Tensor, "batch targets"],
        left_out: Int[Tensor, "batch width"],
        negatives: Float[Tensor, "samples dim"],
        sampled: SampledVideos,
        dtype: torch.dtype,
    ) -> None:
        self.users, self.targets, self.weights = users, targets, weights
        self.logits = torch.einsum("bd,btd->bt", users, targets).masked_fill(target_rows == 0, -torch.inf)
        correction = sampled.log_times_drawn - sampled.log_expected_counts
        best = self.logits.amax(dim=1).nan_to_num(neginf=0.0)
        shift = best.to(dtype)
        self.shift = shift.float()
        # No sampled logit is above this bound.
        bound = users.norm(dim=1) * negatives.norm(dim=1).max() + correction.max()
        self.uncertain = (bound - self.shift > _LARGEST_EXPONENT) | ((best - self.shift).abs() > _LARGEST_EXPONENT)
        ones = torch.ones_like(shift)
        self.left = torch.cat([users.to(dtype), torch.stack([-shift, ones, ones, ones], dim=1)], dim=1)
        coarse = correction.to(dtype)
        fine = (correction - coarse.float()).to(dtype)
        columns = torch.stack([torch.ones_like(coarse), coarse, fine, torch.zeros_like(coarse)], dim=1)
        # At least one more, which is nobody, with a logit of -inf: targets that were not drawn are "found" there.
        nobody = _SAMPLES_AT_ONCE - len(negatives) % _SAMPLES_AT_ONCE
        columns = functional.pad(columns, (0, 0, 0, nobody))
        columns[len(negatives) :, 1] = -torch.inf
        self.negatives = functional.pad(negatives.to(dtype), (0, 0, 0, nobody))
        self.right = torch.cat([self.negatives, columns], dim=1)
        self.found = _places_of(left_out, sampled.rows)
        # The same memory for all blocks of users.
        block = min(_USERS_AT_ONCE[users.device.type], len(users))
        self.terms = self.left.new_empty((block, len(self.right)))
        self.places = torch.arange(block, device=users.device)[:, None]
        self.total = users.new_zeros(())
        self.user_gradient = torch.empty_like(users)
        self.target_gradient = torch.empty_like(targets)
        self.negative_gradient = torch.zeros_like(negatives)

    def add(self, part: slice) -> None:
        """Adds a block of users."""
        found = self.found[part]
        terms = torch.mm(self.left[part], self.right.T, out=self.terms[: len(found)])
        terms[self.places[: len(found)], found] = -torch.inf
        targets = self.logits[part] - self.shift[part, None]
        # An accelerator looks at all users: to pick some would make the host wait for it.
        some = self.uncertain[part].nonzero()[:, 0] if terms.device.type == "cpu" else slice(None)
        highest = torch.maximum(terms[some].amax(dim=1), targets[some].amax(dim=1))[:, None]
        excess = torch.where(highest.abs() > _LARGEST_EXPONENT, highest, 0.0)
        terms[some] -= excess.to(terms.dtype)
        targets[some] -= excess
        sums = exponentiate(terms)
        weights, users = self.weights[part], self.users[part]
        weight = weights.sum(dim=1)
        wanted = (weights * targets.masked_fill(weights == 0, 0.0)).sum()
        targets = targets.exp()
        normaliser = sums + targets.sum(dim=1)
        self.total += (weight * normaliser.log()).sum() - wanted
        share = weight / normaliser
        on_targets = share[:, None] * targets - weights
        self.target_gradient[part] = on_targets[:, :, None] * users[:, None, :]
        pulled = torch.einsum("bt,btd->bd", on_targets, self.targets[part])
        self.user_gradient[part] = share[:, None] * (terms @ self.negatives).float() + pulled
        pushed = terms.T @ (share[:, None] * users).to(terms.dtype)
        self.negative_gradient += pushed[: len(self.negative_gradient)]


def _places_of(rows: Int[Tensor, "batch width"], sampled_rows: Int[Tensor, "samples"]) -> Int[Tensor, "batch width"]:
    """Where each row is among the distinct sampled ones; behind the last where it is not."""
    ordered, order = torch.sort(sampled_rows)
    place = torch.searchsorted(ordered, rows).clamp(max=len(ordered) - 1)
    return torch.where(ordered[place] == rows, order[place], len(ordered))
