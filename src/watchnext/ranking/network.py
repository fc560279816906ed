"""The ranking network: shared embeddings, normalised continuous features, a ReLU tower, one logit (§4)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from watchnext.config import RankingConfig
from watchnext.examples.quantiles import Quantiles, with_powers
from watchnext.features.inputs import QUERY_IDS, RankingInputs
from watchnext.layers.embedding import EmbeddingTable, embedding_dim_for
from watchnext.layers.tensors import device_of, tensor_on
from watchnext.layers.tower import Tower, linear
from watchnext.ranking.loss import watch_time_loss
from watchnext.shapes import Array, Bool, Float, Tensor

_HOURS, _WEEKDAYS = 25, 8


@dataclass(frozen=True)
class RankingSizes:
    """The sizes of all vocabularies, row 0 included."""

    num_videos: int
    num_channels: int
    num_tags: int
    num_surfaces: int
    user_categories: tuple[int, ...]
    video_categories: tuple[int, ...]

    @property
    def query_ids(self) -> tuple[int, ...]:
        """In the order of `RankingInputs.query_ids`."""
        own = dict(hour=_HOURS, weekday=_WEEKDAYS, surface=self.num_surfaces)
        return (*(own[name] for name in QUERY_IDS), *self.user_categories)


@dataclass(frozen=True)
class RankingBatch:
    """Some impressions, one candidate each, and what came of them."""

    inputs: RankingInputs
    watch_seconds: Float[Tensor, "batch"]
    clicked: Bool[Tensor, "batch"]


class RankingNetwork(nn.Module):
    """Gives each candidate a logit whose exponential is its expected watch time in units of `watch_unit_seconds`.

    Ids of one space share one table: the impressed video and the last watched ones, each still an input of its own.
    """

    scale: Tensor

    def __init__(
        self,
        sizes: RankingSizes,
        config: RankingConfig,
        query_quantiles: Quantiles,
        quantiles: Quantiles,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.sizes = sizes
        self.config = config
        self.query_quantiles = query_quantiles
        self.quantiles = quantiles
        self.videos = _table(sizes.num_videos, generator)
        self.channels = _table(sizes.num_channels, generator)
        self.tags = _table(sizes.num_tags, generator)
        self.query_ids = nn.ModuleList(_table(size, generator) for size in sizes.query_ids)
        self.video_ids = nn.ModuleList(_table(size, generator) for size in sizes.video_categories)
        vocabularies = (sizes.num_videos, sizes.num_videos, sizes.num_channels, sizes.num_tags)
        embedded = (*vocabularies, *sizes.query_ids, *sizes.video_categories)
        num_values = len(query_quantiles.knots) + len(quantiles.knots)
        num_inputs = sum(embedding_dim_for(size) for size in embedded) + 3 * num_values
        self.tower = Tower(num_inputs, config.tower, generator, config.dropout)
        self.logit = linear(self.tower.num_outputs, 1, generator)
        self.register_buffer("scale", torch.tensor(1.0))

    @torch.no_grad()
    def start_from_mean(self, watch_seconds: Float[Array, "rows"]) -> None:
        """Sets the output's bias to the mean watch time, and the scale that undoes the cap on long watches."""
        learnt = float(np.minimum(watch_seconds, self.config.max_watch_seconds).mean())
        self.logit.bias.fill_(float(np.log(max(learnt, 1e-6) / self.config.watch_unit_seconds)))
        self.logit.weight.mul_(0.1)
        self.scale.fill_(float(watch_seconds.mean()) / max(learnt, 1e-6))

    def forward(self, inputs: RankingInputs) -> Float[Tensor, "batch candidates"]:
        """Gives the logits; the query's part is computed once and repeated for each candidate."""
        batch, candidates = inputs.video_row.shape
        repeated = self._query(inputs).repeat_interleave(candidates, dim=0)
        activations = self.tower(torch.cat([repeated, self._candidates(inputs)], dim=1))
        logits: Tensor = self.logit(activations)
        return logits.reshape(batch, candidates)

    def loss(self, batch: RankingBatch) -> Float[Tensor, ""]:
        """Gives the weighted logistic loss of a batch of impressions."""
        return watch_time_loss(
            self(batch.inputs)[:, 0].float(),
            batch.watch_seconds.clamp(max=self.config.max_watch_seconds).to(device_of(self)),
            batch.clicked.to(device_of(self)),
            self.config.watch_unit_seconds,
            self.config.negatives,
        )

    @torch.inference_mode()
    def expected_watch_seconds(self, inputs: RankingInputs) -> Float[Array, "batch candidates"]:
        """Gives exp(logit), in seconds (§4.2)."""
        self.eval()
        seconds: Tensor = self(inputs).exp() * self.config.watch_unit_seconds * self.scale
        return seconds.cpu().numpy()

    def _query(self, inputs: RankingInputs) -> Float[Tensor, "batch inputs"]:
        values = with_powers(self.query_quantiles.normalised(inputs.query_values))
        return torch.cat(
            [
                self.videos.mean(self._tensor(inputs.last_watched)),
                *(table(self._tensor(inputs.query_ids[:, place])) for place, table in enumerate(self.query_ids)),
                self._tensor(values),
            ],
            dim=1,
        )

    def _candidates(self, inputs: RankingInputs) -> Float[Tensor, "rows inputs"]:
        values, video_ids, tag_rows = (_flat(column) for column in (inputs.values, inputs.video_ids, inputs.tag_rows))
        return torch.cat(
            [
                self.videos(self._tensor(inputs.video_row.reshape(-1))),
                self.channels(self._tensor(inputs.channel_row.reshape(-1))),
                self.tags.mean(self._tensor(tag_rows)),
                *(table(self._tensor(video_ids[:, place])) for place, table in enumerate(self.video_ids)),
                self._tensor(with_powers(self.quantiles.normalised(values))),
            ],
            dim=1,
        )

    def _tensor(self, array: Array) -> Tensor:
        return tensor_on(device_of(self), array)


def _flat(column: Array) -> Array:
    """Lays the candidates of all users one below the other; there may be none."""
    batch, candidates, width = column.shape
    return column.reshape(batch * candidates, width)


def _table(size: int, generator: torch.Generator) -> EmbeddingTable:
    return EmbeddingTable(size, embedding_dim_for(size), generator)
