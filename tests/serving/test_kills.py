"""Events that a killed server has answered with 202 are in the store."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest

from watchnext.serving.stores.opening import open_store

pytestmark = pytest.mark.usefixtures("unchecked_types")

TOKEN = "a-token-of-the-tests"
NUM_THREADS, BATCH_SIZE = 4, 3
SERVE = [sys.executable, "-c", "from watchnext.cli import main; main()", "serve"]


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def listens(server, address):
    """Waits until the server answers, for a minute at most."""
    for _ in range(600):
        try:
            if httpx.get(f"{address}/readyz", timeout=10).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
        if server.poll() is not None:
            pytest.fail(f"the server ended: {server.stderr.read()}")
    pytest.fail("the server does not listen")


def send(address, name, accepted, enough):
    """Sends batches until the server is gone; what was answered with 202 goes into `accepted`."""
    headers = {"authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=address, headers=headers, timeout=60) as client:
        for number in range(100_000):
            ids = [f"{name}.{number}.{place}" for place in range(BATCH_SIZE)]
            events = [{"event_id": one, "kind": "watch", "user_id": name, "video_id": "5"} for one in ids]
            try:
                answer = client.post("/v1/events", json={"events": events})
            except httpx.TransportError:
                return
            assert answer.status_code == 202
            accepted += ids
            enough.release()


def test_no_accepted_event_is_lost_by_a_kill(small_run, tmp_path):
    """The server is killed under load, at once, soon, and later, and each time serves again what it has."""
    state = tmp_path / "state"
    environment = os.environ | {"WATCHNEXT_ADMIN_TOKEN": TOKEN}
    accepted = []
    for num_batches in (1, 25, 120):
        port = free_port()
        command = [*SERVE, "--state", str(state), "--port", str(port)]
        if not accepted:
            command += ["--bundle", str(small_run.bundle)]
        address = f"http://127.0.0.1:{port}"
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as server:
            try:
                listens(server, address)
                enough = threading.Semaphore(0)
                names = [f"{num_batches}.{thread}" for thread in range(NUM_THREADS)]
                senders = [threading.Thread(target=send, args=(address, name, accepted, enough)) for name in names]
                for sender in senders:
                    sender.start()
                for _ in range(num_batches):
                    assert enough.acquire(timeout=60)
            finally:
                server.send_signal(signal.SIGKILL)
            for sender in senders:
                sender.join()
        store = open_store(str(state / "events.sqlite"))
        found = [event.event_id for _, event in store.since(0, 10**6)]
        store.close()
        assert set(accepted) <= set(found) and len(found) == len(set(found))
        assert len(found) % BATCH_SIZE == 0  # no batch is half there
    assert len(accepted) >= BATCH_SIZE * (1 + 25 + 120)
