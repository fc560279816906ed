"""The recommender: a bundle that answers. No HTTP in here; command line and server both call it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from watchnext.bundle.bundle import Bundle
from watchnext.errors import RequestError, UnknownUserError
from watchnext.examples.contexts import UserContext, UserRecords
from watchnext.features.spec import empty_state
from watchnext.features.state import FeatureState
from watchnext.retrieval.candidates import Wish
from watchnext.serving.funnel import STAGES, Funnel, Question, Ranked
from watchnext.serving.live import LiveBundle
from watchnext.serving.recommendation import (
    Recommendation,
    Visitor,
    VisitorRecords,
    refuse_impossible_times,
)
from watchnext.serving.stages import excluded_videos, inputs_of, request_context
from watchnext.shapes import Array, Float, Int

_USERS_AT_ONCE = 64
_ROWS_AT_ONCE = 2048


class Recommender:
    """Answers who should watch what next.

    A list is made as of a moment: by default the end of the bundle's log, so that the same question has the same
    answer on the command line, from Python and over HTTP.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.live = LiveBundle(bundle)
        self.funnel = Funnel(self.live)
        self._earlier: tuple[int, FeatureState] | None = None

    @classmethod
    def open(cls, path: str | Path, verify: bool = True) -> "Recommender":
        """Loads the bundle in `path`; `verify=False` skips its files' bytes.

        Raises:
            ArtifactError: it is damaged or mixed.
        """
        return cls(Bundle.open(Path(path), verify))

    def recommend(
        self,
        user_id: int | str,
        k: int = 20,
        *,
        as_of: int | None = None,
        stage: str = "ranking",
        exclude_seen: bool | None = None,
        surface: str | None = None,
    ) -> list[Recommendation]:
        """Gives the k best videos for a user of the log, best first.

        Fewer than k only where the user has seen nearly everything and `exclude_seen` strikes it.

        Raises:
            UnknownUserError: nothing is known of the user.
            RequestError: an impossible k, stage, surface or moment.
        """
        user_row = self._known_user(user_id)
        return self._one_list(self.bundle.dataset, user_row, k, as_of, stage, exclude_seen, surface)

    def probabilities(
        self, user_id: int | str, video_ids: Sequence[Any], *, as_of: int | None = None
    ) -> Float[Array, "videos"]:
        """Gives, for each video, the probability that it is the next one the user watches (§3.1).

        They are normalised over the catalogue, which is scanned; a video that is not in it has NaN. What the user
        has seen counts as possible.

        Raises:
            UnknownUserError: nothing is known of the user.
            RequestError: an impossible moment.
        """
        dataset = self.bundle.dataset
        moments = np.full(1, self.moment(as_of), dtype=np.int64)
        context = self._context(dataset, self._known_user(user_id), moments)
        rows = dataset.vocabularies["videos"].rows_of(video_ids)
        chances = self.bundle.generator.network.probabilities(context)[0, rows]
        return np.where(rows > 0, chances, np.nan)

    def recommend_visitor(
        self,
        visitor: Visitor,
        k: int = 20,
        *,
        as_of: int | None = None,
        stage: str = "ranking",
        exclude_seen: bool | None = None,
        surface: str | None = None,
    ) -> list[Recommendation]:
        """Gives the k best videos for somebody described by the request: `recommend` without the log's user table.

        Without `as_of`, the moment is the end of the bundle's log, or just after the visitor's last event if that
        is later.

        Raises:
            RequestError: an impossible k, stage, surface, time or attribute.
        """
        refuse_impossible_times("timestamp", visitor.times)
        moment = self.moment(as_of, latest_event=max(visitor.times, default=0))
        records = VisitorRecords.of(visitor, self.bundle.dataset, moment)
        return self._one_list(records, np.array([1]), k, moment, stage, exclude_seen, surface)

    def recommend_many(
        self,
        user_ids: Sequence[Any],
        k: int,
        *,
        as_of: int | None = None,
        stage: str = "ranking",
        exclude_seen: bool | None = None,
    ) -> Iterator[tuple[list[Any], Ranked]]:
        """Gives the lists of many users, some users at a time, with their ids as the log has them.

        Unknown users get no list; the caller sees who is missing.

        Raises:
            RequestError: an impossible k or stage.
        """
        self.refuse_impossible(k, stage)
        rows = self.bundle.dataset.vocabularies["users"].rows_of(user_ids)
        known = np.flatnonzero(rows)
        for start in range(0, len(known), _USERS_AT_ONCE):
            part = rows[known[start : start + _USERS_AT_ONCE]]
            ranked = self._lists(self.bundle.dataset, part, k, as_of, stage, exclude_seen, None)
            yield self.bundle.dataset.vocabularies["users"].ids_of(part), ranked

    def score(
        self,
        user_ids: Sequence[Any],
        video_ids: Sequence[Any],
        timestamps: Int[Array, "rows"],
        surfaces: Sequence[Any] | None = None,
    ) -> Iterator[Float[Array, "rows"]]:
        """Gives the expected watch seconds of impressions, some at a time, each as of its own timestamp.

        Unknown users and videos are scored as such: without history, without embedding.
        """
        dataset, generator, serving = self.bundle.dataset, self.bundle.generator, self.bundle.serving
        user_rows = dataset.vocabularies["users"].rows_of(user_ids)
        video_rows = dataset.vocabularies["videos"].rows_of(video_ids)
        surface_rows = dataset.vocabularies["surfaces"].rows_of(surfaces or [None] * len(user_rows))
        values = self._nothing_known().replay(dataset.events, user_rows, timestamps, video_rows[:, None])
        for start in range(0, len(user_rows), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            context = self._context(dataset, user_rows[part], timestamps[part])
            excluded = excluded_videos(dataset, context, serving.exclude_seen)
            candidates = generator.describe(context, video_rows[part, None], Wish(serving.num_candidates, excluded))
            known = values.part(part)
            inputs = inputs_of(dataset.videos, context, surface_rows[part], candidates, known, self.bundle.features)
            yield self.bundle.ranker.predictions(inputs).expected_watch_seconds[:, 0]

    def user_vectors(self, user_rows: Int[Array, "batch"], *, as_of: int | None = None) -> Float[Array, "batch dim"]:
        """Gives the vectors of users of the log, by row."""
        moments = np.full(len(user_rows), self.moment(as_of), dtype=np.int64)
        return self.bundle.generator.network.vectors_of(self._context(self.bundle.dataset, user_rows, moments))

    def _known_user(self, user_id: int | str) -> Int[Array, "batch"]:
        user_row = self.bundle.dataset.vocabularies["users"].rows_of([user_id])
        if not user_row[0]:
            raise UnknownUserError(
                "this user is not in the bundle's log. Send the history along instead (POST /v1/recommendations, or "
                "Recommender.recommend_visitor), or prepare a log that has the user."
            )
        return user_row

    def _one_list(
        self,
        records: UserRecords,
        user_row: Int[Array, "batch"],
        k: int,
        as_of: int | None,
        stage: str,
        exclude_seen: bool | None,
        surface: str | None,
    ) -> list[Recommendation]:
        ranked = self._lists(records, user_row, k, as_of, stage, exclude_seen, surface)
        return recommendations(self.live, ranked)

    def _lists(
        self,
        records: UserRecords,
        user_rows: Int[Array, "batch"],
        k: int,
        as_of: int | None,
        stage: str,
        exclude_seen: bool | None,
        surface: str | None,
    ) -> Ranked:
        self.refuse_impossible(k, stage)
        surface_row = self.surface_row(surface)
        question = Question(records, user_rows, self.moment(as_of), k, surface_row, stage, exclude_seen)
        context = self.funnel.context(question)
        candidates = self.funnel.candidates(question, context)
        if stage == "retrieval":
            return self.funnel.page(question, candidates.only("network"), None)
        inputs = self.funnel.inputs(question, context, candidates, self.state_before(question.moment))
        return self.funnel.page(question, candidates, self.funnel.predictions(inputs))

    def moment(self, as_of: int | None, latest_event: int = 0) -> int:
        """Gives the moment of a question: `as_of`, or the end of the log, or just after a later event.

        Raises:
            RequestError: an impossible moment.
        """
        if as_of is None:
            return max(self.bundle.dataset.log_end, latest_event + 1)
        refuse_impossible_times("as_of", [as_of])
        return as_of

    def _nothing_known(self) -> FeatureState:
        return empty_state(self.bundle.dataset, self.bundle.features.config)

    def state_before(self, moment: int) -> FeatureState:
        """Gives what was known before the moment: of an earlier one than the log's end by replaying the log."""
        if moment >= self.bundle.dataset.log_end:
            return self.bundle.state
        if self._earlier is None or self._earlier[0] != moment:
            nobody = np.zeros(0, dtype=np.int64)
            state = self._nothing_known()
            state.replay(self.bundle.dataset.events, nobody, nobody, nobody[:, None], until=moment)
            self._earlier = moment, state
        return self._earlier[1]

    def _context(self, records: UserRecords, user_rows: Array, moments: Array) -> UserContext:
        return request_context(records, user_rows, moments, self.bundle.generator, self.bundle.features)

    def surface_row(self, surface: str | None) -> int:
        """Gives the row of a surface, 0 if none is named.

        Raises:
            RequestError: the log does not know it.
        """
        surfaces = self.bundle.dataset.vocabularies["surfaces"]
        row = int(surfaces.rows_of([surface])[0]) if surface is not None else 0
        if surface is not None and not row:
            raise RequestError("this surface does not occur in the bundle's log; leave it out if it is new.")
        return row

    def refuse_impossible(self, k: int, stage: str) -> None:
        """Refuses a k or a stage that cannot be.

        Raises:
            RequestError: so it is.
        """
        num_videos = self.bundle.dataset.num_videos - 1
        if not 1 <= k <= num_videos:
            raise RequestError(f"k = {k}: between 1 and {num_videos:,} was expected, the videos of the catalogue.")
        if stage not in STAGES:
            raise RequestError(f"stage = {stage!r}: one of {', '.join(STAGES)} was expected.")


def recommendations(live: LiveBundle, ranked: Ranked) -> list[Recommendation]:
    """Gives the first page as the world sees it."""
    rows = ranked.video_row[0][ranked.video_row[0] > 0]
    seconds = ranked.expected_watch_seconds[0]
    return [
        Recommendation(
            **vars(one),
            score=float(ranked.score[0, place]),
            expected_watch_seconds=None if np.isnan(seconds[place]) else float(seconds[place]),
            sources=ranked.sources[0][place],
        )
        for place, one in enumerate(live.describe(rows))
    ]
