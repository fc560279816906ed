"""Sampled softmax with the log-expected-count correction (§3.1)."""

import torch

from watchnext.retrieval.sampling import SampledVideos
from watchnext.shapes import Float, Int, Tensor

MASKED_LOGIT = float("-inf")


def sampled_softmax_loss(
    user_vectors: Float[Tensor, "batch dim"],
    watched_vectors: Float[Tensor, "batch dim"],
    watched_rows: Int[Tensor, "batch"],
    sampled_vectors: Float[Tensor, "samples dim"],
    sampled: SampledVideos,
) -> Float[Tensor, ""]:
    """Gives the mean of -log P(watched video | user), its normaliser estimated from the sampled videos.

    Each sampled logit is lowered by the log of its expected count, which makes the sum of exponentials an unbiased
    estimate of the sum over the catalogue. The watched video stands in the sum exactly once (further draws of it,
    accidental hits, are masked), so its own expected count is 1 and its logit stays as it is.

    Source: §3.1, "importance weighting"; the estimate is that of Bengio and Senécal (2008).
    """
    watched_logits = (user_vectors.float() * watched_vectors.float()).sum(dim=1)
    sampled_logits = (user_vectors @ sampled_vectors.T).float() - sampled.log_expected_counts
    hits = watched_rows[:, None] == sampled.rows
    sampled_logits = sampled_logits.masked_fill(hits, MASKED_LOGIT)
    normalisers = torch.logaddexp(watched_logits, torch.logsumexp(sampled_logits, dim=1))
    return (normalisers - watched_logits).mean()
