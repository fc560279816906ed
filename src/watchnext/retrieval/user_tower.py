"""The user side of candidate generation: a context in, a vector out (§3.2)."""

import numpy as np
import torch
from torch import nn

from watchnext.config import RetrievalConfig
from watchnext.errors import ConfigurationError
from watchnext.events.dataset import VideoTable
from watchnext.examples.contexts import UserContext
from watchnext.examples.quantiles import Quantiles, with_powers
from watchnext.examples.windows import BatchWindows
from watchnext.layers.embedding import IN_MEMORY, EmbeddingTable, TableStorage, embedding_dim_for
from watchnext.layers.tensors import device_of, tensor_on
from watchnext.layers.tower import Tower
from watchnext.retrieval.history import ENCODERS, HistoryEncoder
from watchnext.retrieval.sizes import RetrievalSizes
from watchnext.shapes import Array, Float, Int, Tensor


class UserTower(nn.Module):
    """Maps users to vectors.

    Inputs, side by side: the encoded history; the mean of the embedded search tokens; a mean for each further bag
    (the channels, tags or categories of the watched videos); each embedded categorical attribute; each numeric one
    as its quantile with powers; the example age with powers.
    """

    def __init__(
        self,
        sizes: RetrievalSizes,
        config: RetrievalConfig,
        quantiles: Quantiles,
        videos: VideoTable,
        generator: torch.Generator,
        storage: TableStorage = IN_MEMORY,
    ) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.sizes = sizes
        self.config = config
        self.quantiles = quantiles
        self.attributes = videos
        self.history: HistoryEncoder = ENCODERS[config.history](
            config, sizes.num_videos, sizes.has_impressions, generator, storage
        )
        self.tokens = (
            EmbeddingTable(sizes.num_search_tokens, dim, generator, storage=storage)
            if sizes.num_search_tokens
            else None
        )
        self.bags = nn.ModuleList(
            EmbeddingTable(_size_of_bag(name, sizes), min(dim, 64), generator) for name in config.history_bags
        )
        self.categories = nn.ModuleList(
            EmbeddingTable(size, embedding_dim_for(size), generator) for size in sizes.user_categories
        )
        self.input_widths = [
            self.history.num_outputs,
            0 if self.tokens is None else dim,
            *[min(dim, 64)] * len(self.bags),
            *(embedding_dim_for(size) for size in sizes.user_categories),
            3 * sizes.num_user_values,
            3,
        ]
        self.tower = Tower(sum(self.input_widths), config.tower, generator, last_relu=config.last_relu)

    def forward(
        self,
        context: UserContext,
        example_age_days: Float[Tensor, "batch"] | None = None,
        windows: BatchWindows | None = None,
    ) -> Float[Tensor, "batch dim"]:
        """Gives the user vectors; the example age is zero when serving (§3.3).

        A context may be longer than the bags: only its newest part is used.
        """
        device = device_of(self)
        if example_age_days is None or not self.config.example_age:
            example_age_days = torch.zeros(len(context))
        age = (example_age_days.to(device) / self.sizes.training_days).clamp(0.0, 1.0)
        parts = [self.history(context, windows)]
        if self.tokens is not None:
            parts.append(self.tokens.mean(tensor_on(device, context.token_row[:, : self.config.num_search_tokens])))
        watched = context.watched_row[:, : self.config.history_length]
        for name, table in zip(self.config.history_bags, self.bags, strict=True):
            assert isinstance(table, EmbeddingTable)  # a ModuleList forgets of what
            parts.append(table.mean(tensor_on(device, self._bag(name, watched))))
        for place, table in enumerate(self.categories):
            parts.append(table(tensor_on(device, context.categorical[:, place].astype(np.int64))))
        values = with_powers(self.quantiles.normalised(context.continuous))
        parts += [tensor_on(device, values), torch.stack([age, age.square(), age.sqrt()], dim=1)]
        vectors: Tensor = self.tower(torch.cat(parts, dim=1))
        return vectors

    @torch.inference_mode()
    def vectors_of(self, context: UserContext) -> Float[Array, "batch dim"]:
        """Gives the user vectors for serving, as NumPy."""
        if self.training:
            self.eval()
        vectors: Tensor = self(context)
        return vectors.float().cpu().numpy()

    def _bag(self, name: str, watched_row: Int[Array, "batch history"]) -> Int[Array, "batch _"]:
        """What the watched videos have of an id space; padding has row 0."""
        if name == "channel":
            channels: Array = self.attributes.channel_row[watched_row].astype(np.int64)
            return channels
        if name == "tags":
            return self.attributes.tag_rows[watched_row].reshape(len(watched_row), -1).astype(np.int64)
        names = [column for column, _ in self.sizes.video_categories]
        rows: Array = self.attributes.categorical[watched_row, names.index(name)].astype(np.int64)
        return rows


def _size_of_bag(name: str, sizes: RetrievalSizes) -> int:
    known = {"channel": sizes.num_channels, "tags": sizes.num_tags, **dict(sizes.video_categories)}
    if name not in known:
        raise ConfigurationError(
            f"[retrieval] history_bags names {name!r}, which the videos of this log do not have; they have "
            f"{', '.join(known)}."
        )
    return known[name]
