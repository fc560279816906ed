"""How far expected watch time has drifted from what is watched."""

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass, field


@dataclass
class _Page:
    """An answer's places: what was expected of each, and what came of some."""

    expected: dict[str, float] = field(default_factory=dict)
    watched: dict[str, float] = field(default_factory=dict)


class CalibrationDrift:
    """Watch seconds beside expected watch seconds of the latest answers in which something was watched.

    All places of such an answer count, the unwatched ones with no watch seconds, since that is what was expected of
    them: the ratio hovers near one while the ranker is calibrated. It is somewhat above one all the same, as answers
    in which nothing was watched do not count (many of them nobody saw); what tells of drift is that it moves.

    Memory is bounded: `num_answers` wait for their first watch, `num_watched` watched places are kept, in whole
    answers; the oldest go first. Any thread may call.

    >>> drift = CalibrationDrift()
    >>> drift.expected("page", "heat", 30.0); drift.expected("page", "alien", 10.0)
    >>> drift.watched("page", "heat", 50.0)
    >>> drift.ratio
    1.25
    """

    def __init__(self, num_watched: int = 2_000, num_answers: int = 10_000) -> None:
        self._num_watched, self._num_answers = num_watched, num_answers
        self._waiting: OrderedDict[str, _Page] = OrderedDict()
        self._watched: OrderedDict[str, _Page] = OrderedDict()
        self._num_places = 0
        self._changing = threading.Lock()

    def expected(self, request_id: str, video_id: str, seconds: float | None) -> None:
        """Notes what is expected of a place that is shown, None of one that nothing is."""
        if seconds is None:
            return
        with self._changing:
            page = self._waiting.setdefault(request_id, _Page())
            page.expected[video_id] = seconds
            if len(self._waiting) > self._num_answers:
                self._waiting.popitem(last=False)

    def watched(self, request_id: str, video_id: str, seconds: float | None) -> None:
        """Notes what came of a place, told again if it grows; an answer that is not remembered is left alone."""
        with self._changing:
            page = self._watched.get(request_id) or self._waiting.get(request_id)
            if page is None or seconds is None or video_id not in page.expected:
                return
            self._waiting.pop(request_id, None)
            self._watched[request_id] = page
            self._num_places += video_id not in page.watched
            page.watched[video_id] = seconds
            while self._num_places > self._num_watched and len(self._watched) > 1:
                _, oldest = self._watched.popitem(last=False)
                self._num_places -= len(oldest.watched)

    @property
    def num_watched(self) -> int:
        """Watched places that the ratio is made of."""
        return self._num_places

    @property
    def ratio(self) -> float:
        """Watch seconds divided by expected watch seconds; NaN before anything was watched."""
        with self._changing:
            pages = list(self._watched.values())
            watched = math.fsum(seconds for page in pages for seconds in page.watched.values())
            expected = math.fsum(seconds for page in pages for seconds in page.expected.values())
        return watched / expected if expected > 0 else math.nan
