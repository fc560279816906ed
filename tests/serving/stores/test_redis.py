import socketserver
import sys
import threading
from contextlib import contextmanager, suppress
from select import select
from socket import create_connection

import pytest
import redis

from watchnext.cli import main
from watchnext.errors import ArtifactError, ConfigurationError, StoreError
from watchnext.serving.events import LiveEvent
from watchnext.serving.stores.opening import open_store
from watchnext.serving.stores.redis import RedisStore


@pytest.fixture
def own_server(start_redis):
    return start_redis()


@pytest.fixture
def configure(own_server):
    """Gives `configure(name, value)` of a server of this test's own."""

    def change(name, value):
        with own_server.client as client:
            client.config_set(name, value)

    return change


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("appendonly", "no", "appendonly yes"),
        ("appendfsync", "everysec", "appendfsync always"),
        ("no-appendfsync-on-rewrite", "yes", "no-appendfsync-on-rewrite no"),
    ],
)
def test_a_server_that_would_lose_events_is_refused(own_server, configure, name, value, expected):
    configure(name, value)
    with pytest.raises(ConfigurationError, match=f"has {name} {value}: it would lose .* Set {expected} in redis.conf"):
        RedisStore(own_server.url)
    RedisStore(own_server.url, trust_durability=True).close()


def test_the_command_line_says_whom_to_trust(own_server, configure, monkeypatch, tmp_path):
    configure("appendfsync", "everysec")
    export = ["watchnext", "export", "--state", tmp_path, "--to", tmp_path / "log", "--store", own_server.url]
    outcomes = []
    for arguments in (export, [*export, "--trust-durability"]):
        monkeypatch.setattr(sys, "argv", [str(argument) for argument in arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        outcomes.append(ended.value.code)
    assert "would lose" in outcomes[0] and outcomes[1] == 0


def test_a_server_that_would_drop_events_is_refused(own_server, configure):
    configure("maxmemory", "100mb")
    RedisStore(own_server.url).close()
    configure("maxmemory-policy", "allkeys-lru")
    with pytest.raises(ConfigurationError, match="Set maxmemory-policy noeviction"):
        RedisStore(own_server.url)


def test_a_server_that_hides_its_settings_must_be_trusted(own_server):
    with own_server.client as client:
        client.acl_setuser("app", enabled=True, passwords=["+s3cret"], keys=["*"], commands=["+@all", "-@admin"])
    url = own_server.url.replace("//", "//app:s3cret@")
    with pytest.raises(ConfigurationError, match="say --trust-durability"):
        RedisStore(url)
    store = open_store(url, trust_durability=True)
    assert store.append([LiveEvent("a", "watch", 1, "ann")]) == 1 and store.forget("ann", 5) == 1
    store.close()


def test_a_password_is_in_no_error(own_server):
    with pytest.raises(StoreError) as failure:
        RedisStore(own_server.url.replace("//", "//app:s3cret@"))
    assert "127.0.0.1 cannot be read" in str(failure.value) and "s3cret" not in str(failure.value)


@pytest.mark.parametrize("url", ["redis://app:s3/cret@host:6379", "redis://host:6379?s3cret=1", "http://s3cret"])
def test_an_unreadable_url_is_refused_without_its_password(url):
    with pytest.raises(ConfigurationError, match="the Redis URL cannot be read") as refusal:
        RedisStore(url)
    assert "s3" not in str(refusal.value) and refusal.value.__suppress_context__


def test_a_server_that_is_gone_is_told_of_without_what_was_asked(own_server):
    store = RedisStore(own_server.url)
    own_server.kill()
    event = LiveEvent("a-secret", "watch", 1, "b-secret", "c-secret")
    asked = [
        lambda: store.append([event]),
        lambda: store.of_user("b-secret", 1),
        lambda: store.since(0, 1),
        store.last_sequence,
        lambda: store.forget("b-secret", 1),
        lambda: store.forgotten_at("b-secret"),
        store.forgotten,
    ]
    for ask in asked:
        with pytest.raises(StoreError, match=r"127\.0\.0\.1 cannot be read or written now \(ConnectionError\)") as told:
            ask()
        assert "secret" not in str(told.value)
    own_server.start()
    assert store.append([event]) == 1
    store.close()


@contextmanager
def wire_to(server):
    """A port that leads to the server, and whose `num_cuts` next answers are lost with their connections."""

    class Wire(socketserver.BaseRequestHandler):
        def handle(self):
            with suppress(ConnectionError), create_connection(("127.0.0.1", server.port)) as far:
                while True:
                    for side in select([self.request, far], [], [])[0]:
                        if not (said := side.recv(65_536)):
                            return
                        if side is far and listener.num_cuts:
                            listener.num_cuts -= 1
                            return
                        (far if side is self.request else self.request).sendall(said)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Wire) as listener:
        listener.daemon_threads, listener.num_cuts = True, 0
        threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}).start()
        yield listener
        listener.shutdown()


