import pytest

from watchnext.errors import ConfigurationError
from watchnext.serving.stores.opening import open_store
from watchnext.serving.stores.redis import RedisStore
from watchnext.serving.stores.sqlite import SqliteStore


@pytest.mark.parametrize(
    "where", ["events.db", "sqlite:events.db", "./events.db", ":memory:", "sqlite:a:b.db", "./a:b"]
)
def test_a_path_is_a_file(where, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = open_store(where)
    assert isinstance(store, SqliteStore) and (tmp_path / where.removeprefix("sqlite:")).is_file()
    store.close()


def test_an_absolute_path_is_a_file(tmp_path):
    open_store(f"{tmp_path}/events.db").close()
    assert (tmp_path / "events.db").is_file()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_redis_url_is_a_redis_server(redis_server, kind):
    store = open_store(redis_server.url if kind == "tcp" else f"unix://{redis_server.socket}")
    assert isinstance(store, RedisStore) and store.last_sequence() >= 0
    store.close()


@pytest.mark.parametrize("where", ["postgres://app:s3cret@host/db", "http://s3cret", "slite:s3cret", "REDIS:s3cret"])
def test_any_other_kind_is_refused_without_its_password(where):
    with pytest.raises(ConfigurationError, match=f"of the kind {where.split(':')[0]}: came") as refusal:
        open_store(where)
    assert "s3cret" not in str(refusal.value)


@pytest.mark.parametrize("where", ["", "sqlite:"])
def test_a_store_without_a_name_is_refused(where):
    with pytest.raises(ConfigurationError, match="without a name came"):
        open_store(where)
