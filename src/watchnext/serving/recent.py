"""The last minutes in figures, for the operator's page."""

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_STEP_SECONDS = 5
_STEPS = 120
_TIMES_KEPT = 2_000


@dataclass
class _Step:
    """Five seconds."""

    at: int
    requests: int = 0
    degraded: int = 0
    milliseconds: list[float] = field(default_factory=list)


class Recent:
    """Latencies by stage and traffic by five seconds, of the last ten minutes; bounded in memory."""

    def __init__(self) -> None:
        self.began = time.time()
        self.totals: Counter[str] = Counter()
        self.nominated: Counter[str] = Counter()
        self.shown: Counter[str] = Counter()
        self._times: dict[str, deque[float]] = {}
        self._steps: deque[_Step] = deque(maxlen=_STEPS)
        self._changing = threading.Lock()

    def timed(self, stage: str, seconds: float) -> None:
        """Takes the time of a stage; 'total' is one of an answer."""
        with self._changing:
            times = self._times.setdefault(stage.removeprefix("source:"), deque(maxlen=_TIMES_KEPT))
            times.append(1000.0 * seconds)
            if stage == "total":
                step = self._step()
                step.requests += 1
                step.milliseconds.append(1000.0 * seconds)
                self.totals["total"] += 1

    def answered(self, degraded: bool, nominated: dict[str, int], shown: dict[str, int], num_places: int) -> None:
        """Takes what an answer was made of: by source, candidates and places that it had nominated."""
        with self._changing:
            self._step().degraded += degraded
            self.totals.update(degraded=int(degraded), answers=1, places=num_places)
            self.nominated.update(nominated)
            self.shown.update(shown)

    def count(self, name: str, number: int = 1) -> None:
        """Counts anything else: 'failed', 'refused', 'accepted', 'duplicates'."""
        with self._changing:
            self.totals[name] += number

    def latencies_ms(self) -> dict[str, dict[str, float]]:
        """Gives p50, p95 and p99 of each stage over its last two thousand times."""
        with self._changing:
            times = {stage: list(values) for stage, values in self._times.items()}
        return {
            stage: dict(zip(("p50", "p95", "p99"), _quantiles(values), strict=True)) for stage, values in times.items()
        }

    def history(self) -> list[dict[str, Any]]:
        """Gives traffic and latency by five seconds, oldest first."""
        with self._changing:
            self._step()
            steps = [(step.at, step.requests, step.degraded, list(step.milliseconds)) for step in self._steps]
        found = []
        for at, requests, degraded, milliseconds in steps:
            p50, _, p99 = _quantiles(milliseconds)
            per_second = requests / _STEP_SECONDS
            found.append({"at": at, "per_second": per_second, "p50": p50, "p99": p99, "degraded": degraded})
        return found

    def _step(self) -> _Step:
        now = int(time.time()) // _STEP_SECONDS * _STEP_SECONDS
        latest = self._steps[-1].at if self._steps else now - _STEP_SECONDS
        for at in range(max(latest + _STEP_SECONDS, now - _STEPS * _STEP_SECONDS), now + 1, _STEP_SECONDS):
            self._steps.append(_Step(at))
        return self._steps[-1]


def _quantiles(milliseconds: list[float]) -> list[float]:
    if not milliseconds:
        return [0.0, 0.0, 0.0]
    return [round(float(one), 3) for one in np.quantile(milliseconds, [0.5, 0.95, 0.99])]
