"""The ranking network: shared embeddings, normalised continuous features, a ReLU tower, objectives and heads (§4)."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from watchnext.config import RankingConfig
from watchnext.examples.quantiles import Quantiles, with_powers
from watchnext.features.inputs import QUERY_IDS, RankingInputs
from watchnext.layers.embedding import IN_MEMORY, EmbeddingTable, TableStorage, embedding_dim_for
from watchnext.layers.tensors import device_of, kept_at_random, tensor_on
from watchnext.layers.tower import Tower, linear
from watchnext.ranking.calibration import Calibration
from watchnext.ranking.kinds import objective_of
from watchnext.ranking.objectives import Objective, Outcomes
from watchnext.shapes import Array, Bool, Float, Int, Tensor

HEADS = ("click", "completion", "like")
"""What is learnt beside watch time, each by one logit."""

_HOURS, _WEEKDAYS = 25, 8
_MAX_POSITION = 100
_ROWS_AT_ONCE = 4096


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
    """Some impressions, one candidate each, where on the page they were shown, and what came of them."""

    inputs: RankingInputs
    position: Int[Array, "rows"]
    outcomes: Outcomes


@dataclass(frozen=True)
class Predictions:
    """What the ranker says of candidates: what they are sorted by, and how long each will be watched."""

    score: Float[Array, "batch candidates"]
    expected_watch_seconds: Float[Array, "batch candidates"]


class RankingNetwork(nn.Module):
    """Gives each candidate the outputs of its objectives and heads, and what those mean.

    Ids of one space share one table: the impressed video and the last watched ones, each still an input of its own.
    The position on the page adds to the outputs while training and is left out when serving; so that leaving it (or
    the surface) out is nothing new, a share of the impressions is learnt without.
    """

    def __init__(
        self,
        sizes: RankingSizes,
        config: RankingConfig,
        query_quantiles: Quantiles,
        quantiles: Quantiles,
        generator: torch.Generator,
        storage: TableStorage = IN_MEMORY,
    ) -> None:
        super().__init__()
        self.sizes = sizes
        self.config = config
        self.query_quantiles = query_quantiles
        self.quantiles = quantiles
        self.generator = generator
        self.videos = _table(sizes.num_videos, generator, storage)
        self.channels = _table(sizes.num_channels, generator, storage)
        self.tags = _table(sizes.num_tags, generator, storage)
        self.query_ids = nn.ModuleList(_table(size, generator, storage) for size in sizes.query_ids)
        self.video_ids = nn.ModuleList(_table(size, generator, storage) for size in sizes.video_categories)
        self.objectives = nn.ModuleList(objective_of(name, config) for name in config.objectives)
        self.heads = HEADS if config.head_weight else ()
        self.widths = [*(objective.num_outputs for objective in self._objectives), *(1 for _ in self.heads)]
        vocabularies = (sizes.num_videos, sizes.num_videos, sizes.num_channels, sizes.num_tags)
        embedded = (*vocabularies, *sizes.query_ids, *sizes.video_categories)
        num_values = len(query_quantiles.knots) + len(quantiles.knots)
        num_inputs = sum(embedding_dim_for(size) for size in embedded) + (3 if config.powers else 1) * num_values
        self.tower = Tower(num_inputs, config.tower, generator, config.dropout)
        self.outputs = linear(self.tower.num_outputs, sum(self.widths), generator)
        self.positions = EmbeddingTable(_MAX_POSITION + 1, sum(self.widths), generator, scale=0.0)
        self.calibration = Calibration()

    @torch.no_grad()
    def start_from(self, outcomes: Outcomes) -> None:
        """Fits the objectives to the training impressions, and starts where all impressions are predicted alike."""
        outcomes = self._capped(outcomes)
        starts = [objective.fit(outcomes) for objective in self._objectives]
        starts += [torch.logit(labels.float().mean()[None], eps=1e-4) for labels in self._labels(outcomes)]
        self.outputs.bias.copy_(torch.cat(starts))
        self.outputs.weight.mul_(0.1)

    def forward(self, inputs: RankingInputs) -> Float[Tensor, "batch candidates outputs"]:
        """Gives the outputs; the query's part is computed once and repeated for each candidate."""
        batch, candidates = inputs.video_row.shape
        repeated = self._query(inputs).repeat_interleave(candidates, dim=0)
        activations = self.tower(torch.cat([repeated, self._candidates(inputs)], dim=1))
        outputs: Tensor = self.outputs(activations)
        return outputs.reshape(batch, candidates, sum(self.widths))

    def loss(self, batch: RankingBatch) -> Float[Tensor, ""]:
        """Gives the sum of the objectives' losses and of the heads' weighted ones over a batch of impressions."""
        inputs, position = self._some_without_bias(batch) if self.training else (batch.inputs, None)
        outputs = self(inputs)[:, 0].float()
        if position is not None:
            outputs = outputs + self.positions(self._tensor(position))
        outcomes = self._capped(
            Outcomes(**{name: part.to(device_of(self)) for name, part in vars(batch.outcomes).items()})
        )
        parts = torch.split(outputs, self.widths, dim=1)
        losses = [objective.loss(part, outcomes) for objective, part in zip(self._objectives, parts, strict=False)]
        logits = outputs[:, outputs.shape[1] - len(self.heads) :]
        for place, labels in enumerate(self._labels(outcomes)):
            losses.append(self.config.head_weight * binary_cross_entropy_with_logits(logits[:, place], labels.float()))
        return torch.stack(losses).sum()

    @torch.no_grad()
    def calibrate(
        self, inputs: RankingInputs, watch_seconds: Float[Array, "rows"], like: Calibration | None = None
    ) -> None:
        """Fits the calibration to impressions, one candidate each, that the network has not learnt from if possible.

        A network that has learnt from them takes the curve of one `like` it that has not, and only its own level.
        """
        self.eval()
        found = []
        for start in range(0, len(inputs), _ROWS_AT_ONCE):
            part = inputs.part(slice(start, start + _ROWS_AT_ONCE))
            found.append(torch.stack(self._order_and_mean(self(part).flatten(0, 1), part)))
        order, mean = torch.cat(found, dim=1).cpu().numpy()
        if like is None:
            self.calibration.fit(order, mean, watch_seconds)
        else:
            self.calibration.load_state_dict(like.state_dict())
            self.calibration.adopt(order, mean, watch_seconds)

    @torch.inference_mode()
    def predictions(self, inputs: RankingInputs) -> Predictions:
        """Gives what the network says of candidates, on a page of no place in particular."""
        self.eval()
        return self.meaning(self(inputs), inputs)

    def meaning(self, outputs: Float[Tensor, "batch candidates outputs"], inputs: RankingInputs) -> Predictions:
        """Gives what outputs say: expected watch seconds, calibrated, and the score, their product with the heads'.

        score = expected watch seconds · P(click)^click_power · P(completion)^completion_power · P(like)^like_power
        """
        rows = outputs.flatten(0, 1)
        seconds = self.calibration(*self._order_and_mean(rows, inputs))
        powers = (self.config.click_power, self.config.completion_power, self.config.like_power)
        score = seconds
        for place, power in enumerate(powers, start=rows.shape[1] - len(powers)):
            if power:
                score = score * torch.sigmoid(rows[:, place]) ** power
        shape = inputs.video_row.shape
        return Predictions(*(part.reshape(shape).cpu().numpy() for part in (score, seconds)))

    def _order_and_mean(
        self, rows: Float[Tensor, "rows outputs"], inputs: RankingInputs
    ) -> tuple[Float[Tensor, "rows"], Float[Tensor, "rows"]]:
        parts, durations = torch.split(rows, self.widths, dim=1), self._tensor(inputs.duration_seconds.reshape(-1))
        last = len(self.objectives) - 1
        order = self._objectives[0].order(parts[0], durations)
        return order, self._objectives[last].expected_watch_seconds(parts[last], durations)

    def _some_without_bias(self, batch: RankingBatch) -> tuple[RankingInputs, Int[Array, "rows"]]:
        """The batch's inputs and positions, surface and position unknown in a share of them."""
        kept = kept_at_random(torch.Size([len(batch.position)]), self.config.bias_dropout, self.generator).numpy()
        query_ids = batch.inputs.query_ids.copy()
        query_ids[:, QUERY_IDS.index("surface")] *= kept
        return replace(batch.inputs, query_ids=query_ids), np.minimum(batch.position, _MAX_POSITION) * kept

    def _capped(self, outcomes: Outcomes) -> Outcomes:
        return replace(outcomes, watch_seconds=outcomes.watch_seconds.clamp(max=self.config.max_watch_seconds))

    def _labels(self, outcomes: Outcomes) -> list[Bool[Tensor, "rows"]]:
        """The heads' labels, in their order."""
        return [outcomes.clicked, outcomes.completed, outcomes.liked] if self.heads else []

    @property
    def _objectives(self) -> list[Objective]:
        return [objective for objective in self.objectives if isinstance(objective, Objective)]

    def _query(self, inputs: RankingInputs) -> Float[Tensor, "batch inputs"]:
        values = self._shown(self.query_quantiles.normalised(inputs.query_values))
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
                self._tensor(self._shown(self.quantiles.normalised(values))),
            ],
            dim=1,
        )

    def _shown(self, normalised: Float[Array, "rows features"]) -> Float[Array, "rows _"]:
        return with_powers(normalised) if self.config.powers else normalised

    def _tensor(self, array: Array) -> Tensor:
        return tensor_on(device_of(self), array)


def _flat(column: Array) -> Array:
    """Lays the candidates of all users one below the other; there may be none."""
    batch, candidates, width = column.shape
    return column.reshape(batch * candidates, width)


def _table(size: int, generator: torch.Generator, storage: TableStorage) -> EmbeddingTable:
    return EmbeddingTable(size, embedding_dim_for(size), generator, storage=storage)