def test_an_append_whose_answer_is_lost_fails_and_may_be_sent_again(redis_server):
    with wire_to(redis_server) as wire:
        store = RedisStore(f"redis://127.0.0.1:{wire.server_address[1]}", "wire")
        store.append([LiveEvent("a", "watch", 1)])
        wire.num_cuts = 1
        with pytest.raises(StoreError, match="ConnectionError"):
            store.append([LiveEvent("b", "watch", 1)])
        assert store.append([LiveEvent("b", "watch", 1)]) == 0 and store.last_sequence() == 2
        store.close()


def test_a_full_server_writes_none_of_a_batch(own_server, configure):
    store = RedisStore(own_server.url)
    store.append([LiveEvent("a", "watch", 1)])
    configure("maxmemory", "1mb")
    with pytest.raises(StoreError, match="OutOfMemoryError"):
        store.append([LiveEvent(str(number), "watch", 1) for number in range(5)])
    assert store.last_sequence() == 1
    configure("maxmemory", "0")
    assert store.append([LiveEvent("b", "watch", 1)]) == 1
    store.close()


def test_events_of_another_version_are_refused(redis_server):
    with redis_server.client as client:
        client.set("future:version", "2")
    with pytest.raises(ArtifactError, match="have version b'2', b'1' was expected"):
        RedisStore(redis_server.url, "future")
    with redis_server.client as client:
        assert len(client.client_list()) == 1, "the refused store's connection is open"


def test_prefixes_are_strangers(redis_server):
    one, other = (RedisStore(redis_server.url, prefix) for prefix in ("one", "other"))
    one.append([LiveEvent("a", "watch", 1, "ann")])
    assert other.last_sequence() == 0 and other.append([LiveEvent("a", "watch", 1, "ann")]) == 1
    for store in (one, other):
        store.forget("ann", 1)
        store.close()


def test_forgetting_waits_for_a_rewrite_that_knows_less(redis_server):
    """Redis refuses a second rewrite while one is under way."""
    store, names = RedisStore(redis_server.url, "many"), [f"user{number}" for number in range(8)]
    store.append([LiveEvent(name, "search", 1, name, query=f"query-of-{name}") for name in names])
    for name in names:
        store.forget(name, 1)
    stored = b"".join(file.read_bytes() for file in redis_server.files())
    assert b"query-of" not in stored
    store.close()


def test_a_rewrite_that_never_ends_is_told_of(own_server, configure, monkeypatch):
    store = RedisStore(own_server.url)
    store.append([LiveEvent(f"{number}", "watch", 1) for number in range(2000)])
    configure("rdb-key-save-delay", 10_000_000)
    monkeypatch.setattr("watchnext.serving.stores.redis._TIMEOUT_SECONDS", 0.1)
    with own_server.client as client:
        client.bgrewriteaof()
    store.append([LiveEvent("a", "watch", 1, "ann")])
    with pytest.raises(StoreError, match="busy with rewriting"):
        store.forget("ann", 5)
    assert store.of_user("ann", 10) == [] and store.forgotten_at("ann") == 5
    store.close()


def test_without_the_client_the_extra_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "watchnext.serving.stores.redis")
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'watchnext\[redis\]'"):
        open_store("redis://127.0.0.1")


def test_nothing_expires_and_nothing_is_kept_twice(redis_server):
    store = RedisStore(redis_server.url, "kept")
    store.append([LiveEvent("a", "watch", 1, "ann")])
    with redis_server.client as client:
        keys = set(client.scan_iter("kept:*"))
        assert all(client.ttl(key) == -1 for key in keys)
        store.forget("ann", 5)
        assert set(client.scan_iter("kept:*")) == {b"kept:version", b"kept:sequence", b"kept:forgotten"}
    assert isinstance(store._client, redis.Redis) and len(keys) == 5
    store.close()
