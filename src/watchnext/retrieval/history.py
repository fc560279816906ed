"""What a user watched, as one vector: the paper's mean, a learnt weighting, or a reader of the order."""

import math
from typing import TypeAlias

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from watchnext.config import RetrievalConfig
from watchnext.examples.contexts import UserContext
from watchnext.examples.windows import BatchWindows
from watchnext.layers.embedding import EmbeddingTable, TableStorage
from watchnext.layers.tensors import kept_at_random, tensor_on
from watchnext.layers.tower import linear
from watchnext.shapes import Array, Bool, Float, Int, Tensor

NUM_GAPS = 32
_NUM_DISTANCES = 64
_WIDENING = 4


class MeanHistory(nn.Module):
    """The mean of the embedded completed watches, and beside it that of everything shown, if the log has it (§3.2)."""

    def __init__(
        self,
        config: RetrievalConfig,
        num_videos: int,
        has_impressions: bool,
        generator: torch.Generator,
        storage: TableStorage,
    ) -> None:
        super().__init__()
        self.config = config
        self.generator = generator
        self.watched = EmbeddingTable(num_videos, config.embedding_dim, generator, storage=storage)
        self.shown = (
            EmbeddingTable(num_videos, config.embedding_dim, generator, storage=storage) if has_impressions else None
        )
        self.num_outputs = config.embedding_dim * (1 + len(config.recent_watches) + has_impressions)

    def forward(self, context: UserContext, windows: BatchWindows | None = None) -> Float[Tensor, "batch dim"]:
        """Gives the means, side by side. A history may be longer than the bag: its newest part is used."""
        means = [self.watched.mean(self._thinned(context.watched_row))]
        watched = context.watched_row[:, : self.config.history_length]
        for length in self.config.recent_watches:
            means.append(self.watched.mean(tensor_on(means[0].device, watched[:, :length])))
        if self.shown is not None:
            means.append(self.shown.mean(self._thinned(context.video_row)))
        return torch.cat(means, dim=1)

    def _thinned(self, rows: Int[Array, "batch history"]) -> Int[Tensor, "batch _"]:
        """Leaves out some of a bag at random while training, so that no single watch is relied upon."""
        bag = tensor_on(self.watched.weight.device, rows[:, : self.config.history_length])
        if not self.training or self.config.dropout == 0.0:
            return bag
        kept = kept_at_random(bag.shape, self.config.dropout, self.generator)
        return bag * kept.to(bag)


class _Events(nn.Module):
    """Embeds events: the video, whether it was completed, and the time since the event before it."""

    def __init__(
        self, config: RetrievalConfig, num_videos: int, generator: torch.Generator, storage: TableStorage
    ) -> None:
        super().__init__()
        self.length = config.history_length
        self.videos = EmbeddingTable(num_videos, config.embedding_dim, generator, storage=storage)
        self.outcome = nn.Parameter(torch.randn((2, config.embedding_dim), generator=generator) * 0.02)
        self.gap = nn.Parameter(torch.randn((NUM_GAPS, config.embedding_dim), generator=generator) * 0.02)

    def forward(self, context: UserContext) -> tuple[Float[Tensor, "batch history dim"], Bool[Tensor, "batch history"]]:
        """Gives the vectors, and which of them are events rather than padding."""
        device = self.outcome.device
        rows = context.video_row[:, : self.length]
        real = rows > 0
        gaps = np.zeros(rows.shape, dtype=np.int64)
        times = context.timestamp[:, : self.length]
        gaps[:, :-1] = gap_buckets(times[:, :-1] - times[:, 1:]) * real[:, 1:]
        completed = tensor_on(device, context.completed[:, : self.length].astype(np.int64))
        vectors = self.videos(tensor_on(device, rows)) + self.outcome[completed] + self.gap[tensor_on(device, gaps)]
        mask = tensor_on(device, real)
        return vectors * mask[:, :, None], mask


