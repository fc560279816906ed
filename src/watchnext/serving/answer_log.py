"""The log of answers: every place that was shown and every candidate, in Parquet files that are whole or absent."""

import fcntl
import logging
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from watchnext.artifacts import writing_file
from watchnext.errors import ArtifactError, ConfigurationError
from watchnext.serving.answered import Answered

ANSWER_FILES = "answers-*.parquet"
CANDIDATE_FILES = "candidates-*.parquet"

_BYTES_PER_FILE = 64 << 20
_DAY_SECONDS = 86_400
_LOCK = ".lock"
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Written:
    """An answer in Arrow's form, on its way into the next pair of files."""

    user_id: str | None
    places: pa.RecordBatch
    candidates: pa.RecordBatch


@dataclass(frozen=True)
class _Command:
    """What the writer does between answers, and how the caller learns that it is done."""

    act: Callable[[], None]
    done: threading.Event


class AnswerLog:
    """A folder of Parquet files that fills while answers are given: think of it as a diary kept by somebody else.

    A thread of its own writes a pair of files, answers and candidates, when enough rows or seconds have come
    together. What has come since the last pair is lost if the process is killed, and counted in `num_dropped` if it
    does not fit the queue or the disk: serving never waits. Several processes may write into one folder. Files that
    were written more than `kept_days` ago are removed, if a number is given.
    """

    def __init__(
        self,
        folder: Path,
        rows_per_file: int = 100_000,
        seconds_per_file: float = 60.0,
        num_queued: int = 2_000,
        kept_days: float | None = None,
    ) -> None:
        if min(rows_per_file, seconds_per_file, num_queued, 1 if kept_days is None else kept_days) <= 0:
            raise ConfigurationError(
                f"rows_per_file = {rows_per_file}, seconds_per_file = {seconds_per_file}, num_queued = {num_queued}, "
                f"kept_days = {kept_days}: numbers above 0 were expected."
            )
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.num_dropped = 0
        self._rows_per_file, self._seconds_per_file, self._num_queued = rows_per_file, seconds_per_file, num_queued
        self._kept_days = kept_days
        self._changed = threading.Condition()
        self._queue: deque[Answered] = deque()
        self._commands: deque[_Command] = deque()
        self._closed = False
        self._written: list[_Written] = []
        self._num_rows, self._num_bytes = 0, 0
        self._due = 0.0
        _remove_unfinished(folder)
        self._thread = threading.Thread(target=self._run, name="answer-log", daemon=True)
        self._thread.start()

    def write(self, answer: Answered) -> None:
        """Takes an answer and returns at once."""
        with self._changed:
            if self._closed or len(self._queue) >= self._num_queued:
                self.num_dropped += 1
            else:
                self._queue.append(answer)
                self._changed.notify()

    def flush(self) -> None:
        """Writes all that has come; on return it is in visible files."""
        self._do(self._rotate)

    def close(self) -> None:
        """Writes all that has come and ends the thread; later answers are dropped."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def erase(self, user_id: str) -> int:
        """Removes a user's answers, written or waiting, and gives how many places in files those were.

        Answers that come meanwhile are kept: they are somebody new's. Those that wait in another process are not
        reached; `export` leaves them out.

        Raises:
            ArtifactError: a file cannot be read.
        """
        self._do(lambda: self._forget_waiting(user_id))
        _remove_unfinished(self.folder)
        removed = sum(_erase(file, user_id) for file in sorted(self.folder.glob(ANSWER_FILES)))
        for file in sorted(self.folder.glob(CANDIDATE_FILES)):
            _erase(file, user_id)
        return removed

    def _do(self, act: Callable[[], None]) -> None:
        """Has the writer do something after the answers that came before; nothing waits in a closed log."""
        command = _Command(act, threading.Event())
        with self._changed:
            if self._closed:
                return
            self._commands.append(command)
            self._changed.notify()
        command.done.wait()

    def _run(self) -> None:
        closed = False
        while not closed:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._commands or self._closed, self._seconds_left())
                answers, commands, closed = list(self._queue), list(self._commands), self._closed
                self._queue.clear()
                self._commands.clear()
            for answer in answers:
                self._take(answer)
            for command in commands:
                command.act()
                command.done.set()
            if closed or self._seconds_left() == 0:
                self._rotate()

    def _seconds_left(self) -> float | None:
        return max(self._due - time.monotonic(), 0.0) if self._written else None

    def _take(self, answer: Answered) -> None:
        try:
            written = _Written(answer.user_id, answer.places(), answer.candidates())
        except (pa.ArrowException, ValueError, TypeError):  # text that is not Unicode, a number that is none
            self._drop(1, "an answer that cannot be written as Parquet was dropped from the log.")
            return
        if not self._written:
            self._due = time.monotonic() + self._seconds_per_file
        self._written.append(written)
        self._num_rows += written.places.num_rows
        self._num_bytes += written.places.nbytes + written.candidates.nbytes
        if self._num_rows >= self._rows_per_file or self._num_bytes >= _BYTES_PER_FILE:
            self._rotate()

    def _rotate(self) -> None:
        """Writes what has come together as a pair of files."""
        written, self._written, self._num_rows, self._num_bytes = self._written, [], 0, 0
        if not written:
            return
        name = f"{_written_at(time.time())}-{uuid.uuid4().hex[:12]}.parquet"
        try:
            with _locked(self.folder):
                candidates = pa.Table.from_batches([one.candidates for one in written])
                _write(candidates, self.folder / CANDIDATE_FILES.replace("*.parquet", name))
                places = pa.Table.from_batches([one.places for one in written])
                _write(places, self.folder / ANSWER_FILES.replace("*.parquet", name))
        except (OSError, pa.ArrowException) as full:
            self._drop(len(written), f"{len(written)} answers could not be written and were dropped: {full}.")
        self._remove_old()

    def _remove_old(self) -> None:
        if self._kept_days is None:
            return
        first_kept = _written_at(time.time() - self._kept_days * _DAY_SECONDS)
        with suppress(OSError), _locked(self.folder):  # what could not be removed is tried again after the next file
            for file in (*self.folder.glob(ANSWER_FILES), *self.folder.glob(CANDIDATE_FILES)):
                if file.name.partition("-")[2] < first_kept:
                    file.unlink()

    def _drop(self, count: int, why: str) -> None:
        with self._changed:
            self.num_dropped += count
        _logger.warning(why)

    def _forget_waiting(self, user_id: str) -> None:
        self._written = [one for one in self._written if one.user_id != user_id]


def _written_at(seconds: float) -> str:
    """A moment as it stands in names of files, in whose order they were written."""
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime(seconds))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps all other threads and processes from writing files into the folder."""
    with (folder / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(table: pa.Table, path: Path) -> None:
    with writing_file(path) as aside, aside.open("wb") as stream:
        pq.write_table(table, stream, compression="zstd")
        stream.flush()
        os.fsync(stream.fileno())


def _erase(file: Path, user_id: str) -> int:
    """Rewrites a file without a user's rows and gives how many there were; a file may be left with no row."""
    theirs = [("user_id", "==", user_id)]
    try:
        with file.open("rb") as stream:  # opened once: somebody else may put another in its place meanwhile
            found = pq.read_table(stream, columns=["user_id"], filters=theirs).num_rows
    except FileNotFoundError:  # removed as too old meanwhile, and they with it
        return 0
    except (pa.ArrowException, OSError) as damaged:
        raise ArtifactError(
            f"{file.name} of the answer log is damaged, so nobody can be erased from it: move it away and ask again."
        ) from damaged
    if not found:
        return 0
    with _locked(file.parent):
        if not file.exists():
            return 0
        table = pq.read_table(file)
        others = table.filter(pc.fill_null(pc.not_equal(table["user_id"], user_id), True))
        _write(others, file)
    return int(table.num_rows - others.num_rows)


def _remove_unfinished(folder: Path) -> None:
    """Removes what killed processes left aside: whoever writes now holds the lock."""
    with _locked(folder):
        for aside in folder.glob(".*.parquet.unfinished"):
            aside.unlink()
