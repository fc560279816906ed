"""The candidate generation network: a user tower, a video side, and the loss that trains both (§3)."""

from dataclasses import dataclass

import torch
from torch import nn

from watchnext.config import RetrievalConfig
from watchnext.events.dataset import VideoTable
from watchnext.examples.contexts import UserContext
from watchnext.examples.next_watch import RetrievalBatch
from watchnext.examples.quantiles import Quantiles
from watchnext.layers.embedding import IN_MEMORY, TableStorage
from watchnext.layers.tensors import device_of
from watchnext.retrieval.calibration import AS_LEARNT, Calibration
from watchnext.retrieval.loss import sampled_softmax_loss
from watchnext.retrieval.sampling import SampledVideos
from watchnext.retrieval.sizes import RetrievalSizes
from watchnext.retrieval.user_tower import UserTower
from watchnext.retrieval.video_side import all_vectors, video_side
from watchnext.shapes import Array, Float, Tensor


@dataclass(frozen=True)
class RetrievalModel:
    """What serves: a user tower, and the exported vectors of all videos, row 0 the zero vector.

    The dot product of a user's and a video's vector, divided by the temperature, is the logit of watching it next.
    `calibration` makes its probabilities honest; it changes no order.
    """

    user_tower: UserTower
    video_vectors: Float[Array, "videos dim"]
    calibration: Calibration = AS_LEARNT

    @property
    def config(self) -> RetrievalConfig:
        """The settings it was trained with."""
        return self.user_tower.config

    def vectors_of(self, context: UserContext) -> Float[Array, "batch dim"]:
        """Gives the user vectors."""
        return self.user_tower.vectors_of(context)

    @torch.inference_mode()
    def logits(
        self, context: UserContext, example_age_days: Float[Tensor, "batch"] | None = None
    ) -> Float[Array, "batch videos"]:
        """Gives the logit of every video, as trained; that of row 0 is -inf."""
        self.user_tower.eval()
        users = self.user_tower(context, example_age_days).float().cpu()
        logits = users @ torch.from_numpy(self.video_vectors).T / self.config.temperature
        logits[:, 0] = -torch.inf
        found: Array = logits.numpy()
        return found

    def probabilities(
        self, context: UserContext, example_age_days: Float[Tensor, "batch"] | None = None
    ) -> Float[Array, "batch videos"]:
        """Gives the probability of every video to be the next one watched; row 0 has none (§3.1).

        With an example age, the probability that long before the newest example. The cost is that of a scan of the
        catalogue: for looking, not for serving.
        """
        logits = torch.from_numpy(self.logits(context, example_age_days))
        return self.calibration.probabilities(logits).numpy()


class RetrievalNetwork(nn.Module):
    """User tower and video side in training.

    `user_quantiles` and `video_quantiles` are those of the numeric attributes, `videos` what is known of each video.
    """

    def __init__(
        self,
        sizes: RetrievalSizes,
        config: RetrievalConfig,
        user_quantiles: Quantiles,
        video_quantiles: Quantiles,
        videos: VideoTable,
        generator: torch.Generator,
        storage: TableStorage = IN_MEMORY,
    ) -> None:
        super().__init__()
        self.sizes = sizes
        self.config = config
        self.users = UserTower(sizes, config, user_quantiles, videos, generator, storage)
        self.videos = video_side(config, sizes, videos, video_quantiles, generator, storage)
        self.video_quantiles = video_quantiles

    def loss(self, batch: RetrievalBatch, sampled: SampledVideos) -> Float[Tensor, ""]:
        """Gives the mean sampled-softmax loss of a batch."""
        users = self.users(batch.context, batch.example_age_days, batch.windows)
        device = users.device
        target_row, sampled = batch.target_row.to(device), sampled.on(device)
        vectors = self.videos(torch.cat([target_row.reshape(-1), sampled.rows]))
        targets, negatives = vectors[: target_row.numel()], vectors[target_row.numel() :]
        return sampled_softmax_loss(
            users / self.config.temperature,
            targets.reshape(*target_row.shape, -1),
            target_row,
            batch.target_weight.to(device),
            negatives,
            sampled,
            torch.from_numpy(batch.context.video_row).to(device) if self.config.mask_seen else None,
        )

    def trained(self) -> RetrievalModel:
        """Gives what serves."""
        return RetrievalModel(self.users, all_vectors(self.videos, self.sizes.num_videos, device_of(self)))