class AttentionPooling(nn.Module):
    """A weighted mean of everything shown, its weights a learnt function of video, outcome, gap and age."""

    def __init__(
        self,
        config: RetrievalConfig,
        num_videos: int,
        has_impressions: bool,
        generator: torch.Generator,
        storage: TableStorage,
    ) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.config = config
        self.generator = generator
        self.events = _Events(config, num_videos, generator, storage)
        self.scores = linear(dim, config.attention_heads, generator)
        self.by_age = nn.Parameter(torch.zeros(NUM_GAPS, config.attention_heads))
        self.by_place = nn.Parameter(torch.zeros(config.history_length, config.attention_heads))
        self.num_outputs = dim * config.attention_heads

    def forward(self, context: UserContext, windows: BatchWindows | None = None) -> Float[Tensor, "batch dim"]:
        """Gives one weighted mean for each head, side by side."""
        vectors, real = self.events(context)
        if self.training and self.config.dropout > 0.0:
            real = real & kept_at_random(real.shape, self.config.dropout, self.generator).to(real.device)
        ages = context.moment[:, None] - context.timestamp[:, : self.config.history_length]
        age = self.by_age[tensor_on(real.device, gap_buckets(ages))]
        scores = self.scores(vectors).float() + age + self.by_place[: real.shape[1]]
        weights = torch.softmax(scores.masked_fill(~real[:, :, None], -torch.inf), dim=1).nan_to_num(0.0)
        pooled = torch.einsum("bhk,bhd->bkd", weights, vectors.float())
        return pooled.flatten(1)


