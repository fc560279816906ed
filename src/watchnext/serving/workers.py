"""Processes that answer beside each other on the same mapped files, so that no request waits for another's Python."""

import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

from watchnext.errors import ArtifactError, WatchnextError
from watchnext.memory import give_back_freed_memory
from watchnext.serving import copies
from watchnext.serving.answering import Answerer, Given
from watchnext.serving.deployment import Deployed, Deployment, Named, Variant, refuse_other_answers
from watchnext.serving.exchange import Ask, OverloadError
from watchnext.serving.recommender import Recommender
from watchnext.serving.stores.opening import open_store

SWITCH_SECONDS = 0.0005  # a compiled loop that has ended waits so long at most for the interpreter, not 5 ms
_LONGEST_WAIT_SECONDS = 10.0
_END_SECONDS = 2.0
_PAUSE_SECONDS = 5.0
_TRIES = 2  # a question that ends whoever is asked is not to end all of them
NAME = "answers"
_GONE = (EOFError, OSError)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Where:
    """Where a process finds events: as `open_store` takes it."""

    store: str
    trust_durability: bool = False


class Workers:
    """So many processes, each of which answers one request at a time; `timed` is told what their stages took.

    Where they are as many as the cores, each has its own, which shortens the slowest answers (docs/results.md). Each
    maps the files of the bundles that serve, and follows the store by itself: what a request needs to know is on disk.
    One that ends is replaced by another that loads what is `serving`, and its request is asked of one that lives, once
    more.
    """

    def __init__(
        self, count: int, where: Where, serving: Callable[[], tuple[Named, ...]], timed: Callable[[str, float], None]
    ) -> None:
        self._where, self._serving, self._timed = where, serving, timed
        self._free: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        self._changing = threading.Lock()
        self._closed = threading.Event()
        self.num_replaced = 0
        self._all = [_Process(where, core) for core in _cores_for(count)]
        for process in self._all:
            self._free.put(process)

    @property
    def ids(self) -> list[int]:
        """The processes by the system's numbers."""
        return [process.id for process in self._all]

    def given(self, ask: Ask, came_at: float | None = None) -> Given:
        """Asks whoever is free; all processes of a machine have the same clock.

        Raises:
            OverloadError: nobody is free for a long time, or who took the request ended, twice.
            WatchnextError: as `Answerer.given` does.
        """
        for _ in range(_TRIES):
            try:
                process = self._free.get(timeout=_LONGEST_WAIT_SECONDS)
            except queue.Empty:
                break
            lives = True
            try:
                given, seconds = process.asked(ask, time.perf_counter() if came_at is None else came_at)
            except _GONE:
                lives = False
                self._replace_aside(process)
                continue
            finally:
                if lives:
                    self._free.put(process)
            for stage, taken in seconds:
                self._timed(stage, taken)
            if isinstance(given, Exception):
                raise given
            return given
        raise OverloadError("no process could answer the request: ask again in a second.")

    def get_ready(self, named: tuple[Named, ...]) -> Callable[[], None]:
        """Lets all load what these variants need, and gives what makes them switch.

        Raises:
            ArtifactError: one cannot, or ends meanwhile; then none switches.
        """
        with self._changing:
            asked = list(self._all)
            refused, gone = _ordered(asked, named)
            if refused is not None or gone:
                with suppress(WatchnextError):  # nothing serves yet
                    _ordered(asked, self._serving())
        for process in gone:
            self._replace_aside(process)
        if gone:
            raise ArtifactError(f"{len(gone)} of {len(asked)} processes ended: is there memory for another bundle?")
        if refused is not None:
            raise refused

        def switch() -> None:
            with self._changing:  # one that took another's place meanwhile is told all of it
                for order in (named, None):
                    _ordered(self._all, order)

        return switch

    def close(self) -> None:
        """Ends the processes."""
        self._closed.set()
        with self._changing:
            for process in self._all:
                process.end()

    def _replace_aside(self, gone: "_Process") -> None:
        threading.Thread(target=self._replace, args=[gone], name="replace", daemon=True).start()

    def _replace(self, gone: "_Process") -> None:
        """Puts others in its place until one can serve."""
        serves = False
        while not serves:
            with self._changing:
                if self._closed.is_set() or gone not in self._all:
                    return
                gone.end()
                _log.error("a process that answers ended with %s; another takes its place", gone.exit_code)
                process = _Process(self._where, gone.core)
                self.num_replaced += 1
                self._all[self._all.index(gone)] = process
                refused, ended = _ordered([process], self._serving())
                _ordered([process], None)
                serves = refused is None and not ended
            if not serves:
                _log.error("the process that takes its place cannot serve: %s", type(refused).__name__)
                gone = process
                self._closed.wait(_PAUSE_SECONDS)
        self._free.put(process)


