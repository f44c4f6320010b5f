"""The embedded Redis: a real server, killed and started again."""

from __future__ import annotations

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from config.local.servers import EmbeddedRedis


def test_redis_refuses_strangers_and_evicts_nothing(cache: EmbeddedRedis) -> None:
    stranger = redis.Redis(unix_socket_path=str(cache.socket), socket_timeout=60, retry=Retry(NoBackoff(), 0))
    with pytest.raises(redis.exceptions.AuthenticationError):
        stranger.ping()
    stranger.close()

    client = cache.client(60.0)
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert client.config_get("appendonly") == {"appendonly": "no"}
    assert client.config_get("save") == {"save": ""}
    client.close()


def test_redis_is_killed_and_comes_back_empty(cache: EmbeddedRedis) -> None:
    client = cache.client(60.0)
    client.set("a", "1")
    client.close()
    first = cache.pid

    cache.kill()
    cache.start()

    assert cache.pid not in (None, first)
    client = cache.client(60.0)
    assert client.dbsize() == 0
    client.close()