class TransformerHistory(nn.Module):
    """A causal transformer over events in order; a user is what stands at the newest event.

    An event attends to itself and to older ones; how much, depends besides their vectors on how many events and
    how much time lie between (a learnt bias for each, in steps of doubling), never on the place in the window.
    So training may read a window once for all the examples in it.

    Source: SASRec (Kang and McAuley, 2018) for the architecture, here with layer normalisation before each part.
    """

    def __init__(
        self,
        config: RetrievalConfig,
        num_videos: int,
        has_impressions: bool,
        generator: torch.Generator,
        storage: TableStorage,
    ) -> None:
        super().__init__()
        self.config = config
        self.generator = generator
        self.events = _Events(config, num_videos, generator, storage)
        self.layers = nn.ModuleList(_Layer(config, generator) for _ in range(config.transformer_layers))
        self.norm = nn.LayerNorm(config.embedding_dim)
        self.num_outputs = config.embedding_dim

    def forward(self, context: UserContext, windows: BatchWindows | None = None) -> Float[Tensor, "batch dim"]:
        """Gives the vector at each user's newest event, or for windows at each example's newest visible event."""
        history = windows.history if windows else context
        events, real = self.events(history)
        events = _dropped(events, self.config.dropout if self.training else 0.0, self.generator)
        near = self._nearness(history, real)
        for layer in self.layers:
            events = layer(events, near)
        events = self.norm(events.float())
        batch, length = real.shape
        places = torch.arange(length, device=real.device)
        # From each place on, that of the newest event: a video outside the vocabulary is none.
        newest = places.where(real, length).flip(1).cummin(dim=1).values.flip(1)
        if windows is None:
            window, place = torch.arange(batch, device=real.device), newest[:, 0]
        else:
            window, hidden = windows.window.to(real.device), windows.hidden.to(real.device)
            place = newest[window, hidden.clamp(max=length - 1)].where(hidden < length, length)
        return torch.where((place < length)[:, None], events[window, place.clamp(max=length - 1)], 0.0)

    def _nearness(
        self, history: UserContext, real: Bool[Tensor, "batch history"]
    ) -> tuple[Int[Tensor, "history history"], Int[Tensor, "batch history history"], Bool[Tensor, "..."]]:
        """Buckets of the distance and of the time between any two events, and who may look at whom."""
        times = history.timestamp[:, : self.config.history_length]
        length = times.shape[1]
        places = np.arange(length)
        distance = np.abs(places[:, None] - places[None, :])
        near = np.minimum(distance, _NUM_DISTANCES // 2)
        far = np.log2(np.maximum(distance, 1) / (_NUM_DISTANCES // 2)).clip(min=0) * 8
        distance = np.minimum(near + far.astype(np.int64), _NUM_DISTANCES - 1)
        between = gap_buckets(np.abs(times[:, :, None] - times[:, None, :]))
        older = tensor_on(real.device, places[:, None] <= places[None, :])
        # Padding looks at itself, so that every row of the softmax has something.
        allowed = older & (real[:, None, :] | torch.eye(length, dtype=torch.bool, device=real.device))
        return tensor_on(real.device, distance), tensor_on(real.device, between), allowed[:, None]


class _Layer(nn.Module):
    """Attention among events, then two dense layers, each added to what came in."""

    def __init__(self, config: RetrievalConfig, generator: torch.Generator) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.heads = config.attention_heads
        self.dropout = config.dropout
        self.generator = generator
        self.before_attention, self.before_dense = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.inward, self.outward = linear(dim, 3 * dim, generator), linear(dim, dim, generator)
        self.wider, self.narrower = linear(dim, _WIDENING * dim, generator), linear(_WIDENING * dim, dim, generator)
        self.by_distance = nn.Parameter(torch.zeros(_NUM_DISTANCES, self.heads))
        self.by_gap = nn.Parameter(torch.zeros(NUM_GAPS, self.heads))
        with torch.no_grad():
            for part in (self.outward, self.narrower):
                part.weight.mul_(0.5)

    def forward(
        self,
        events: Float[Tensor, "batch history dim"],
        near: tuple[Int[Tensor, "history history"], Int[Tensor, "batch history history"], Bool[Tensor, "..."]],
    ) -> Float[Tensor, "batch history dim"]:
        """Gives the events again, each knowing of the older ones."""
        distance, between, allowed = near
        batch, length, dim = events.shape
        parts = self.inward(self.before_attention(events)).reshape(batch, length, 3, self.heads, dim // self.heads)
        asked, offered, told = parts.permute(2, 0, 3, 1, 4)
        bias = (self.by_distance[distance] + self.by_gap[between]).permute(0, 3, 1, 2)
        scores = (asked @ offered.transpose(-1, -2)).float() / math.sqrt(dim // self.heads) + bias
        weights = torch.softmax(scores.masked_fill(~allowed, -torch.inf), dim=-1).to(told.dtype)
        heard = (weights @ told).transpose(1, 2).reshape(batch, length, dim)
        rate = self.dropout if self.training else 0.0
        events = events + _dropped(self.outward(heard), rate, self.generator)
        dense = self.narrower(functional.gelu(self.wider(self.before_dense(events))))
        return events + _dropped(dense, rate, self.generator)


def gap_buckets(seconds: Int[Array, "..."]) -> Int[Array, "..."]:
    """Gives 1 for no time between, then one step more for every doubling of the seconds.

    >>> gap_buckets(np.array([0, 1, 2, 3, 4, 86_400])).tolist()
    [1, 2, 3, 3, 4, 18]
    """
    steps = np.log2(np.maximum(seconds, 1).astype(np.float64)).astype(np.int64) + 2
    return np.where(seconds <= 0, 1, np.minimum(steps, NUM_GAPS - 1))


def _dropped(
    vectors: Float[Tensor, "batch history dim"], rate: float, generator: torch.Generator
) -> Float[Tensor, "batch history dim"]:
    """Dropout from a generator of our own, so that a resumed run draws the same."""
    if rate == 0.0:
        return vectors
    return vectors * kept_at_random(vectors.shape, rate, generator).to(vectors) / (1.0 - rate)


HistoryEncoder: TypeAlias = MeanHistory | AttentionPooling | TransformerHistory
"""Gives one vector of `num_outputs` for each user's history, newest event first; without history, zeros."""

ENCODERS: dict[str, type[HistoryEncoder]] = {
    "mean": MeanHistory,
    "attention": AttentionPooling,
    "transformer": TransformerHistory,
}
