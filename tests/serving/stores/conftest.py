"""A real Redis server, and places where a store may be: the suites of this folder run on both kinds."""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from watchnext.serving.stores.opening import open_store
from watchnext.serving.stores.protocol import EventStore

DURABLE = {"appendonly": "yes", "appendfsync": "always", "rdbcompression": "no"}


class RedisServer:
    """A redis-server whose files are in one folder; it can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "redis.sock"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    def start(self) -> None:
        binary = shutil.which("redis-server")
        if binary is None:
            pytest.fail("redis-server is not installed; say: sh scripts/servers.sh")
        settings = DURABLE | {"port": self.port, "bind": "127.0.0.1", "unixsocket": self.socket, "dir": self.folder}
        options = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
        with open(self.folder / "log.txt", "ab") as log:
            self._process = subprocess.Popen([binary, *options, "--save", ""], stdout=log, stderr=log)
        for _ in range(500):
            try:
                with self.client as client:
                    client.ping()
                return
            except redis.RedisError:
                time.sleep(0.02)
        pytest.fail((self.folder / "log.txt").read_text())

    def kill(self, with_signal: signal.Signals = signal.SIGKILL) -> None:
        self._process.send_signal(with_signal)
        self._process.wait()

    def files(self) -> list[Path]:
        """The append-only files, once no rewrite is under way."""
        with self.client as client:
            while client.info("persistence")["aof_rewrite_in_progress"]:
                time.sleep(0.02)
        return list((self.folder / "appendonlydir").iterdir())


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill(signal.SIGTERM)


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[Callable[[], RedisServer]]:
    """Gives `start_redis()`: a server of this test's own, which it may kill."""
    servers: list[RedisServer] = []

    def start() -> RedisServer:
        servers.append(RedisServer(tmp_path))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


class Place:
    """Somewhere a store may be; opens as many of it as a test wants, and closes them at the end."""

    def __init__(self, where: str, files: Callable[[], list[Path]]) -> None:
        self.where = where
        self.files = files
        self._opened: list[EventStore] = []

    def open(self) -> EventStore:
        self._opened.append(open_store(self.where))
        return self._opened[-1]

    def close(self) -> None:
        for store in self._opened:
            store.close()


@pytest.fixture(params=["sqlite", "redis"])
def new_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Place]]:
    """Gives `new_place()`: an empty place; on Redis it is the same server, emptied."""
    places: list[Place] = []

    def make() -> Place:
        if request.param == "sqlite":
            folder = tmp_path / f"store{len(places)}"
            places.append(Place(f"sqlite:{folder}/events.db", lambda: list(folder.iterdir())))
        else:
            server = request.getfixturevalue("redis_server")
            with server.client as client:
                client.flushall()
            places.append(Place(server.url, server.files))
        return places[-1]

    yield make
    for place in places:
        place.close()


@pytest.fixture
def place(new_place: Callable[[], Place]) -> Place:
    return new_place()


@pytest.fixture
def store(place: Place) -> EventStore:
    return place.open()
