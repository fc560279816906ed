"""Opens the store that a setting names."""

import re
from pathlib import Path

from watchnext.errors import ConfigurationError
from watchnext.serving.stores.protocol import EventStore
from watchnext.serving.stores.sqlite import SqliteStore

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_REDIS = ("redis", "rediss", "unix")


def open_store(where: str, *, trust_durability: bool = False) -> EventStore:
    """Gives the store at a path, `sqlite:PATH`, `redis://…`, `rediss://…` or `unix://…`.

    `trust_durability` takes a Redis server's word for it that it keeps what it accepts; see `RedisStore`.

    Raises:
        ConfigurationError: it is none of these, or a Redis client is wanted and not installed.
        ArtifactError: what is there is damaged, of another version, or something else.
        StoreError: it cannot be opened.
    """
    found = _SCHEME.match(where)
    scheme = found[1] if found else "sqlite"
    if scheme in _REDIS:
        from watchnext.serving.stores.redis import RedisStore  # an extra

        return RedisStore(where, trust_durability=trust_durability)
    path = where.removeprefix("sqlite:")
    if scheme != "sqlite" or not path:
        raise ConfigurationError(
            f"a store of live events {f'of the kind {scheme}:' if path else 'without a name'} came; a path, "
            "sqlite:PATH, redis://HOST:PORT/DB, rediss://… or unix://SOCKET was expected."
        )
    return SqliteStore(Path(path))
