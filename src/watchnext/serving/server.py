"""What one server process is made of: deployments, store, log, figures, threads."""

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from watchnext.retrieval.index.engines import engine_of
from watchnext.retrieval.index.live import Probe
from watchnext.serving.answer_log import AnswerLog
from watchnext.serving.answering import Answerer
from watchnext.serving.deployment import Deployments
from watchnext.serving.exchange import Answer, OverloadError
from watchnext.serving.guard import Tokens, rate_of
from watchnext.serving.metrics import Metrics
from watchnext.serving.recent import Recent
from watchnext.serving.service import Service
from watchnext.serving.stores.opening import open_store
from watchnext.serving.workers import SWITCH_SECONDS, Where, Workers

T = TypeVar("T")
_PROBED_USERS = 4
_PROBED_K = 100


@dataclass(frozen=True)
class ServerSettings:
    """How a server runs; what it answers is the bundle's business.

    `state` is the folder of its own files: events, answers, token, what is deployed. `store` says where events are
    kept, in that folder by default, and `trust_durability` takes a Redis server's word for it. As many `threads` answer
    requests, or, of more than one, as many `processes`. `report` is the page of the last evaluation. Answers that are
    older than `keep_answers_days` are removed, if a number is given.

    Raises:
        ConfigurationError: the rate is none.
    """

    state: Path
    bundle: Path | None = None
    store: str | None = None
    trust_durability: bool = False
    threads: int = 4
    processes: int = 1
    most_body_bytes: int = 1 << 20
    rate: str = "1000/second"
    probe_seconds: float = 60.0
    report: Path | None = None
    keep_answers_days: float | None = None

    def __post_init__(self) -> None:
        rate_of(self.rate)


