"""Live events in one SQLite file: no server to run; for all threads and processes of one machine."""

import os
import sqlite3
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from watchnext.errors import ArtifactError, StoreError
from watchnext.serving.events import LiveEvent
from watchnext.serving.stores.records import from_json, id_bytes, id_text, refuse_inexact_second, to_json

_SCHEMA_VERSION = 1
_SCHEMA = (
    """CREATE TABLE events (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        event_id BLOB NOT NULL UNIQUE,
        user_id BLOB,
        timestamp INTEGER NOT NULL,
        body TEXT NOT NULL
    )""",
    "CREATE INDEX events_of_user ON events (user_id, timestamp) WHERE user_id IS NOT NULL",
    "CREATE INDEX events_for_everybody ON events (sequence) WHERE user_id IS NULL",
    "CREATE TABLE forgotten (user_id BLOB PRIMARY KEY, moment INTEGER NOT NULL) WITHOUT ROWID",
    f"PRAGMA user_version = {_SCHEMA_VERSION}",
)
# ON CONFLICT DO NOTHING would use up a sequence number.
_INSERT = """
    INSERT INTO events (event_id, user_id, timestamp, body)
    SELECT ?1, ?2, ?3, ?4 WHERE NOT EXISTS (SELECT 1 FROM events WHERE event_id = ?1)
"""
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_Row = tuple[bytes, bytes | None, int, str]


