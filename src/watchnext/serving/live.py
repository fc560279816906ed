"""A bundle, and what happened since it was made: uploads, blocked videos, what is watched now."""

import copy
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from watchnext.artifacts import open_artifact
from watchnext.bundle.bundle import Bundle
from watchnext.errors import RequestError
from watchnext.events.dataset import VideoTable
from watchnext.examples.contexts import UserContext, UserRecords
from watchnext.features.inputs import RankingInputs
from watchnext.features.state import FeatureState, Keys
from watchnext.retrieval.candidates import CandidateGenerator, Candidates, CandidateSource
from watchnext.retrieval.channels import WatchedChannels
from watchnext.retrieval.fresh import FreshUploads
from watchnext.retrieval.index.live import LiveIndex
from watchnext.retrieval.index.protocol import BuiltIndex
from watchnext.retrieval.saved import open_video_tower
from watchnext.retrieval.trending import Trending
from watchnext.serving.events import LiveEvent
from watchnext.serving.stages import inputs_of
from watchnext.serving.uploads import Overlaid, Uploads, table_of_one
from watchnext.shapes import Array, Bool, Float, Int

_FILTERS_KEPT = 16
_ROWS_KEPT = 1 << 17


@dataclass(frozen=True)
class Filters:
    """What may come at all: videos of these categories, of these channels, no longer than this; empty is anything."""

    categories: tuple[str, ...] = ()
    channel_ids: tuple[str, ...] = ()
    max_duration_seconds: float | None = None


EVERYTHING = Filters()


@dataclass(frozen=True)
class Described:
    """What an answer says of a video; None where it is not known."""

    video_id: int | str | None
    title: str | None
    channel: str | None
    category: str | None
    duration_seconds: float | None
    uploaded_at: int | None