class Server:
    """A service with its threads; `close` ends them."""

    def __init__(self, settings: ServerSettings) -> None:
        torch.set_num_threads(1)  # requests are answered side by side, each on one core
        sys.setswitchinterval(SWITCH_SECONDS)
        self.settings = settings
        self.tokens = Tokens.found(settings.state / "token")
        self.metrics = Metrics()
        self.recent = Recent()
        self.metrics.heard = self.recent.timed
        where = settings.store or str(settings.state / "events.sqlite")
        store = open_store(where, trust_durability=settings.trust_durability)
        self._workers: Workers | None = None
        try:
            self.deployments = Deployments(store, settings.state / "deployed.json")
            if settings.processes > 1:
                self._workers = self._begun_workers(where)
            if settings.bundle is None:
                self.deployments.restore()
            else:
                self.deployments.promote(settings.bundle)
        except BaseException:
            if self._workers is not None:
                self._workers.close()
            store.close()
            raise
        answers = AnswerLog(settings.state / "answers", kept_days=settings.keep_answers_days)
        self.metrics.follow_dropped(lambda: answers.num_dropped)
        answerer = Answerer(self.deployments, store, self.metrics.timed, settings.threads)
        given = answerer.given if self._workers is None else self._workers.given
        self.service = Service(self.deployments, store, answers, self.metrics, answerer, given, self.recent.answered)
        self._at_once = settings.threads if self._workers is None else settings.processes
        self.probe: tuple[Probe, float] | None = None
        self._threads = ThreadPoolExecutor(max(settings.threads, settings.processes), "request")
        self._waiting = 0
        self._seconds_each = 0.0
        self._ended = threading.Event()
        self.show_what_serves()
        self._prober = threading.Thread(target=self._probe_now_and_then, name="probe", daemon=True)
        self._prober.start()

    async def answer(self, ask: Callable[[], Answer]) -> Answer:
        """Runs a request in a thread, or refuses it at once if it would wait longer than its budget.

        Raises:
            OverloadError: too many wait already.
        """
        budget = self.deployments.now.variants[0].recommender.bundle.serving.budget_ms / 1000
        # Those that are being answered end one after the other, the first of them half that time from now.
        ahead = (self._waiting - self._at_once + 0.5) / self._at_once
        if self._waiting >= self._at_once and ahead * self._seconds_each > budget:
            self.metrics.overloaded()
            self.recent.count("refused")
            raise OverloadError("too many requests wait already: ask again in a second.")
        self._waiting += 1
        began = time.perf_counter()
        try:
            return await self.in_thread(ask)
        finally:
            self._waiting -= 1
            taken = (time.perf_counter() - began) / max(self._waiting / self._at_once, 1.0)
            self._seconds_each = 0.9 * (self._seconds_each or taken) + 0.1 * taken

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Runs anything that takes a while in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def show_what_serves(self) -> None:
        """Tells the figures which bundles answer now."""
        variants = self.deployments.now.variants
        self.metrics.serving({variant.name: variant.version for variant in variants})
        live = variants[0].recommender.live
        built, log_end = variants[0].loaded_at, live.bundle.dataset.log_end
        self.metrics.index_age_seconds.set_function(lambda: time.time() - built)
        self.metrics.log_age_seconds.set_function(lambda: time.time() - log_end)
        self.metrics.live_changes.set_function(lambda: float(live.index.num_changes))

    def status(self) -> dict[str, Any]:
        """Gives what the operator's page shows."""
        recent, totals = self.recent, self.recent.totals
        history, candidates = recent.history(), self.service.num_candidates
        mean = float(np.mean(candidates)) if candidates else 0.0
        variants = [self._variant(one) for one in self.deployments.now.variants]
        previous = self.deployments.previous
        drift = self.metrics.calibration
        shown = totals["places"] / max(totals["answers"], 1)
        return {
            "uptime_seconds": time.time() - recent.began,
            "variants": variants,
            "previous": None if previous is None else _where(previous.variants[-1]),
            "requests": {
                "per_second": float(np.mean([step["per_second"] for step in history[-13:-1]] or [0.0])),
                **{name: totals[name] for name in ("total", "failed", "degraded", "refused")},
            },
            "latency_ms": recent.latencies_ms(),
            "funnel": [
                {"stage": "catalogue", "videos": variants[0]["num_videos"]},
                {"stage": "candidates", "videos": mean},
                {"stage": "shown", "videos": shown},
            ],
            "sources": [
                {"source": name, "nominated": count, "shown": recent.shown[name]}
                for name, count in recent.nominated.items()
            ],
            "calibration": None if not drift.num_watched else {"ratio": drift.ratio, "watches": drift.num_watched},
            "events": {"accepted": totals["accepted"], "duplicates": totals["duplicates"]},
            "history": history,
        }

    @property
    def report(self) -> Path | None:
        """The page of the last evaluation: the one that was named, or the one beside the bundle; None without one."""
        beside = self.deployments.now.variants[0].path.parent / "evaluation" / "report.html"
        path = self.settings.report or beside
        return path if path.is_file() else None

    def close(self) -> None:
        """Ends the threads and writes what is left."""
        self._ended.set()
        self._threads.shutdown()
        if self._workers is not None:
            self._workers.close()
        self._prober.join()
        self.service.close()

    def _variant(self, variant: Any) -> dict[str, Any]:
        live, dataset = variant.recommender.live, variant.recommender.bundle.dataset
        probe = None
        if self.probe is not None and variant is self.deployments.now.variants[0]:
            found, when = self.probe
            probe = {"recall": found.recall, "tuned_recall": found.tuned_recall, "measured_at": when}
        index = {
            "engine": engine_of(live.bundle.generator.index),
            "changes": live.index.num_changes,
            "age_seconds": time.time() - variant.loaded_at,
        }
        return _where(variant) | {
            "variant": variant.name,
            "share": variant.share,
            "log_end": dataset.log_end,
            "num_videos": dataset.num_videos - 1 + len(live.uploads),
            "num_users": len(dataset.vocabularies["users"]) - 1,
            "index": index,
            "recall_probe": probe,
        }

    def _begun_workers(self, store: str) -> Workers:
        where = Where(store, self.settings.trust_durability)
        workers = Workers(self.settings.processes, where, lambda: self.deployments.now.named, self.metrics.timed)
        self.deployments.elsewhere = workers.get_ready
        self.metrics.follow_processes(lambda: workers.ids, lambda: workers.num_replaced)
        return workers

    def _rest(self, seconds: float) -> None:
        if self._ended.wait(seconds):
            raise _EndedError

    def _probe_now_and_then(self) -> None:
        """Repeats some requests' searches by a full scan, and tells how much of the truth the index found."""
        while not self._ended.wait(self.settings.probe_seconds):
            live = self.deployments.now.variants[0].recommender.live
            vectors = [vector for whose, vector in self.service.vectors if whose() is live][-_PROBED_USERS:]
            if vectors:
                k = min(_PROBED_K, live.bundle.dataset.num_videos - 1)
                try:
                    found = live.index.probe(np.stack(vectors), k, self._rest)
                except _EndedError:
                    return
                except OSError:  # the bundle was taken away meanwhile
                    continue
                self.probe = found, time.time()
                self.metrics.probed(found)


class _EndedError(Exception):
    """The server ends."""


def _where(variant: Any) -> dict[str, str]:
    return {"bundle": variant.version, "path": str(variant.path)}
