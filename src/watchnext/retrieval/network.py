"""The candidate generation network: a user tower and one output vector per video (§3.2)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from watchnext.config import RetrievalConfig
from watchnext.events.dataset import Dataset
from watchnext.examples.contexts import UserContext
from watchnext.examples.next_watch import RetrievalBatch
from watchnext.examples.quantiles import Quantiles, with_powers
from watchnext.layers.embedding import EmbeddingTable, embedding_dim_for
from watchnext.layers.tensors import device_of, kept_at_random, tensor_on
from watchnext.layers.tower import Tower
from watchnext.retrieval.loss import sampled_softmax_loss
from watchnext.retrieval.sampling import SampledVideos
from watchnext.shapes import Array, Float, Int, Tensor


@dataclass(frozen=True)
class RetrievalSizes:
    """What the network must know of a dataset to have the right shape."""

    num_videos: int
    num_search_tokens: int
    user_categories: tuple[int, ...]
    num_user_values: int
    has_impressions: bool
    training_days: float

    @classmethod
    def of(cls, dataset: Dataset) -> "RetrievalSizes":
        """Reads them off a dataset."""
        vocabularies = dataset.vocabularies
        return cls(
            len(vocabularies["videos"]),
            len(vocabularies["search_tokens"]) if dataset.facts["num_searches"] else 0,
            tuple(len(vocabularies[f"users.{name}"]) for name in dataset.user_categories),
            len(dataset.facts["user_numbers"]),
            bool(dataset.facts["has_impressions"]),
            max((dataset.test_start - int(dataset.facts["log_start"])) / 86_400.0, 1e-6),
        )


class RetrievalNetwork(nn.Module):
    """Maps users to vectors whose dot product with a video's vector is the logit of watching it next.

    Inputs, side by side: mean of the embedded completed watches; the same for everything shown, when the log has
    impressions; mean of the embedded search tokens; each embedded categorical attribute; each numeric one as its
    quantile with powers; the example age with powers. The output vectors are a table of their own.
    """

    def __init__(
        self, sizes: RetrievalSizes, config: RetrievalConfig, quantiles: Quantiles, generator: torch.Generator
    ) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.sizes = sizes
        self.config = config
        self.generator = generator
        self.quantiles = quantiles
        self.watched = EmbeddingTable(sizes.num_videos, dim, generator)
        self.shown = EmbeddingTable(sizes.num_videos, dim, generator) if sizes.has_impressions else None
        self.tokens = EmbeddingTable(sizes.num_search_tokens, dim, generator) if sizes.num_search_tokens else None
        self.categories = nn.ModuleList(
            EmbeddingTable(size, embedding_dim_for(size), generator) for size in sizes.user_categories
        )
        bags = 1 + (self.shown is not None) + (self.tokens is not None)
        categories = sum(embedding_dim_for(size) for size in sizes.user_categories)
        num_inputs = bags * dim + categories + 3 * sizes.num_user_values + 3
        self.tower = Tower(num_inputs, config.tower, generator)
        self.videos = EmbeddingTable(sizes.num_videos, self.tower.num_outputs, generator)

    def user_vectors(
        self, context: UserContext, example_age_days: Float[Tensor, "batch"] | None = None
    ) -> Float[Tensor, "batch dim"]:
        """Gives the user vectors; the example age is zero when serving (§3.3).

        A context may be longer than the bags: only its newest part is used.
        """
        device = device_of(self)
        if example_age_days is None or not self.config.example_age:
            example_age_days = torch.zeros(len(context))
        age = (example_age_days.to(device) / self.sizes.training_days).clamp(0.0, 1.0)
        length = self.config.history_length
        parts = [self.watched.mean(self._thinned(context.watched_row[:, :length]))]
        if self.shown is not None:
            parts.append(self.shown.mean(self._thinned(context.video_row[:, :length])))
        if self.tokens is not None:
            parts.append(self.tokens.mean(tensor_on(device, context.token_row[:, : self.config.num_search_tokens])))
        for place, table in enumerate(self.categories):
            parts.append(table(tensor_on(device, context.categorical[:, place].astype(np.int64))))
        values = with_powers(self.quantiles.normalised(context.continuous))
        parts += [tensor_on(device, values), torch.stack([age, age.square(), age.sqrt()], dim=1)]
        vectors: Tensor = self.tower(torch.cat(parts, dim=1))
        return vectors

    def loss(self, batch: RetrievalBatch, sampled: SampledVideos) -> Float[Tensor, ""]:
        """Gives the mean sampled-softmax loss of a batch."""
        users = self.user_vectors(batch.context, batch.example_age_days)
        watched_rows = batch.video_row.to(users.device)
        sampled = SampledVideos(sampled.rows.to(users.device), sampled.log_expected_counts.to(users.device))
        vectors = self.videos(torch.cat([watched_rows, sampled.rows]))
        watched, negatives = vectors[: len(users)], vectors[len(users) :]
        return sampled_softmax_loss(users, watched, watched_rows, negatives, sampled)

    @torch.inference_mode()
    def vectors_of(self, context: UserContext) -> Float[Array, "batch dim"]:
        """Gives the user vectors for serving, as NumPy."""
        self.eval()
        return self.user_vectors(context).cpu().numpy()

    @torch.inference_mode()
    def probabilities(
        self, context: UserContext, example_age_days: Float[Tensor, "batch"] | None = None
    ) -> Float[Array, "batch videos"]:
        """Gives the probability of every video to be the next one watched; row 0 has none (§3.1).

        With an example age, the probability that long before the newest example.
        """
        self.eval()
        logits = self.user_vectors(context, example_age_days) @ self.videos.weight.T
        logits[:, 0] = -torch.inf
        return torch.softmax(logits, dim=1).cpu().numpy()

    @property
    def video_vectors(self) -> Float[Array, "videos dim"]:
        """The output vectors of all videos; row 0 is the zero vector."""
        return self.videos.weight.cpu().numpy()

    def _thinned(self, rows: Int[Array, "batch history"]) -> Int[Tensor, "batch history"]:
        """Leaves out some of a bag at random while training, so that no single watch is relied upon."""
        bag = tensor_on(device_of(self), rows)
        if not self.training or self.config.dropout == 0.0:
            return bag
        kept = kept_at_random(bag.shape, self.config.dropout, self.generator)
        return bag * kept.to(bag)