class SqliteStore:
    """A journal in one file of a local disk, with a -wal and a -shm beside it while it is open.

    Appending waits for the disk. Whoever comes meanwhile waits too, and the next transaction writes the events of all
    who wait: one sync for all of them. Reading waits for nobody.

    `busy_seconds` is how long another process may hold the file before a call fails.

    Raises:
        ArtifactError: the file is damaged, of another version, or not a store.
        StoreError: it cannot be opened.
    """

    def __init__(self, path: Path, *, busy_seconds: float = 10.0) -> None:
        self._path = path.absolute()
        self._busy_seconds = busy_seconds
        self._waiting: deque[tuple[list[_Row], Future[int]]] = deque()
        self._idle: deque[sqlite3.Connection] = deque()
        self._writing = threading.Lock()
        self._closed = False
        self._make_private_file()
        with self._translating():
            self._writer = self._connect()
            try:
                self._prepare()
            except BaseException:
                self._writer.close()
                raise

    def append(self, events: Sequence[LiveEvent]) -> int:
        """Writes events, all or none, and gives how many were new; see `EventStore.append`."""
        future: Future[int] = Future()
        self._waiting.append(([_row(event) for event in events], future))
        with self._writing:
            if not future.done():
                self._write_all_that_wait()
        return future.result()

    def of_user(self, user_id: str, limit: int) -> list[LiveEvent]:
        """Gives a user's newest events; see `EventStore.of_user`."""
        found = self._select(
            "SELECT body FROM events WHERE user_id = ? ORDER BY timestamp DESC, sequence DESC LIMIT ?",
            (id_bytes(user_id), max(0, limit)),
        )
        return [from_json(body) for (body,) in reversed(found)]

    def since(self, sequence: int, limit: int) -> list[tuple[int, LiveEvent]]:
        """Gives what came after a sequence number; see `EventStore.since`."""
        found = self._select(
            "SELECT sequence, body FROM events WHERE sequence > ? ORDER BY sequence LIMIT ?", (sequence, max(0, limit))
        )
        return [(place, from_json(body)) for place, body in found]

    def for_everybody(self, sequence: int, limit: int) -> list[tuple[int, LiveEvent]]:
        """Gives what came of no user; see `EventStore.for_everybody`."""
        found = self._select(
            "SELECT sequence, body FROM events WHERE user_id IS NULL AND sequence > ? ORDER BY sequence LIMIT ?",
            (sequence, max(0, limit)),
        )
        return [(place, from_json(body)) for place, body in found]

    def last_sequence(self) -> int:
        """Gives the newest event's sequence number; see `EventStore.last_sequence`."""
        found = self._select("SELECT seq FROM sqlite_sequence WHERE name = 'events'")
        return int(found[0][0]) if found else 0

    def forget(self, user_id: str, moment: int) -> int:
        """Deletes everything of a user, and writes the file anew without it; see `EventStore.forget`.

        Appending waits meanwhile: some three seconds for a million events.

        Raises:
            StoreError: somebody was reading for so long that the -wal could not be emptied.
        """
        refuse_inexact_second(moment)
        user = id_bytes(user_id)
        with self._writing:
            with self._transaction():
                gone = self._writer.execute("DELETE FROM events WHERE user_id = ?", (user,)).rowcount
                self._writer.execute(
                    "INSERT INTO forgotten VALUES (?, ?) "
                    "ON CONFLICT DO UPDATE SET moment = max(moment, excluded.moment)",
                    (user, moment),
                )
            with self._translating():
                # PRAGMA secure_delete is not enough: merging pages leaves copies of moved rows in the gaps.
                self._writer.execute("VACUUM")
                (busy, *_) = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise StoreError(
                f"the user's events are deleted, but {self._path}-wal may hold them still: somebody was reading for "
                f"{self._busy_seconds} seconds. Forget the user again."
            )
        return gone

    def forgotten_at(self, user_id: str) -> int | None:
        """Gives when a user was last forgotten, None for most."""
        found = self._select("SELECT moment FROM forgotten WHERE user_id = ?", (id_bytes(user_id),))
        return int(found[0][0]) if found else None

    def forgotten(self) -> dict[str, int]:
        """Gives all users who were forgotten, and when."""
        return {id_text(user): moment for user, moment in self._select("SELECT user_id, moment FROM forgotten")}

    def close(self) -> None:
        """Closes the file, after what is being written; a second time does nothing."""
        with self._writing:
            self._closed = True
            self._writer.close()
        self._close_idle()

    def _make_private_file(self) -> None:
        """Makes a file that only its owner may read; SQLite makes the files beside it alike.

        A file that is there is not opened: closing it would drop the locks of this process's other connections.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except OSError as error:
            raise StoreError(
                f"{self._path} cannot be made: {error.strerror}. Name a file in a folder of yours."
            ) from error

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=self._busy_seconds, isolation_level=None, check_same_thread=False)

    def _prepare(self) -> None:
        with self._transaction():
            (version,) = self._writer.execute("PRAGMA user_version").fetchone()
            (tables,) = self._writer.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if version != (_SCHEMA_VERSION if tables else 0):
                raise ArtifactError(
                    f"{self._path} is a database of version {version}, but a store of live events of version "
                    f"{_SCHEMA_VERSION} was expected. Name another file, or open it with the watchnext that wrote it."
                )
            (found,) = self._writer.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise self._damaged()
            if not tables:
                for statement in _SCHEMA:
                    self._writer.execute(statement)
        self._writer.execute("PRAGMA journal_mode = WAL")
        self._writer.execute("PRAGMA synchronous = FULL")

    def _write_all_that_wait(self) -> None:
        waiting = [self._waiting.popleft() for _ in range(len(self._waiting))]
        try:
            with self._transaction():
                counts = [self._writer.executemany(_INSERT, rows).rowcount for rows, _ in waiting]
        except BaseException as error:
            for _, future in waiting:
                future.set_exception(error)
        else:
            for (_, future), count in zip(waiting, counts, strict=True):
                future.set_result(count)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._refuse_closed()
        with self._translating():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._writer.execute("COMMIT")
            except BaseException:
                self._writer.rollback()
                raise

    def _select(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        self._refuse_closed()
        with self._translating():
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._connect()
            try:
                return connection.execute(query, values).fetchall()
            finally:
                self._idle.append(connection)
                if self._closed:
                    self._close_idle()

    def _close_idle(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise StoreError(f"the store {self._path} is closed; open it again.")

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE:
                raise self._damaged() from error
            raise StoreError(
                f"{self._path} cannot be read or written now: {error}. See that the disk has room, that the file is "
                "yours to write, and that no other program keeps it locked."
            ) from error

    def _damaged(self) -> ArtifactError:
        return ArtifactError(
            f"{self._path} is damaged, or not a store of live events. Restore it, or name another file."
        )


def _row(event: LiveEvent) -> _Row:
    user = None if event.user_id is None else id_bytes(event.user_id)
    return id_bytes(event.event_id), user, event.timestamp, to_json(event)
