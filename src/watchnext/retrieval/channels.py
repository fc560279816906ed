"""The channels that a user watches most, and what everybody watches of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from watchnext.artifacts import load_arrays, save_arrays
from watchnext.events.dataset import VideoTable
from watchnext.examples.contexts import UserContext
from watchnext.shapes import Array, Float, Int

_VIDEOS_OF_A_CHANNEL = 50
_MOST_CHANNELS = 10
_UPLOADS_OF_A_CHANNEL = 3
_NOBODY = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class WatchedChannels:
    """The best videos of each channel, most completed first; of each video its channel.

    `since` has the uploads of channels that came after it was saved, newest first.
    """

    offsets: Int[Array, "offsets"]
    rows: Int[Array, "rows"]
    channel_row: Int[Array, "videos"]
    since: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

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

        Uploads since come before all else. The score is the user's number of completed watches of the channel.
        """
        rows = np.zeros((len(context), k), dtype=np.int64)
        scores = np.zeros((len(context), k), dtype=np.float32)
        for user, watched in enumerate(context.watched_row):
            channels, counts = np.unique(self.channel_row[watched[watched > 0]], return_counts=True)
            known = np.lexsort((channels, -counts))
            known = known[channels[known] > 0][:_MOST_CHANNELS]
            listed, turns = zip(_NOBODY, *(self._of(one) for one in channels[known].tolist()), strict=True)
            order = np.argsort(np.concatenate(turns), kind="stable")[:k]
            found = np.concatenate(listed)[order]
            rows[user, : len(found)] = found
            scores[user, : len(found)] = np.repeat(counts[known], [len(one) for one in listed[1:]])[order]
        return rows, scores

    def with_uploads(self, rows: Int[Array, "new"], channel_row: Int[Array, "new"]) -> "WatchedChannels":
        """Gives these and some that came since, one after the other; one of an unknown channel is nobody's."""
        since = dict(self.since)
        for row, channel in zip(rows.tolist(), channel_row.tolist(), strict=True):
            if channel:
                since[channel] = (row, *since.get(channel, ()))[:_UPLOADS_OF_A_CHANNEL]
        return replace(self, since=since)

    def save(self, folder: Path) -> None:
        """Writes the lists."""
        save_arrays(folder, {name: getattr(self, name) for name in ("offsets", "rows", "channel_row")})

    @classmethod
    def open(cls, folder: Path) -> "WatchedChannels":
        """Maps what `save` wrote."""
        arrays = load_arrays(folder, ("offsets", "rows", "channel_row"))
        return cls(arrays["offsets"], arrays["rows"], arrays["channel_row"])

    def _of(self, channel_row: int) -> tuple[Int[Array, "rows"], Int[Array, "rows"]]:
        """A channel's videos and their turns."""
        since = np.array(self.since.get(channel_row, ()), dtype=np.int64)
        rows = np.concatenate([since, self.rows[self.offsets[channel_row] : self.offsets[channel_row + 1]]])
        return rows, np.arange(len(rows)) - len(since)
