"""Weighted logistic regression on watch time (§4.2)."""

import torch
from torch.nn.functional import softplus

from watchnext.shapes import Bool, Float, Tensor


def watch_time_loss(
    logits: Float[Tensor, "batch"],
    watch_seconds: Float[Tensor, "batch"],
    clicked: Bool[Tensor, "batch"],
    unit_seconds: float,
    negatives: str,
) -> Float[Tensor, ""]:
    """Gives the mean weighted cross entropy of some impressions.

    Every impression is a positive whose weight is its watch time T in units. Which are also a negative of weight 1:

    - "all": each one. The learnt odds are then ΣT / N = E[T], whatever the click rate.
    - "unclicked": only those not clicked; clicked ones alone are positives. The odds are ΣT / (N - k), the paper's
      E[T]·(1 + P) for a small click probability P.

    Source: §4.2.
    """
    positive = watch_seconds / unit_seconds
    if negatives == "unclicked":
        positive = torch.where(clicked, positive, 0.0)
        negative = (~clicked).to(logits.dtype)
    else:
        negative = torch.ones_like(logits)
    return (positive * softplus(-logits) + negative * softplus(logits)).mean()
