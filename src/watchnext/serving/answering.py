"""One request as it is lived through: a budget of time, a live history, and what is left out when time runs out."""

import logging
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from watchnext.config import ServingConfig
from watchnext.errors import UnknownUserError, WatchnextError
from watchnext.features.inputs import RankingInputs
from watchnext.retrieval.candidates import Candidates
from watchnext.serving.answered import Answered
from watchnext.serving.deadlines import Budget, SideBySide
from watchnext.serving.deployment import Deployed, Variant
from watchnext.serving.exchange import Answer, Ask
from watchnext.serving.explain import explained
from watchnext.serving.funnel import Question, Ranked
from watchnext.serving.live_records import Past, past_of
from watchnext.serving.recommendation import VisitorRecords, refuse_impossible_times
from watchnext.serving.recommender import recommendations
from watchnext.serving.stores.protocol import EventStore
from watchnext.shapes import Array, Float

_MOST_EVENTS_OF_A_USER = 5_000
_SHARE_FOR_RANKING = 0.8
_SPEED_KEPT = 0.9
_MOST_SOURCES = 8
_SECONDS_FOR_THE_PAST = 3600.0  # it replays the log, however long that takes
_log = logging.getLogger(__name__)


@dataclass
class _Ranking:
    """What a request found on its way."""

    question: Question
    candidates: Candidates
    page: Ranked
    inputs: RankingInputs | None = None
    user: Float[Array, "dim"] | None = None


@dataclass(frozen=True)
class Given:
    """An answer, and what others learn of it: the log of answers, the figures, and the probe of the index.

    `nominated` counts candidates by source. `user` is the user's vector, if one was asked for.
    """

    answer: Answer
    answered: Answered
    nominated: dict[str, int]
    user: Float[Array, "dim"] | None


