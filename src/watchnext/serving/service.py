"""What becomes of requests and events beside the answers: what is kept of them, and what is told to whom."""

import time
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from watchnext.serving.answer_log import AnswerLog
from watchnext.serving.answering import Answerer, Given
from watchnext.serving.deployment import Deployments
from watchnext.serving.events import LiveEvent
from watchnext.serving.exchange import Answer, Ask
from watchnext.serving.live import LiveBundle
from watchnext.serving.metrics import Metrics
from watchnext.serving.stores.protocol import EventStore
from watchnext.shapes import Array, Float

_REMEMBERED = 100


@dataclass
class Service:
    """Answers requests, takes events in, and tells of both: the log of answers, the metrics, and who listens.

    `ask` is who answers: an `Answerer` of this process, or one of other processes.
    """

    deployments: Deployments
    store: EventStore
    answers: AnswerLog
    metrics: Metrics
    answerer: Answerer
    ask: Callable[[Ask, float | None], Given]
    told: Callable[[bool, dict[str, int], dict[str, int], int], None] = lambda *_: None

    def __post_init__(self) -> None:
        self.vectors: list[tuple[weakref.ref[LiveBundle], Float[Array, "dim"]]] = []
        self.num_candidates: list[int] = []

    def answer(self, ask: Ask, came_at: float | None = None) -> Answer:
        """Gives a page; `came_at` is when the request came, by `time.perf_counter`, if that was before now.

        Raises:
            UnknownUserError: nothing is known of the user.
            RequestError: an impossible k, stage, surface, time, attribute or filter.
        """
        given = self.ask(ask, came_at)
        self._keep(given)
        return given.answer

    def accept(self, events: Sequence[LiveEvent]) -> int:
        """Takes events in, and gives how many were new: on return they are on disk, and the next request knows them."""
        accepted = self.store.append(events)
        self.deployments.follow()
        for event in events:
            if event.kind == "watch" and event.page_id and event.watch_seconds is not None and event.video_id:
                self.metrics.calibration.watched(event.page_id, event.video_id, event.watch_seconds)
        return accepted

    def forget(self, user_id: str) -> int:
        """Deletes a person from the store and the answers, and gives how many events that were."""
        count = self.store.forget(user_id, int(time.time()))
        self.answers.erase(user_id)
        return count

    def close(self) -> None:
        """Ends the threads and writes what is left of the log of answers."""
        self.answerer.close()
        self.answers.close()
        self.store.close()

    def _keep(self, given: Given) -> None:
        """Tells the metrics, the operator, the log of answers and the probe."""
        answer, nominated = given.answer, given.nominated
        self.metrics.recommended(answer.variant, answer.degraded)
        filled = Counter(name for place in answer.recommendations for name in place.sources)
        self.metrics.funnel(nominated, filled)
        self.told(bool(answer.degraded), nominated, dict(filled), len(answer.recommendations))
        self.num_candidates.append(len(given.answered.candidate_ids))
        del self.num_candidates[:-_REMEMBERED]
        for place in answer.recommendations:
            if place.expected_watch_seconds is not None:
                self.metrics.calibration.expected(answer.request_id, str(place.video_id), place.expected_watch_seconds)
        self.answers.write(given.answered)
        live = [one.recommender.live for one in self.deployments.now.variants if one.version == answer.bundle]
        if given.user is not None and live:
            self.vectors.append((weakref.ref(live[0]), given.user))
            del self.vectors[:-_REMEMBERED]