def _ordered(
    processes: Sequence["_Process"], order: tuple[Named, ...] | None
) -> tuple[Exception | None, list["_Process"]]:
    """Sends an order to all, then waits for all; gives what one of them refused it by, and who has gone."""
    refused, gone = None, []
    for process in processes:
        with suppress(*_GONE):
            process.orders.send(order)
    for process in processes:
        try:
            refused = process.orders.recv() or refused
        except _GONE:
            gone.append(process)
    return refused, gone


def _cores_for(count: int) -> list[int | None]:
    """A core for each process where these are as many; with fewer, another server may have taken the same ones."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return [*cores] if len(cores) == count else [None] * count


class _Process:
    """One process as it is seen from outside: it answers by one connection, and takes orders by another."""

    def __init__(self, where: Where, core: int | None) -> None:
        self.core = core
        context = copies.context()
        self._asking, asked = context.Pipe()
        self.orders, ordered = context.Pipe()
        self._process = context.Process(target=_work, args=(asked, ordered, where, core), name=NAME, daemon=True)
        self._process.start()
        asked.close()
        ordered.close()

    @property
    def id(self) -> int:
        """The system's number of it."""
        return self._process.pid or 0

    @property
    def exit_code(self) -> int | None:
        """How it ended, or None."""
        return self._process.exitcode

    def asked(self, ask: Ask, came_at: float) -> tuple[Given | Exception, list[tuple[str, float]]]:
        """Gives the answer, or what was raised, and the seconds of stages since the last answer."""
        self._asking.send((ask, came_at))
        said: tuple[Given | Exception, list[tuple[str, float]]] = self._asking.recv()
        return said

    def end(self) -> None:
        """Lets it end when it has answered, or ends it."""
        self._asking.close()
        self.orders.close()
        self._process.join(_END_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


class _Follower(Deployed):
    """Serves what another process says."""

    def loaded(self, named: tuple[Named, ...]) -> Deployment:
        """Gives the variants, of which those that serve or served just now are there already.

        Raises:
            ArtifactError: a bundle has changed since the other process checked it, or does not serve what it says.
        """
        there = {(one.path, one.version): one.recommender for one in self._loaded_variants()}
        variants = []
        for one in named:
            recommender = there.get((one.path, one.version))
            if recommender is None:
                recommender = Recommender.open(one.path, verify=False)
                if recommender.bundle.version != one.version:
                    raise ArtifactError(f"the bundle in {one.path} has become another one: promote it again.")
                refuse_other_answers(recommender, one.path)  # and the first request finds all loops loaded
                give_back_freed_memory()
            variants.append(Variant(one.name, one.share, one.path, recommender, time.time()))
        return Deployment(tuple(variants))

    def obey(self, orders: Connection) -> None:
        """Loads what is named and switches when told, until nobody orders any more; says what went wrong, or None."""
        ready = None
        with suppress(*_GONE):
            while True:
                named, refused = orders.recv(), None
                try:
                    if named is not None:
                        ready = ready if ready is not None and ready.named == named else self.loaded(named)
                    elif ready is not None:
                        self.replace(ready)
                        ready = None
                except Exception as error:
                    ready, refused = None, _as_sent(error)
                orders.send(refused)


def _work(
    asked: Connection, ordered: Connection, where: Where, core: int | None
) -> None:  # pragma: no cover  # in another process
    """What a process does: orders are taken by a thread, so that requests are answered while a bundle loads."""
    if core is not None:
        os.sched_setaffinity(0, [core])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other process says when to end
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    torch.set_num_threads(1)
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        store = open_store(where.store, trust_durability=where.trust_durability)
    except WatchnextError as error:
        _log.error("no events can be read: %s", type(error).__name__)
        return
    deployments = _Follower(store)
    seconds: list[tuple[str, float]] = []
    answerer = Answerer(deployments, store, lambda stage, taken: seconds.append((stage, taken)), threads=1)
    threading.Thread(target=deployments.obey, args=[ordered], daemon=True).start()
    with suppress(*_GONE):
        while True:
            ask, came_at = asked.recv()
            try:
                given: Any = answerer.given(ask, came_at)
            except Exception as error:
                given = _as_sent(error)
            taken = seconds[:]
            del seconds[: len(taken)]
            asked.send((given, taken))
    answerer.close()
    store.close()


def _as_sent(error: Exception) -> Exception:
    """An error of ours says no more than it may; of any other one only the kind leaves the process."""
    return error if isinstance(error, WatchnextError) else RuntimeError(type(error).__name__)