@dataclass
class Answerer:
    """Answers requests from live histories, within their budgets.

    What does not fit is left out in this order: late sources, then candidates to rank, then ranking (the answer is in
    retrieval's order), then retrieval (what is popular). A stage that fails is left out like one that is late. `timed`
    is told how many seconds each stage took, a source's as `source:NAME`, even after the answer.
    """

    deployments: Deployed
    store: EventStore
    timed: Callable[[str, float], None]
    threads: int = 4
    _seconds_per_candidate: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._sources = SideBySide((self.threads + 2) * _MOST_SOURCES, self._source_timed)

    def given(self, ask: Ask, came_at: float | None = None) -> Given:
        """Gives a page, and what is told of it; the budget begins when the request came, by `time.perf_counter`.

        Raises:
            UnknownUserError: nothing is known of the user.
            RequestError: an impossible k, stage, surface, time, attribute or filter.
        """
        began = time.perf_counter()
        came_at = began if came_at is None else came_at
        self.timed("waiting", began - came_at)
        try:
            variant = self.deployments.now.variant_of(ask.user_id)
            recommender = variant.recommender
            recommender.refuse_impossible(ask.k, ask.stage)
            budget = _budget(ask, recommender.bundle.serving, came_at)
            with self._stage("history"):
                past = self._past(variant, ask, budget)
            question = self._question(variant, ask, past)
            found = self._ranked(variant, question, budget)
            answer = self._rendered(variant, ask, found, budget)
        finally:
            self.timed("total", time.perf_counter() - came_at)
        return _told(variant, ask, answer, found)

    def now(self, variant: Variant | None = None) -> int:
        """Gives the moment of a request that names none, by the bundle's clock."""
        recommender = (variant or self.deployments.now.variants[0]).recommender
        if recommender.bundle.serving.clock == "wall":
            return max(int(time.time()), recommender.live.latest_event + 1)  # an event of this second is known too
        return recommender.moment(None, recommender.live.latest_event)

    def past(self, variant: Variant, user_id: str) -> Past:
        """Gives what is known of a user, up to the latest event.

        Raises:
            StoreError: the store does not answer.
        """
        events = self.store.of_user(user_id, _MOST_EVENTS_OF_A_USER)
        return past_of(variant.recommender.live, user_id, events, self.store.forgotten_at(user_id))

    def close(self) -> None:
        """Ends the threads."""
        self._sources.close()

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """Times a stage, whether it ends well or not."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.timed(name, time.perf_counter() - began)

    def _source_timed(self, name: str, seconds: float) -> None:
        self.timed(f"source:{name}", seconds)

    def _past(self, variant: Variant, ask: Ask, budget: Budget) -> Past:
        nobody = np.zeros(0, dtype=np.int64)
        recommender = variant.recommender
        try:
            self.deployments.follow()
        except WatchnextError as error:
            self._leave_out("history", error, budget)
        if ask.visitor is not None:
            refuse_impossible_times("timestamp", ask.visitor.times)
            moment = recommender.moment(ask.as_of, max([*ask.visitor.times, self.now(variant) - 1]))
            return Past(VisitorRecords.of(ask.visitor, recommender.bundle.dataset, moment), nobody, True)
        assert ask.user_id is not None
        try:
            past = self.past(variant, ask.user_id)
        except WatchnextError as error:
            self._leave_out("history", error, budget)
            past = past_of(recommender.live, ask.user_id, [], None)
        if not past.is_known and "history" not in budget.degraded:
            raise UnknownUserError(
                "nothing is known of this user. Send the history along instead (POST /v1/recommendations), or events "
                "(POST /v1/events)."
            )
        return past

    def _question(self, variant: Variant, ask: Ask, past: Past) -> Question:
        recommender = variant.recommender
        times = (past.records.events.segments.timestamp, past.records.searches.segments.timestamp)
        latest = max(int(time.max(initial=0)) for time in times)
        moment = recommender.moment(ask.as_of, max(latest, self.now(variant) - 1))
        return Question(
            past.records, np.array([1]), moment, ask.k, recommender.surface_row(ask.surface), ask.stage,
            ask.exclude_seen, [past.blocked] if len(past.blocked) else None, recommender.live.allowed(ask.filters),
        )  # fmt: skip

    def _ranked(self, variant: Variant, question: Question, budget: Budget) -> _Ranking:
        """Retrieval and ranking, as far as they come."""
        funnel = variant.recommender.funnel
        try:
            with self._stage("user_vector"):
                context = funnel.context(question)
                user = funnel.live.generator.network.vectors_of(context)
            candidates = funnel.candidates(question, context, partial(self._sources.gather, budget=budget), user)
        except Exception as error:
            self._leave_out("trending", error, budget)
            return self._popular(variant, question)
        ranked = partial(_Ranking, question, user=user[0])
        if question.stage == "retrieval":
            candidates = candidates.only("network")
        num_found = int((candidates.video_row > 0).sum())
        if num_found < question.k and any(name.startswith("source:") for name in budget.degraded):
            popular = self._popular(variant, question)
            if (popular.page.video_row > 0).sum() > num_found:
                budget.degraded.append("trending")
                return popular
        if question.stage == "retrieval" or not num_found:
            return ranked(candidates, funnel.page(question, candidates, None))
        affordable = self._affordable(candidates.video_row.shape[1], budget)
        if affordable < min(question.k, candidates.video_row.shape[1]):
            budget.degraded.append("retrieval_order")
            return ranked(candidates, funnel.page(question, candidates, None))
        if affordable < candidates.video_row.shape[1]:
            budget.degraded.append("fewer_candidates")
            candidates = candidates.first(affordable)
        try:
            return ranked(candidates, *self._by_ranker(variant, question, context, candidates))
        except Exception as error:
            self._leave_out("retrieval_order", error, budget)
            return ranked(candidates, funnel.page(question, candidates, None))

    def _by_ranker(
        self, variant: Variant, question: Question, context: Any, candidates: Candidates
    ) -> tuple[Ranked, RankingInputs]:
        funnel = variant.recommender.funnel
        with self._stage("features"):
            state = variant.recommender.state_before(question.moment)
            began = time.perf_counter()
            inputs = funnel.inputs(question, context, candidates, state)
        with self._stage("ranking"):
            said = funnel.predictions(inputs)
        per_candidate = (time.perf_counter() - began) / candidates.video_row.shape[1]
        known = self._seconds_per_candidate or per_candidate
        self._seconds_per_candidate = _SPEED_KEPT * known + (1.0 - _SPEED_KEPT) * per_candidate
        return funnel.page(question, candidates, said), inputs

    def _affordable(self, count: int, budget: Budget) -> int:
        """How many candidates may be ranked in the time that is left, by what the last ones took.

        What is known of that fades while not all are ranked: else one slow moment would be believed for ever.
        """
        left = budget.left_seconds
        if left <= 0.0:
            return 0
        if left * _SHARE_FOR_RANKING >= count * self._seconds_per_candidate:
            return count
        affordable = int(left * _SHARE_FOR_RANKING / self._seconds_per_candidate)
        self._seconds_per_candidate *= _SPEED_KEPT
        return affordable

    def _popular(self, variant: Variant, question: Question) -> _Ranking:
        """What everybody watches, without anything of the user but what must not come."""
        funnel = variant.recommender.funnel
        candidates = funnel.popular(question, funnel.context(question))
        return _Ranking(question, candidates, funnel.page(question, candidates, None))

    def _leave_out(self, what: str, error: Exception, budget: Budget) -> None:
        kind = type(error).__name__  # its text may name somebody
        _log.error("left out of an answer: %s, because of a %s", what, kind)
        budget.degraded.append(what)

    def _rendered(self, variant: Variant, ask: Ask, found: _Ranking, budget: Budget) -> Answer:
        places = recommendations(variant.recommender.live, found.page)
        if ask.explain:
            question, inputs = found.question, found.inputs
            places = explained(variant.recommender.funnel, question, found.candidates, inputs, found.page, places)
        note = None if len(places) == ask.k else f"only {len(places)} videos are left that may be shown"
        degraded, moment = tuple(dict.fromkeys(budget.degraded)), found.question.moment
        return Answer(uuid.uuid4().hex, variant.version, variant.name, moment, degraded, note, tuple(places))


def _budget(ask: Ask, serving: ServingConfig, came_at: float) -> Budget:
    if ask.as_of is not None:
        return Budget(_SECONDS_FOR_THE_PAST)
    return Budget(serving.budget_ms / 1000, serving.source_budget_ms / 1000, came_at)


def _told(variant: Variant, ask: Ask, answer: Answer, found: _Ranking) -> Given:
    candidates, places = found.candidates, answer.recommendations
    kept = candidates.video_row[0] > 0
    answered = Answered(
        answer.request_id, answer.as_of, ask.user_id, ask.surface, answer.bundle, answer.variant, answer.degraded,
        [place.video_id for place in places], [place.score for place in places],
        [place.expected_watch_seconds for place in places], [place.sources for place in places],
        variant.recommender.live.texts_of(candidates.video_row[0][kept]), candidates.network_score[0][kept],
    )  # fmt: skip
    nominated = candidates.nominated[0].sum(axis=0).tolist()
    return Given(answer, answered, dict(zip(candidates.sources, nominated, strict=True)), found.user)
