"""Work that may take so long and no longer."""

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from watchnext.retrieval.candidates import Job
from watchnext.retrieval.index.protocol import Lists

_MOST_OUTSTANDING = 2
_log = logging.getLogger(__name__)


@dataclass
class Budget:
    """What is left of a request's time, and what had to be left out of its answer, in the order in which it was."""

    seconds: float
    began: float = field(default_factory=time.perf_counter)
    degraded: list[str] = field(default_factory=list)

    @property
    def left_seconds(self) -> float:
        """What is left, negative once it is overdrawn."""
        return self.seconds - (time.perf_counter() - self.began)


class SideBySide:
    """Runs sources in threads of their own, each for `seconds` at most; what is late or fails is left out.

    A source that hangs keeps its threads. While two of its calls hang it is not asked again, so that it cannot take
    all threads. `timed` is told how long each source took.
    """

    def __init__(self, seconds: float, threads: int, timed: Callable[[str, float], None]) -> None:
        self._seconds = seconds
        self._timed = timed
        self._pool = ThreadPoolExecutor(threads, "source")
        self._outstanding: Counter[str] = Counter()
        self._counting = threading.Lock()

    def gather(self, jobs: Mapping[str, Job], budget: Budget) -> dict[str, Lists]:
        """Gives what came in time; the names of the others are added to what is degraded, as 'source:NAME'."""
        asked = {
            name: self._ask(name, job) for name, job in jobs.items() if self._outstanding[name] < _MOST_OUTSTANDING
        }
        longest = None if math.isinf(budget.seconds) else min(self._seconds, max(budget.left_seconds, 0.0))
        wait(asked.values(), longest)
        found = {}
        for name in jobs:
            call = asked.get(name)
            if call is not None and call.done() and call.exception() is None:
                found[name] = call.result()
            else:
                budget.degraded.append(f"source:{name}")
        return found

    def close(self) -> None:
        """Lets the threads end; those that hang are not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, name: str, job: Job) -> Future[Lists]:
        with self._counting:
            self._outstanding[name] += 1
        return self._pool.submit(self._timed_job, name, job)

    def _timed_job(self, name: str, job: Job) -> Lists:
        began = time.perf_counter()
        try:
            return job()
        except Exception as error:
            _log.error("source %s failed: %s", name, type(error).__name__)  # its text may name somebody
            raise
        finally:
            with self._counting:
                self._outstanding[name] -= 1
            self._timed(name, time.perf_counter() - began)
