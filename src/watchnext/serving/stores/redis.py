"""Live events in Redis, for several servers that share them; the only module that imports `redis`."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast
from urllib.parse import urlsplit

from watchnext.errors import ArtifactError, ConfigurationError, StoreError
from watchnext.serving.events import LiveEvent
from watchnext.serving.stores.records import from_json, id_bytes, id_text, refuse_inexact_second, to_json

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ImportError as missing:
    raise ConfigurationError(
        "events shall be kept in Redis, but its client is not installed. Say: pip install 'watchnext[redis]'"
    ) from missing

_LAYOUT_VERSION = b"1"
_DURABLE = {"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no"}
_TIMEOUT_SECONDS = 10.0
_POLL_SECONDS = 0.02
# Sequence numbers are written with leading zeros, so that events of one second are sorted by them.
_APPEND = """
local new = 0
for i = 1, #ARGV, 4 do
    local event_id, body, timestamp, of_user = unpack(ARGV, i, i + 3)
    if redis.call('HSETNX', KEYS[1], event_id, body) == 1 then
        new = new + 1
        local sequence = string.format('%016d', redis.call('INCR', KEYS[3]))
        redis.call('HSET', KEYS[2], sequence, event_id)
        if of_user ~= '' then
            redis.call('ZADD', of_user, timestamp, sequence)
        else
            redis.call('ZADD', KEYS[4], tonumber(sequence), sequence)
        end
    end
end
return new
"""
_OF_USER = """
local bodies = {}
for i, sequence in ipairs(redis.call('ZREVRANGE', KEYS[3], 0, ARGV[1] - 1)) do
    bodies[i] = redis.call('HGET', KEYS[1], redis.call('HGET', KEYS[2], sequence))
