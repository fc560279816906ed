"""Threads and processes that use one store at a time."""

import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from watchnext.serving.events import LiveEvent

WRITER = Path(__file__).parent / "writer.py"


def watch(event_id, timestamp=100):
    return LiveEvent(event_id, "watch", timestamp, "ann")


def ids(events):
    return [event.event_id for event in events]


def test_threads_lose_nothing_and_write_nothing_twice(place):
    store = place.open()

    def write(thread):
        return sum(store.append([watch(f"{thread}.{number}"), watch(f"shared{number}")]) for number in range(20))

    with ThreadPoolExecutor(8) as pool:
        new = sum(pool.map(write, range(8)))
    found = store.since(0, 1000)
    assert [place for place, _ in found] == list(range(1, 181)) and new == 180
    assert Counter(ids(event for _, event in found)).most_common(1)[0][1] == 1


def test_readers_see_whole_batches_while_others_write(place):
    store, size, count = place.open(), 7, 30

    def write(thread):
        for number in range(count):
            store.append([watch(f"{thread}.{number}.{place}", number) for place in range(size)])

    def read(_):
        while (last := store.last_sequence()) < 3 * size * count:
            assert last % size == 0 and len(store.of_user("ann", 1000)) % size == 0

    with ThreadPoolExecutor(5) as pool:
        for done in [*(pool.submit(write, thread) for thread in range(3)), *(pool.submit(read, _) for _ in range(2))]:
            done.result()


def test_processes_share_a_store(place):
    store, accepted = place.open(), 0
    command = [sys.executable, WRITER, place.where, "other", "2", "3", "50"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        while other.poll() is None and accepted < 100:
            assert store.append([watch(f"own.{accepted}/{number}") for number in range(3)]) == 3
            accepted += 1
        assert len(other.stdout.read().split()) == 99
    found = store.since(0, 1000)
    assert [sequence for sequence, _ in found] == list(range(1, 301 + 3 * accepted))
    assert len(set(ids(event for _, event in found))) == 300 + 3 * accepted
