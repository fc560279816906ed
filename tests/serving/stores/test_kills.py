"""Whatever was accepted is there after a kill, and no batch is half there."""

import subprocess
import sys
import threading
from collections import Counter
from itertools import count
from pathlib import Path

import pytest

from watchnext.errors import StoreError
from watchnext.serving.events import LiveEvent
from watchnext.serving.stores.redis import RedisStore
from watchnext.serving.stores.sqlite import SqliteStore

WRITER = Path(__file__).parent / "writer.py"
BATCH_SIZE = 20


def batches_of(store):
    """Names of the batches in the store, each whole."""
    found = store.since(0, 10**6)
    assert [sequence for sequence, _ in found] == list(range(1, len(found) + 1))
    sizes = Counter(event.event_id.split("/")[0] for _, event in found)
    assert set(sizes.values()) <= {BATCH_SIZE}
    assert all(len(store.of_user(str(place), 10**6)) == len(sizes) for place in range(BATCH_SIZE))
    return set(sizes)


@pytest.mark.parametrize("num_accepted", [1, 30, 200])
def test_a_killed_writer_loses_nothing_that_was_accepted(num_accepted, tmp_path):
    path = tmp_path / "events.db"
    command = [sys.executable, WRITER, f"sqlite:{path}", "w", "4", str(BATCH_SIZE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        accepted = [writer.stdout.readline().strip() for _ in range(num_accepted)]
        writer.kill()
        accepted += writer.stdout.read().split()
    store = SqliteStore(path)
    assert set(accepted) <= batches_of(store)
    store.close()


def write_until_it_fails(store, thread, accepted, enough):
    for number in count():
        batch = f"{thread}.{number}"
        try:
            store.append([LiveEvent(f"{batch}/{place}", "watch", number, str(place)) for place in range(BATCH_SIZE)])
        except StoreError:
            return
        accepted.append(batch)
        enough.release()


def test_a_killed_redis_server_loses_nothing_that_was_accepted(start_redis):
    server, accepted = start_redis(), []
    store = RedisStore(server.url)
    for round_number, num_accepted in enumerate((1, 40, 150)):
        enough = threading.Semaphore(0)
        writers = [
            threading.Thread(target=write_until_it_fails, args=(store, f"{round_number}-{thread}", accepted, enough))
            for thread in range(4)
        ]
        for writer in writers:
            writer.start()
        for _ in range(num_accepted):
            assert enough.acquire(timeout=30)
        server.kill()
        for writer in writers:
            writer.join()
        server.start()
        assert set(accepted) <= batches_of(store)
    store.close()
