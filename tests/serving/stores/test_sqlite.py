import sqlite3
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from watchnext.errors import ArtifactError, StoreError
from watchnext.serving.events import LiveEvent
from watchnext.serving.stores.sqlite import SqliteStore


def event(name, **columns):
    return LiveEvent(name, "watch", 1, "ann", **columns)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "folder" / "events.db"


@pytest.fixture
def store(path):
    store = SqliteStore(path, busy_seconds=0.05)
    yield store
    store.close()


@pytest.fixture
def stranger(store, path):
    """Another program's connection to the file."""
    connection = sqlite3.connect(path, isolation_level=None)
    yield connection
    connection.close()


def num_commits(path):
    """Frames of the -wal that end a transaction: they say how long the file is then."""
    wal = path.with_name(path.name + "-wal").read_bytes()
    page_size = struct.unpack(">I", wal[8:12])[0]
    return sum(struct.unpack(">I", wal[at + 4 : at + 8])[0] > 0 for at in range(32, len(wal), 24 + page_size))


def test_only_the_owner_may_read_the_files(store, path):
    store.append([event("a")])
    files = list(path.parent.iterdir())
    assert len(files) == 3 and {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_every_commit_is_synced(store):
    assert store._writer.execute("PRAGMA synchronous").fetchone() == (2,)


def test_all_who_wait_are_written_by_one_commit(path):
    store, stranger = SqliteStore(path), sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    store.append([event("zeroth")])
    before = num_commits(path)
    stranger.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(store.append, [event("first")])
        while not (store._writing.locked() and not store._waiting):
            time.sleep(0.001)
        others = [pool.submit(store.append, [event("both"), event(str(thread))]) for thread in range(8)]
        while len(store._waiting) < 8:
            time.sleep(0.001)
        stranger.execute("ROLLBACK")
    assert first.result() == 1 and sorted(other.result() for other in others) == [1] * 7 + [2]
    assert num_commits(path) - before == 2
    stranger.close()
    store.close()


def test_reading_waits_for_no_writer(store, stranger):
    store.append([event("a")])
    stranger.execute("BEGIN IMMEDIATE")
    stranger.execute("DELETE FROM events")
    assert store.last_sequence() == 1 and len(store.of_user("ann", 10)) == 1


def test_a_file_that_is_locked_for_long_fails_all_who_wait_and_then_works_again(store, stranger):
    stranger.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(store.append, [event(str(thread))]) for thread in range(4)]
    for answer in answers:
        with pytest.raises(StoreError, match="cannot be read or written now: database is locked"):
            answer.result()
    stranger.execute("ROLLBACK")
    assert store.last_sequence() == 0 and store.append([event("a")]) == 1


def test_a_full_disk_writes_none_of_a_batch(store):
    store.append([event("a")])
    (pages,) = store._writer.execute("PRAGMA page_count").fetchone()
    store._writer.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(StoreError, match="the disk has room"):
        store.append([event(str(number), query="x" * 1000) for number in range(100)])
    assert store.last_sequence() == 1 and store.append([event("b")]) == 1


def test_a_reader_who_keeps_forgotten_bytes_alive_is_told_of(store, stranger):
    store.append([event("a")])
    stranger.execute("BEGIN")
    stranger.execute("SELECT * FROM events").fetchall()
    with pytest.raises(StoreError, match="Forget the user again"):
        store.forget("ann", 5)
    assert store.of_user("ann", 10) == []
    stranger.execute("COMMIT")
    assert store.forget("ann", 5) == 0


def test_closing_waits_for_readers(store):
    store.append([event(str(number)) for number in range(300)])

    def read():
        with pytest.raises(StoreError, match="is closed"):
            while True:
                assert len(store.since(0, 1000)) == 300

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    store.close()
    for reader in readers:
        reader.join()
    assert not store._idle


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("what I watched " * 1000)
    with pytest.raises(ArtifactError, match="is damaged, or not a store"):
        SqliteStore(path)
    assert path.read_text() == "what I watched " * 1000


@pytest.mark.parametrize("version", [0, 2])
def test_another_database_is_refused_and_left_alone(tmp_path, version):
    path = tmp_path / "other.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE films (title TEXT)")
    other.execute(f"PRAGMA user_version = {version}")
    other.close()
    before = path.read_bytes()
    with pytest.raises(ArtifactError, match=f"of version {version}, but a store of live events of version 1"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_an_emptied_file_of_another_version_is_refused(tmp_path):
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("PRAGMA user_version = 1")
    other.close()
    with pytest.raises(ArtifactError, match="of version 1, but"):
        SqliteStore(tmp_path / "other.db")


@pytest.fixture
def filled(path):
    store = SqliteStore(path)
    store.append([event(str(number), query="x" * 500) for number in range(200)])
    store.close()
    return path


@pytest.mark.parametrize("num_bytes", [50, 4096, 40_000])
def test_a_truncated_file_is_refused(filled, num_bytes):
    filled.write_bytes(filled.read_bytes()[:num_bytes])
    with pytest.raises(ArtifactError, match="is damaged"):
        SqliteStore(filled)


def test_a_file_with_a_damaged_page_is_refused(filled):
    damaged = bytearray(filled.read_bytes())
    damaged[10 * 4096 : 11 * 4096] = b"\x07" * 4096
    filled.write_bytes(damaged)
    with pytest.raises(ArtifactError, match="is damaged"):
        SqliteStore(filled)


def test_damage_that_comes_later_is_told_of(filled):
    store = SqliteStore(filled)
    filled.write_bytes(filled.read_bytes()[:4096] + b"\x07" * 200_000)
    with pytest.raises(ArtifactError, match="is damaged"):
        store.since(0, 1000)
    store.close()


def test_a_folder_that_cannot_be_made_is_told_of(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be made"):
        SqliteStore(tmp_path / "file" / "events.db")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(StoreError, match="unable to open"):
        SqliteStore(tmp_path)


def test_no_error_text_names_a_user_or_a_video(store, stranger):
    stranger.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError) as failure:
        store.append([LiveEvent("id-secret", "search", 1, "user-secret", "video-secret", query="query-secret")])
    assert "secret" not in str(failure.value)
