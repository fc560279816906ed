"""Where a video's vector comes from: a free vector each, a tower over what is known of it, or both."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from watchnext.config import RetrievalConfig
from watchnext.events.dataset import VideoTable
from watchnext.examples.quantiles import Quantiles, with_powers
from watchnext.layers.embedding import EmbeddingTable, TableStorage, embedding_dim_for
from watchnext.layers.tensors import kept_at_random, tensor_on
from watchnext.layers.tower import Tower, linear
from watchnext.retrieval.sizes import RetrievalSizes
from watchnext.shapes import Array, Float, Int, Tensor

_ROWS_AT_ONCE = 16_384


def video_side(
    config: RetrievalConfig,
    sizes: RetrievalSizes,
    videos: VideoTable,
    quantiles: Quantiles,
    generator: torch.Generator,
    storage: TableStorage,
) -> nn.Module:
    """Gives the module that makes output vectors of rows of videos: the class weights of the softmax (§3.1).

    They are as long as a user's.
    """
    dim = config.tower[-1]
    free = EmbeddingTable(sizes.num_videos, dim, generator, storage=storage) if config.videos != "tower" else None
    tower = VideoTower(config, sizes, videos, quantiles, generator) if config.videos != "free" else None
    if free is None or tower is None:
        return free or tower  # type: ignore[return-value]  # the settings have one of them
    return FreeAndTower(free, tower, config.id_dropout, generator)


class VideoTower(nn.Module):
    """A vector from channel, categories, tags, title and numbers: also for a video that nobody watched yet.

    Numbers, the duration among them, enter as quantiles with powers. Where they are all unknown, the vector is that
    of an unknown video.
    """

    def __init__(
        self,
        config: RetrievalConfig,
        sizes: RetrievalSizes,
        videos: VideoTable,
        quantiles: Quantiles,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.attributes = videos
        self.quantiles = quantiles
        width = min(64, config.embedding_dim)
        self.channels = EmbeddingTable(sizes.num_channels, width, generator)
        self.tags = EmbeddingTable(sizes.num_tags, width, generator)
        self.title = EmbeddingTable(sizes.num_title_tokens, width, generator)
        self.categories = nn.ModuleList(
            EmbeddingTable(size, embedding_dim_for(size), generator) for _, size in sizes.video_categories
        )
        self.input_widths = [
            *[width] * 3,
            *(embedding_dim_for(size) for _, size in sizes.video_categories),
            3 * sizes.num_video_values,
        ]
        self.tower = Tower(sum(self.input_widths), config.video_tower, generator)
        self.vector = linear(self.tower.num_outputs, config.tower[-1], generator)

    def forward(self, rows: Int[Tensor, "rows"]) -> Float[Tensor, "rows dim"]:
        """Gives the vectors; row 0 too has one, which nobody asks for."""
        return self.of(self.attributes, rows.cpu().numpy())

    def of(self, videos: VideoTable, rows: Int[Array, "rows"]) -> Float[Tensor, "rows dim"]:
        """Gives the vectors of rows of any table of videos: new uploads, say."""
        device = self.vector.weight.device
        values = with_powers(self.quantiles.normalised(videos.continuous[rows]))
        categorical = videos.categorical[rows].astype(np.int64)
        parts = [
            self.channels(tensor_on(device, videos.channel_row[rows].astype(np.int64))),
            self.tags.mean(tensor_on(device, videos.tag_rows[rows].astype(np.int64))),
            self.title.mean(tensor_on(device, videos.title_rows[rows].astype(np.int64))),
            *(table(tensor_on(device, categorical[:, place])) for place, table in enumerate(self.categories)),
            tensor_on(device, values),
        ]
        vectors: Tensor = self.vector(self.tower(torch.cat(parts, dim=1)))
        return vectors


class FreeAndTower(nn.Module):
    """The sum of a free vector and the tower's; the free one is left out at random in training.

    A video that nobody `watched` in training has the tower's alone: its free vector only ever learnt what being a
    negative teaches.
    """

    watched: Tensor

    def __init__(self, free: EmbeddingTable, tower: VideoTower, dropout: float, generator: torch.Generator) -> None:
        super().__init__()
        self.free = free
        self.tower = tower
        self.dropout = dropout
        self.generator = generator
        self.register_buffer("watched", torch.zeros(len(free.weight), dtype=torch.bool))

    def forward(self, rows: Int[Tensor, "rows"]) -> Float[Tensor, "rows dim"]:
        """Gives the sums."""
        if self.training and self.dropout > 0.0:
            kept = kept_at_random(rows.shape, self.dropout, self.generator).to(rows)
        else:
            kept = self.watched[rows].to(rows)
        vectors: Tensor = self.free(rows * kept) + self.tower(rows)
        return vectors


@torch.inference_mode()
def all_vectors(
    side: nn.Module, num_videos: int, device: torch.device, file: Path | None = None
) -> Float[Array, "videos dim"]:
    """Gives the vectors of all videos in float32, a block at a time; row 0 is the zero vector.

    With a `file` they are written there as an array of NumPy's, and mapped: memory need not hold them.
    """
    side.eval()
    if isinstance(side, EmbeddingTable) and side.weight.dtype == torch.float32:
        whole: Array = side.weight.cpu().numpy()
        if file is not None:
            np.save(file, whole)
        return whole
    found: Array | None = None
    for start in range(0, num_videos, _ROWS_AT_ONCE):
        rows = torch.arange(start, min(start + _ROWS_AT_ONCE, num_videos), device=device)
        block = side(rows).float().cpu().numpy()
        if found is None:
            shape = (num_videos, block.shape[1])
            if file is None:
                found = np.empty(shape, dtype=np.float32)
            else:
                found = np.lib.format.open_memmap(file, "w+", np.float32, shape)
        found[start : start + len(block)] = block
    assert found is not None  # a catalogue has row 0
    found[0] = 0.0
    return found