end
return bodies
"""
_SINCE = """
local found, last = {}, tonumber(redis.call('GET', KEYS[3]) or 0)
local sequence, limit = ARGV[1] + 1, 2 * ARGV[2]
while sequence <= last and #found < limit do
    local event_id = redis.call('HGET', KEYS[2], string.format('%016d', sequence))
    if event_id then
        found[#found + 1] = sequence
        found[#found + 1] = redis.call('HGET', KEYS[1], event_id)
    end
    sequence = sequence + 1
end
return found
"""
_FOR_EVERYBODY = """
local found = {}
for _, sequence in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. ARGV[1], '+inf', 'LIMIT', 0, ARGV[2])) do
    found[#found + 1] = tonumber(sequence)
    found[#found + 1] = redis.call('HGET', KEYS[1], redis.call('HGET', KEYS[2], sequence))
end
return found
"""
_FORGET = """
local sequences = redis.call('ZRANGE', KEYS[3], 0, -1)
for _, sequence in ipairs(sequences) do
    redis.call('HDEL', KEYS[1], redis.call('HGET', KEYS[2], sequence))
    redis.call('HDEL', KEYS[2], sequence)
end
redis.call('DEL', KEYS[3])
local before = redis.call('HGET', KEYS[4], ARGV[1])
if not before or tonumber(before) < tonumber(ARGV[2]) then redis.call('HSET', KEYS[4], ARGV[1], ARGV[2]) end
return #sequences
"""


class RedisStore:
    """A journal on one Redis server, that each server of a cluster appends to and reads.

    Redis writes an appended event to its append-only file, and syncs it, before it answers; it syncs once for all
    callers of one moment. A server that does less is refused, unless `trust_durability` says that somebody else looks
    after that, and after what its files still hold of forgotten users. A replica that takes over may lack the
    newest events.

    Raises:
        ArtifactError: another version of watchnext wrote what is there.
        ConfigurationError: the URL is no Redis URL, or the server would lose or drop accepted events.
        StoreError: the server does not answer.
    """

    def __init__(self, url: str, prefix: str = "watchnext", *, trust_durability: bool = False) -> None:
        self._trusted, self._closed = trust_durability, False
        try:
            # A retried append could not tell how many events were new.
            self._client = redis.Redis.from_url(
                url,
                socket_timeout=_TIMEOUT_SECONDS,
                socket_connect_timeout=_TIMEOUT_SECONDS,
                retry=Retry(NoBackoff(), 0),
            )
            self._client.connection_pool.make_connection()  # does not connect; refuses unknown options
            self._server = urlsplit(url).hostname or "a local socket"
        except (ValueError, TypeError):
            raise ConfigurationError(
                "the Redis URL cannot be read; one like redis://host:6379/0, rediss://user:password@host:6379/0 or "
                "unix:///path/to/socket was expected."
            ) from None  # the cause may quote the password
        self._append, self._of_user, self._since, self._for_everybody, self._forget = (
            self._client.register_script(text) for text in (_APPEND, _OF_USER, _SINCE, _FOR_EVERYBODY, _FORGET)
        )
        self._key = f"{prefix}:".encode()
        self._bodies, self._journal = self._key + b"bodies", self._key + b"journal"
        self._sequence, self._forgotten = self._key + b"sequence", self._key + b"forgotten"
        self._everybody = self._key + b"everybody"
        try:
            with self._translating():
                if not trust_durability:
                    self._refuse_forgetful()
                self._refuse_other_layout()
        except BaseException:
            self.close()
            raise

    def append(self, events: Sequence[LiveEvent]) -> int:
        """Writes events, all or none, and gives how many were new; see `EventStore.append`."""
        arguments: list[Any] = []
        for event in events:
            of_user = b"" if event.user_id is None else self._user(event.user_id)
            arguments += id_bytes(event.event_id), to_json(event), event.timestamp, of_user
        with self._translating():
            return int(self._append([self._bodies, self._journal, self._sequence, self._everybody], arguments))

    def of_user(self, user_id: str, limit: int) -> list[LiveEvent]:
        """Gives a user's newest events; see `EventStore.of_user`."""
        if limit < 1:
            return []
        with self._translating():
            found = self._of_user([self._bodies, self._journal, self._user(user_id)], [limit])
        return [from_json(body) for body in reversed(found)]

    def since(self, sequence: int, limit: int) -> list[tuple[int, LiveEvent]]:
        """Gives what came after a sequence number; see `EventStore.since`."""
        with self._translating():
            found = self._since([self._bodies, self._journal, self._sequence], [max(0, sequence), limit])
        return [(place, from_json(body)) for place, body in zip(found[::2], found[1::2], strict=True)]

    def for_everybody(self, sequence: int, limit: int) -> list[tuple[int, LiveEvent]]:
        """Gives what came of no user; see `EventStore.for_everybody`."""
        keys = [self._bodies, self._journal, self._everybody]
        with self._translating():
            found = self._for_everybody(keys, [max(0, sequence), max(0, limit)])
        return [(place, from_json(body)) for place, body in zip(found[::2], found[1::2], strict=True)]

    def last_sequence(self) -> int:
        """Gives the newest event's sequence number; see `EventStore.last_sequence`."""
        with self._translating():
            return int(cast(bytes | None, self._client.get(self._sequence)) or 0)

    def forget(self, user_id: str, moment: int) -> int:
        """Deletes everything of a user, and has the server write its append-only file anew; see `EventStore.forget`.

        The bytes leave the disk when the server has finished that, and a dump.rdb, if it keeps one, when it saves next.

        Raises:
            StoreError: the server is busy with writing it anew for somebody else, for long.
        """
        refuse_inexact_second(moment)
        with self._translating():
            keys = [self._bodies, self._journal, self._user(user_id), self._forgotten]
            gone = int(self._forget(keys, [id_bytes(user_id), moment]))
            if not self._trusted:
                self._rewrite()
        return gone

    def forgotten_at(self, user_id: str) -> int | None:
        """Gives when a user was last forgotten, None for most."""
        with self._translating():
            moment = cast(bytes | None, self._client.hget(self._forgotten, id_bytes(user_id)))
        return None if moment is None else int(moment)

    def forgotten(self) -> dict[str, int]:
        """Gives all users who were forgotten, and when."""
        with self._translating():
            found = cast(dict[bytes, bytes], self._client.hgetall(self._forgotten))
        return {id_text(user): int(moment) for user, moment in found.items()}

    def close(self) -> None:
        """Closes the connections; a second time does nothing."""
        self._closed = True
        self._client.close()

    def _user(self, user_id: str) -> bytes:
        return self._key + b"user:" + id_bytes(user_id)

    def _refuse_forgetful(self) -> None:
        try:
            found = {name: self._setting(name) for name in (*_DURABLE, "maxmemory", "maxmemory-policy")}
        except redis.ResponseError as error:
            raise ConfigurationError(
                f"the Redis server at {self._server} does not show its settings, so that nothing says whether it "
                "keeps what it accepts. Allow CONFIG GET, or, where it is durable, say --trust-durability."
            ) from error
        wrong = [name for name, right in _DURABLE.items() if found[name] != right]
        if wrong:
            expected = ", ".join(f"{name} {_DURABLE[name]}" for name in wrong)
            actual = ", ".join(f"{name} {found[name]}" for name in wrong)
            raise ConfigurationError(
                f"the Redis server at {self._server} has {actual}: it would lose accepted events. "
                f"Set {expected} in redis.conf."
            )
        if found["maxmemory"] != "0" and found["maxmemory-policy"].startswith("allkeys"):
            raise ConfigurationError(
                f"the Redis server at {self._server} has maxmemory-policy {found['maxmemory-policy']}: it would drop "
                "events when its memory is full. Set maxmemory-policy noeviction in redis.conf."
            )

    def _setting(self, name: str) -> str:
        return str(cast(dict[str, str], self._client.config_get(name)).get(name, "unset"))

    def _refuse_other_layout(self) -> None:
        key = self._key + b"version"
        self._client.set(key, _LAYOUT_VERSION, nx=True)
        version = cast(bytes, self._client.get(key))
        if version != _LAYOUT_VERSION:
            raise ArtifactError(
                f"the events on the Redis server at {self._server} have version {version!r}, {_LAYOUT_VERSION!r} was "
                "expected. Use another prefix or database, or the watchnext that wrote them."
            )

    def _rewrite(self) -> None:
        """Starts a rewrite that knows of the last deletion: one that was under way does not."""
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while cast(dict[str, int], self._client.info("persistence"))["aof_rewrite_in_progress"]:
            if time.monotonic() > deadline:
                raise StoreError(
                    f"the user's events are deleted, but the files of the Redis server at {self._server} may hold them "
                    "still: it is busy with rewriting them. Forget the user again."
                )
            time.sleep(_POLL_SECONDS)
        self._client.bgrewriteaof()

    @contextmanager
    def _translating(self) -> Iterator[None]:
        if self._closed:
            raise StoreError(f"the store on the Redis server at {self._server} is closed; open it again.")
        try:
            yield
        except redis.RedisError as error:
            raise StoreError(
                f"the Redis server at {self._server} cannot be read or written now ({type(error).__name__}). See that "
                "it runs, that the URL's user may use it, and that it has memory and disk to write to."
            ) from error
