"""Work that may take so long and no longer."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial

from watchnext.retrieval.candidates import Job
from watchnext.retrieval.index.protocol import Lists

_MOST_HANGING = 2
_THREADS_OF_A_REQUEST = 2
_MOST_SECONDS = 60.0
_log = logging.getLogger(__name__)


@dataclass
class Budget:
    """What is left of a request's time, and what had to be left out of its answer, in the order in which it was.

    `source_seconds` is how long a source may take at most, however much is left.
    """

    seconds: float
    source_seconds: float = _MOST_SECONDS
    began: float = field(default_factory=time.perf_counter)
    degraded: list[str] = field(default_factory=list)

    @property
    def left_seconds(self) -> float:
        """What is left, negative once it is overdrawn."""
        return self.seconds - (time.perf_counter() - self.began)


class SideBySide:
    """Runs sources beside each other, as long as the budget allows; what is late or fails is left out.

    Two threads take a request's sources in their order, so that the first, the search, runs beside all others: these
    hold the interpreter, and threads of their own would only wait for each other (docs/results.md). A source that hangs
    keeps its thread. While two of its calls go on that nobody waits for any more it is not asked again, so that it
    cannot take all threads. `timed` is told how long each source took.
    """

    def __init__(self, threads: int, timed: Callable[[str, float], None]) -> None:
        self._timed = timed
        self._pool = ThreadPoolExecutor(threads, "source")
        self._hanging: Counter[str] = Counter()
        self._counting = threading.Lock()

    def gather(self, jobs: Mapping[str, Job], budget: Budget) -> dict[str, Lists]:
        """Gives what came in time; the names of the others are added to what is degraded, as 'source:NAME'."""
        calls = {name: Future[Lists]() for name in jobs if self._hanging[name] < _MOST_HANGING}
        waiting = iter([(name, jobs[name], call) for name, call in calls.items()])
        for _ in range(_THREADS_OF_A_REQUEST):
            self._pool.submit(self._work, waiting)
        done, late = wait(calls.values(), min(budget.source_seconds, max(budget.left_seconds, 0.0)))
        found = {name: call.result() for name, call in calls.items() if call in done and call.exception() is None}
        budget.degraded += [f"source:{name}" for name in jobs if name not in found]
        for name, call in calls.items():
            if call in late and not call.cancel():
                self._count_hanging(name, 1)
                call.add_done_callback(partial(self._came_late, name))
        return found

    def close(self) -> None:
        """Lets the threads end; those that hang are not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _came_late(self, name: str, _: Future[Lists]) -> None:
        self._count_hanging(name, -1)

    def _count_hanging(self, name: str, number: int) -> None:
        with self._counting:
            self._hanging[name] += number

    def _work(self, waiting: Iterator[tuple[str, Job, Future[Lists]]]) -> None:
        """Takes one source after the other; one that is not waited for any more is passed over."""
        for name, job, call in waiting:
            if not call.set_running_or_notify_cancel():
                continue
            try:
                call.set_result(self._timed_job(name, job))
            except Exception as error:
                call.set_exception(error)

    def _timed_job(self, name: str, job: Job) -> Lists:
        began = time.perf_counter()
        try:
            return job()
        except Exception as error:
            _log.error("source %s failed: %s", name, type(error).__name__)  # its text may name somebody
            raise
        finally:
            self._timed(name, time.perf_counter() - began)
