"""The two stages of one bundle: a question becomes candidates, predictions, and a page."""

from dataclasses import dataclass

import numpy as np

from watchnext.examples.contexts import UserContext, UserRecords
from watchnext.features.inputs import RankingInputs
from watchnext.features.state import FeatureState
from watchnext.ranking.network import Predictions
from watchnext.retrieval.candidates import Candidates, Gather, Wish, one_by_one, without
from watchnext.serving.diversity import diverse
from watchnext.serving.live import LiveBundle
from watchnext.serving.stages import excluded_videos, request_context
from watchnext.shapes import Array, Bool, Float, Int, RowLists

STAGES = ("ranking", "retrieval")


@dataclass(frozen=True)
class Question:
    """Who asks for how much, as of when; one moment and one k for all users of a batch.

    `blocked` are rows that these users must not get, `allowed` says of every row whether it may come at all.
    """

    records: UserRecords
    user_row: Int[Array, "batch"]
    moment: int
    k: int
    surface_row: int = 0
    stage: str = "ranking"
    exclude_seen: bool | None = None
    blocked: RowLists | None = None
    allowed: Bool[Array, "_"] | None = None


@dataclass(frozen=True)
class Ranked:
    """Pages of several users, best first, padded with row 0; in retrieval's order no watch time is expected (NaN)."""

    video_row: Int[Array, "batch k"]
    score: Float[Array, "batch k"]
    expected_watch_seconds: Float[Array, "batch k"]
    sources: list[list[tuple[str, ...]]]


class Funnel:
    """Answers questions stage by stage; whoever calls decides how long each may take."""

    def __init__(self, live: LiveBundle) -> None:
        self.live = live
        self.serving = live.bundle.serving

    def context(self, question: Question) -> UserContext:
        """Gives what both stages ask of the users' past."""
        moments = np.full(len(question.user_row), question.moment, dtype=np.int64)
        bundle = self.live.bundle
        context = request_context(question.records, question.user_row, moments, bundle.generator, bundle.features)
        return context if not len(self.live.uploads) else _without(context, bundle.dataset.num_videos)

    def candidates(
        self,
        question: Question,
        context: UserContext,
        gather: Gather = one_by_one,
        users: Float[Array, "batch dim"] | None = None,
    ) -> Candidates:
        """Gives what the sources nominate, by their quotas, at least k. See `CandidateGenerator`."""
        serving = self.serving
        quotas = {
            name: getattr(serving, f"{name}_quota") for name in ("co_watch", "popular", "fresh", "channels", "trending")
        }
        k, struck = max(question.k, serving.num_candidates), self._struck(question, context)
        most = k if question.stage == "ranking" else None
        wish = Wish(k, struck, quotas, most, question.allowed, gather)
        return self.live.generator.candidates(context, wish, users)

    def popular(self, question: Question, context: UserContext) -> Candidates:
        """Gives what everybody watches of late, in its order, for when nothing else can be had."""
        generator = self.live.generator
        struck = self._struck(question, context) or [np.zeros(0, dtype=np.int64)] * len(context)
        rows, _ = generator.popular.nominate(context, max(question.k, generator.popular.rows.shape[1]))
        if question.allowed is not None:
            rows = np.where(question.allowed[rows], rows, 0)
        rows = without(rows, struck, question.k)
        scores = np.broadcast_to(-np.arange(question.k, dtype=np.float32), rows.shape)
        rank = np.where(rows > 0, np.arange(1, question.k + 1), 0)[:, :, None]
        return Candidates((generator.popular.name,), rows, scores, rank, scores[:, :, None])

    def inputs(
        self, question: Question, context: UserContext, candidates: Candidates, state: FeatureState
    ) -> RankingInputs:
        """Gives what the ranker reads of candidates, `state` being what was known at the question's moment."""
        surfaces = np.full(len(question.user_row), question.surface_row, dtype=np.int64)
        return self.live.inputs(question.records, context, surfaces, candidates, state)

    def predictions(self, inputs: RankingInputs) -> Predictions:
        """Gives what the ranker says of candidates."""
        return self.live.bundle.ranker.predictions(inputs)

    def page(self, question: Question, candidates: Candidates, said: Predictions | None) -> Ranked:
        """Gives the pages: by score, or without predictions in retrieval's order; k places within the limits."""
        if said is None:
            scores = candidates.network_score
            said = Predictions(scores, np.full(scores.shape, np.nan, dtype=np.float32))
        scores = np.where(candidates.video_row > 0, said.score, -np.inf)
        order = np.lexsort((candidates.video_row, -scores), axis=1)
        counts = np.isfinite(scores).sum(axis=1)
        chosen = [
            self._chosen(candidates.video_row[user], order[user, : counts[user]], question.k)
            for user in range(len(order))
        ]
        width = max((len(places) for places in chosen), default=0)
        places = np.array([np.pad(one, (0, width - len(one)), constant_values=-1) for one in chosen], dtype=np.int64)
        places = places.reshape(len(chosen), width)
        there = places >= 0
        rows, best, seconds = (
            np.where(there, np.take_along_axis(column, places, axis=1), nothing)
            for column, nothing in ((candidates.video_row, 0), (scores, -np.inf), (said.expected_watch_seconds, np.nan))
        )
        names = np.array(candidates.sources)
        sources = [
            [tuple(names[candidates.nominated[user, place]].tolist()) for place in listed]
            for user, listed in enumerate(chosen)
        ]
        return Ranked(rows, best, seconds, sources)

    def _chosen(self, rows: Int[Array, "candidates"], order: Int[Array, "width"], k: int) -> Int[Array, "k"]:
        """The places of a page among the candidates, best first."""
        serving = self.serving
        if not serving.max_per_channel and not serving.max_per_topic:
            return order[:k]
        channels, topics = self.live.topics(rows[order])
        return order[diverse([(channels, serving.max_per_channel), (topics, serving.max_per_topic)], k)]

    def _struck(self, question: Question, context: UserContext) -> RowLists | None:
        """What no source may nominate: seen before, blocked by the user or for everybody, not uploaded yet."""
        strike = self.serving.exclude_seen if question.exclude_seen is None else question.exclude_seen
        seen = excluded_videos(question.records, context, strike)
        blocked = [*([question.blocked] if question.blocked is not None else [])]
        for rows in (self.live.blocked, self.live.uploads.after(question.moment)):
            if len(rows):
                blocked.append([rows] * len(context))
        if not blocked:
            return seen
        lists = [*blocked, seen] if seen is not None else blocked
        return [np.unique(np.concatenate(one)) for one in zip(*lists, strict=True)]


def _without(context: UserContext, first_new: int) -> UserContext:
    """The context as the networks know it: an upload is an unknown video to them."""
    rows = {name: getattr(context, name) for name in ("video_row", "watched_row")}
    return UserContext(**vars(context) | {name: np.where(row < first_new, row, 0) for name, row in rows.items()})