class LiveBundle:
    """A bundle that keeps up: think of it as the bundle made a moment ago, but for its networks.

    Events may be applied from any thread while requests are answered; a request sees each whole or not at all. What
    became of videos, channels and tags (the ranker's counters) is known up to the end of the bundle's log; what users
    did is asked of their records.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        generator, dataset = bundle.generator, bundle.dataset
        assert isinstance(generator.index, BuiltIndex)  # as `open_sources` gives it
        self.index = LiveIndex(generator.index)
        self.trending = Trending(dataset.log_end)
        self.generator: CandidateGenerator = copy.copy(generator)
        self.generator.index = self.index
        self.generator.beside = (*generator.beside, self.trending)
        self.uploads = Uploads.none(dataset, generator.network.video_vectors.shape[1])
        self.blocked = np.zeros(0, dtype=np.int64)
        self.latest_event = 0
        self._tower = open_video_tower(
            open_artifact(bundle.artifact.path / "retrieval", "retrieval", verify=False), dataset.videos
        )
        self._changing = threading.Lock()
        me = weakref.proxy(self)  # a bundle that no longer serves is to go at once, with its files
        self._mask_of = lru_cache(_FILTERS_KEPT)(
            lambda filters, num_uploads: LiveBundle._mask(me, filters, num_uploads)
        )
        self._log_mask_of = lru_cache(_FILTERS_KEPT)(lambda filters: LiveBundle._log_mask(me, filters))
        self._row_of = lru_cache(_ROWS_KEPT)(lambda one: int(dataset.vocabularies["videos"].rows_of([one])[0]))

    def apply(self, event: LiveEvent) -> None:
        """Takes one event in; what it says of one user alone is the business of that user's records.

        Raises:
            RequestError: an upload that says what no log of this bundle has, or of a video that is there.
        """
        self.apply_all([event], _raised)

    def apply_all(self, events: Sequence[LiveEvent], refused: Callable[[LiveEvent, Exception], None]) -> None:
        """Takes events in as `apply` does one after the other; of one that cannot be taken `refused` is told.

        Uploads are taken together, as far as nothing between them speaks of them: one costs what those before it cost.
        """
        with self._changing:
            waiting: dict[str, tuple[LiveEvent, VideoTable]] = {}
            for event in events:
                self.latest_event = max(self.latest_event, event.timestamp)
                try:
                    if event.kind == "upload":
                        self._await(event, waiting)
                        continue
                    if str(event.video_id) in waiting:
                        self._upload([*waiting.values()], refused)
                        waiting = {}
                    self._count(event)
                except Exception as error:
                    refused(event, error)
            self._upload([*waiting.values()], refused)

    def refuse_upload(self, video_id: str, columns: dict[str, Any]) -> None:
        """Refuses what `apply` could not take.

        Raises:
            RequestError: as there.
        """
        table_of_one(self.bundle.dataset, columns)
        if self.rows_of([video_id])[0]:
            raise RequestError("a video of this id is there already; its columns come with the next bundle.")

    def rows_of(self, video_ids: list[Any]) -> Int[Array, "videos"]:
        """Gives the rows of videos, uploads included; 0 for unknown ones."""
        uploads = self.uploads
        return np.array([self._row_of(one) or uploads.row_of(str(one)) for one in video_ids], dtype=np.int64)

    def ids_of(self, rows: Int[Array, "videos"]) -> list[Any]:
        """Gives the ids of videos, uploads included, written as the log writes them; None for row 0."""
        uploads, videos = self.uploads, self.bundle.dataset.vocabularies["videos"]
        new = rows >= uploads.first_row
        ids = videos.ids_of(np.where(new, 0, rows))
        for place in np.flatnonzero(new).tolist():
            text = uploads.ids[rows[place] - uploads.first_row]
            as_written = videos.as_written(text)
            ids[place] = text if as_written is None else as_written
        return ids

    def texts_of(self, rows: Int[Array, "videos"]) -> pa.Array:
        """Gives the ids as text, for files; null for row 0."""
        if rows.max(initial=0) < self.uploads.first_row:
            return self.bundle.dataset.vocabularies["videos"].column_of(rows).cast(pa.string())
        return pa.array([None if one is None else str(one) for one in self.ids_of(rows)], pa.string())

    def describe(self, rows: Int[Array, "videos"]) -> list[Described]:
        """Gives what is known of videos, uploads included."""
        dataset, uploads = self.bundle.dataset, self.uploads
        new = rows >= uploads.first_row
        table = uploads.table_of(dataset.videos, rows)
        ids, channels = self.ids_of(rows), dataset.vocabularies["channels"].ids_of(np.asarray(table.channel_row))
        categories = self._categories(table.categorical)
        durations = self._durations(table.continuous)
        found = []
        for place, row in enumerate(rows.tolist()):
            nth = row - uploads.first_row
            uploaded_at, seconds = int(table.uploaded_at[place]), float(durations[place])
            found.append(
                Described(
                    ids[place],
                    uploads.titles[nth] if new[place] else dataset.titles[row - 1].as_py() if row else None,
                    uploads.channels[nth] if new[place] else channels[place],
                    categories[place],
                    None if np.isnan(seconds) else seconds,
                    uploaded_at or None,
                )
            )
        return found

    def topics(self, rows: Int[Array, "videos"]) -> tuple[Int[Array, "videos"], Int[Array, "videos"]]:
        """Gives the channel and the topic of videos, 0 for unknown: its category, or else its first tag."""
        table = self.uploads.table_of(self.bundle.dataset.videos, rows)
        names = self.bundle.dataset.video_categories
        if "category" in names:
            return table.channel_row, table.categorical[:, names.index("category")]
        return table.channel_row, table.tag_rows[:, 0]

    def allowed(self, filters: Filters) -> Bool[Array, "_"] | None:
        """Gives which rows pass the filters; None where all do. The last sixteen answers are kept."""
        return None if filters == EVERYTHING else self._mask_of(filters, len(self.uploads))

    def inputs(
        self,
        records: UserRecords,
        context: UserContext,
        surface_rows: Int[Array, "batch"],
        candidates: Candidates,
        state: FeatureState,
    ) -> RankingInputs:
        """Gives the ranker's inputs of candidates. Where uploads are among them, `records` are of few users.

        Then the tables are copied for the videos that are met, and everything is asked of these.
        """
        bundle, events, rows = self.bundle, records.events, candidates.video_row
        first_new = bundle.dataset.num_videos
        users, moments = context.user_row, context.moment
        if rows.max(initial=0) < first_new and (not len(self.uploads) or events.video_row.max(initial=0) < first_new):
            values = state.read(events, users, moments, rows)
            return inputs_of(bundle.dataset.videos, context, surface_rows, candidates, values, bundle.features)
        met = np.unique(np.concatenate([[0], events.video_row, rows.ravel()]))
        table = self.uploads.table_of(bundle.dataset.videos, met)
        keys = Keys.of(table, bundle.dataset.video_categories)
        slots = state.slots_of("video", np.where(met < first_new, met, 0))
        local = replace(state, keys=keys, slots=state.slots | {"video": slots})
        nearby = replace(events, video_row=np.searchsorted(met, events.video_row).astype(np.int32))
        asked = np.searchsorted(met, rows)
        values = local.read(nearby, users, moments, asked)
        spec = replace(bundle.features, durations=self._durations(table.continuous))
        found = inputs_of(table, context, surface_rows, replace(candidates, video_row=asked), values, spec)
        return replace(found, video_row=np.where(rows < first_new, rows, 0))

    def _await(self, event: LiveEvent, waiting: dict[str, tuple[LiveEvent, VideoTable]]) -> None:
        video_id = str(event.video_id)
        if video_id not in waiting and not self.rows_of([video_id])[0]:  # else a bundle that was made later knows it
            waiting[video_id] = event, table_of_one(self.bundle.dataset, dict(event.upload or {}))

    def _count(self, event: LiveEvent) -> None:
        if event.kind in ("block", "unblock") and event.user_id is None:
            row = self.rows_of([event.video_id])
            change = np.union1d if event.kind == "block" else np.setdiff1d
            self.blocked = change(self.blocked, row[row > 0])
        elif event.kind == "watch" and event.completed:
            row = self.rows_of([event.video_id])
            if row[0]:
                self.trending.count(int(row[0]), event.timestamp)

    def _upload(
        self, waiting: Sequence[tuple[LiveEvent, VideoTable]], refused: Callable[[LiveEvent, Exception], None]
    ) -> None:
        if not waiting:
            return
        try:
            self._upload_together(waiting)
        except Exception as error:
            if len(waiting) == 1:
                refused(waiting[0][0], error)
            else:  # one of them: nothing has changed yet
                for one in waiting:
                    self._upload([one], refused)

    def _upload_together(self, waiting: Sequence[tuple[LiveEvent, VideoTable]]) -> None:
        events, (first, *others) = [event for event, _ in waiting], [table for _, table in waiting]
        table = first.followed_by(others)
        rows = self.uploads.first_row + len(self.uploads) + np.arange(len(events))
        vectors = np.zeros((len(events), self.uploads.vectors.shape[1]), dtype=np.float32)
        if self._tower is not None:
            vectors = self._tower.of(table, np.arange(len(events))).detach().float().numpy()
        if not np.isfinite(vectors).all():
            raise RequestError("the video tower gives an upload no finite vector.")
        # What a source names must be known: the uploads themselves first, then their vectors, then those that nominate.
        self.uploads = self.uploads.and_these(events, table, vectors)
        self.generator.video_vectors = Overlaid(self.bundle.generator.video_vectors, self.uploads.vectors)
        heard_at = np.array([event.timestamp for event in events])
        uploaded_at = np.where(table.uploaded_at > 0, np.minimum(table.uploaded_at, heard_at), heard_at)
        self.generator.beside = tuple(
            _with_uploads(source, rows, table.channel_row, uploaded_at) for source in self.generator.beside
        )
        if self._tower is not None:
            self.index.add(rows, vectors)

    def _categories(self, categorical: Int[Array, "videos fields"]) -> list[Any]:
        names = self.bundle.dataset.video_categories
        if "category" not in names:
            return [None] * len(categorical)
        return self.bundle.dataset.vocabularies["videos.category"].ids_of(categorical[:, names.index("category")])

    def _durations(self, continuous: Float[Array, "videos values"]) -> Float[Array, "videos"]:
        numbers = self.bundle.dataset.facts["video_numbers"]
        if "duration_seconds" not in numbers:
            return np.full(len(continuous), np.nan, dtype=np.float32)
        return np.asarray(continuous[:, numbers.index("duration_seconds")])

    def _mask(self, filters: Filters, num_uploads: int) -> Bool[Array, "_"]:
        uploads = self.uploads
        of_channels = np.array([one in filters.channel_ids for one in uploads.channels], dtype=bool)
        of_uploads = self._passing(filters, uploads.table, of_channels)
        return np.concatenate([self._log_mask_of(filters), of_uploads[:num_uploads]])

    def _log_mask(self, filters: Filters) -> Bool[Array, "videos"]:
        """A scan of the catalogue's columns."""
        videos = self.bundle.dataset.videos
        of_channels = np.isin(videos.channel_row, self._known("channels", filters.channel_ids))
        return self._passing(filters, videos, of_channels)

    def _passing(
        self, filters: Filters, videos: VideoTable, of_channels: Bool[Array, "videos"]
    ) -> Bool[Array, "videos"]:
        passing = of_channels if filters.channel_ids else np.ones(len(of_channels), dtype=bool)
        if filters.categories:
            names = self.bundle.dataset.video_categories
            if "category" not in names:
                raise RequestError("the bundle's log knows no categories: leave the filter out.")
            known = self._known("videos.category", filters.categories)
            passing &= np.isin(videos.categorical[:, names.index("category")], known)
        if filters.max_duration_seconds is not None:
            passing &= self._durations(videos.continuous) <= filters.max_duration_seconds
        return passing

    def _known(self, vocabulary: str, values: tuple[str, ...]) -> Int[Array, "rows"]:
        rows = self.bundle.dataset.vocabularies[vocabulary].rows_of(values)
        return rows[rows > 0]


def _with_uploads(
    source: CandidateSource,
    rows: Int[Array, "new"],
    channel_row: Int[Array, "new"],
    uploaded_at: Int[Array, "new"],
) -> CandidateSource:
    if isinstance(source, FreshUploads):
        return source.with_uploads(rows, uploaded_at)
    return source.with_uploads(rows, channel_row) if isinstance(source, WatchedChannels) else source


def _raised(_: LiveEvent, error: Exception) -> None:
    raise error
