"""The channels that a user watches most, and what everybody watches of them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from watchnext.artifacts import load_arrays, save_arrays
from watchnext.events.dataset import VideoTable
from watchnext.examples.contexts import UserContext
from watchnext.shapes import Array, Float, Int

_VIDEOS_OF_A_CHANNEL = 50
_MOST_CHANNELS = 10


@dataclass(frozen=True)
class WatchedChannels:
    """The best videos of each channel, most completed first; of each video its channel."""

    offsets: Int[Array, "offsets"]
    rows: Int[Array, "listed"]
    channel_row: Int[Array, "videos"]

    name = "channels"

    @classmethod
    def fit(cls, videos: VideoTable) -> "WatchedChannels":
        """Lists up to fifty videos of each channel by completed watches."""
        channel_row = np.asarray(videos.channel_row).astype(np.int64)
        order = np.lexsort((-np.asarray(videos.num_completed), channel_row))
        order = order[channel_row[order] > 0]
        offsets = np.searchsorted(channel_row[order], np.arange(1, channel_row.max(initial=0) + 2))
        place = np.arange(len(order)) - offsets[channel_row[order] - 1]
        kept = order[place < _VIDEOS_OF_A_CHANNEL]
        bounds = np.searchsorted(channel_row[kept], np.arange(channel_row.max(initial=0) + 2))
        return cls(bounds, kept.astype(np.int32), channel_row.astype(np.int32))

    def nominate(self, context: UserContext, k: int) -> tuple[Int[Array, "batch k"], Float[Array, "batch k"]]:
        """Gives up to k videos of the ten channels that each user completed most of, channels taking turns.

        The score is the user's number of completed watches of the channel.
        """
        rows = np.zeros((len(context), k), dtype=np.int64)
        scores = np.zeros((len(context), k), dtype=np.float32)
        for user, watched in enumerate(context.watched_row):
            channels, counts = np.unique(self.channel_row[watched[watched > 0]], return_counts=True)
            known = np.lexsort((channels, -counts))
            known = known[channels[known] > 0][:_MOST_CHANNELS]
            listed = [self.rows[self.offsets[one] : self.offsets[one + 1]] for one in channels[known]]
            turn = np.concatenate([np.arange(len(one)) for one in listed] or [np.zeros(0, dtype=np.int64)])
            order = np.argsort(turn, kind="stable")[:k]
            found = np.concatenate([*listed, np.zeros(0, dtype=np.int32)]).astype(np.int64)[order]
            rows[user, : len(found)] = found
            scores[user, : len(found)] = np.repeat(counts[known], [len(one) for one in listed])[order]
        return rows, scores

    def save(self, folder: Path) -> None:
        """Writes the lists."""
        save_arrays(folder, vars(self))

    @classmethod
    def open(cls, folder: Path) -> "WatchedChannels":
        """Maps what `save` wrote."""
        return cls(**load_arrays(folder, ("offsets", "rows", "channel_row")))
