"""The stores of live events: what a synced append costs, and reading a user.

    python benchmarks/event_store.py [--folder runs/bench/events] [--seconds 2]

Each store takes batches of 1, 10 and 100 events from 1 and 8 threads, for as many seconds each. Redis is a server of
its own on this machine (scripts/servers.sh installs one), which syncs every append. Ends with one JSON line.
`ratio_to_sync` compares appends a second with what one thread reaches that only writes the same bytes to a file and
syncs it; threads share a sync, and may go beyond 1.
"""

import argparse
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from machine import print_result
from watchnext.errors import StoreError
from watchnext.serving.events import LiveEvent
from watchnext.serving.stores.opening import open_store
from watchnext.serving.stores.protocol import EventStore
from watchnext.serving.stores.records import to_json

BATCH_SIZES, THREADS, NUM_USERS, HISTORY = (1, 10, 100), (1, 8), 1000, 50


def main() -> None:
    """Times both stores, and the bare disk."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--folder", type=Path, default=Path("runs/bench/events"))
    arguments.add_argument("--seconds", type=float, default=2.0)
    options = arguments.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        plain = Path(folder) / "plain"
        store = open_store(f"sqlite:{folder}/events.db")
        sqlite = _figures(store, plain, options.seconds)
        store.close()
        with _redis_server(Path(folder)) as url:
            store = open_store(url)
            redis = _figures(store, plain, options.seconds)
            store.close()
    print_result(sqlite=sqlite, redis=redis)


def _figures(store: EventStore, plain: Path, seconds: float) -> dict[str, float]:
    figures: dict[str, float] = {}
    for size, threads in itertools.product(BATCH_SIZES, THREADS):
        syncs = _syncs_per_second(plain, size, seconds)  # beside each measurement: disks have moods
        times = _append_times(store, size, threads, seconds)
        name, rate = f"batches_of_{size}_threads_{threads}", len(times) / seconds
        figures |= {
            f"{name}_events_per_second": rate * size,
            f"{name}_p50_ms": float(np.median(times)),
            f"{name}_p99_ms": float(np.quantile(times, 0.99)),
            f"{name}_syncs_per_second": syncs,
            f"{name}_ratio_to_sync": rate / syncs,
        }
    users = [str(number % NUM_USERS) for number in range(2000)]
    figures["events"] = store.last_sequence()
    figures["of_user_p50_ms"] = float(np.median([_milliseconds(store.of_user, user, HISTORY) for user in users]))
    figures["last_sequence_p50_ms"] = float(np.median([_milliseconds(store.last_sequence) for _ in users]))
    return figures


def _append_times(store: EventStore, size: int, threads: int, seconds: float) -> list[float]:
    """Milliseconds of each append of all threads."""
    times: list[float] = []
    end = time.perf_counter() + seconds

    def write(thread: int) -> None:
        for number in itertools.count():
            if time.perf_counter() >= end:
                return
            batch = _batch(f"{size}.{threads}.{thread}.{number}", number * size + thread, size)
            times.append(_milliseconds(store.append, batch))

    writers = [threading.Thread(target=write, args=(thread,)) for thread in range(threads)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    return times


def _batch(name: str, first: int, size: int) -> list[LiveEvent]:
    return [
        LiveEvent(
            f"{name}.{place}",
            "watch",
            1_700_000_000 + first + place,
            user_id=str((first + place) % NUM_USERS),
            video_id=str(first % 100_003),
            watch_seconds=31.5,
            completed=True,
            surface="home",
            page_id=f"page-of-{name}",
        )
        for place in range(size)
    ]


def _milliseconds(ask: Callable[..., object], *values: object) -> float:
    began = time.perf_counter()
    ask(*values)
    return 1000 * (time.perf_counter() - began)


def _syncs_per_second(file: Path, size: int, seconds: float) -> float:
    """How often one thread can write a batch's bytes and sync them."""
    text = "\n".join(map(to_json, _batch("plain", 0, size))).encode()
    descriptor = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        os.write(descriptor, text)
        os.fsync(descriptor)
        count += 1
    os.close(descriptor)
    return count / seconds


@contextmanager
def _redis_server(folder: Path) -> Iterator[str]:
    binary = shutil.which("redis-server")
    if binary is None:
        raise SystemExit("redis-server is not installed; say: sh scripts/servers.sh")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--dir", str(folder)]
    server = subprocess.Popen([binary, "--port", str(port), *settings], stdout=subprocess.DEVNULL)
    try:
        _wait_for(f"redis://127.0.0.1:{port}")
        yield f"redis://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def _wait_for(url: str) -> None:
    for _ in range(500):
        try:
            return open_store(url).close()
        except StoreError:
            time.sleep(0.02)
    raise SystemExit("redis-server does not answer")


if __name__ == "__main__":
    main()
