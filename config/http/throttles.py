"""Token buckets that hold over all API processes, kept in Redis, and per process while Redis is away.

``SharedBuckets`` asks Redis at once: for what is rare and dear (logins, failed credentials). ``TenantRates``
is asked by every request and never waits: it spends from a copy in memory, and one thread settles with Redis
five times a second what this process has spent. Docs: decision 41. Must not import views or models.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from dataclasses import dataclass
from typing import Any, Final

import redis
import structlog
from django.conf import settings

from config.http.peers import Buckets

log = structlog.get_logger(__name__)

PREFIX: Final = "gantry:throttle:"
#: Longest wait for Redis on a request's path, in seconds.
_PATIENCE_S: Final = 0.05
#: After a failure Redis is left alone for so long.
_RESPITE_S: Final = 2.0
_SETTLE_S: Final = 0.2
_TENANTS_MAX: Final = 10_000

#: One bucket: KEYS[1]; burst, tokens per second, tokens to take, and whether it may go into debt. Returns
#: {was it taken, tokens left} as text. Time is the server's, so that processes need not agree on it.
_TAKE: Final = """
local burst, rate, wanted, debt = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local stored = redis.call('HMGET', KEYS[1], 'left', 'at')
local left, at = tonumber(stored[1] or burst), tonumber(stored[2] or now)
left = math.min(burst, left + math.max(0, now - at) * rate)
local taken = 0
if debt or left >= wanted then
    left = math.max(-burst, left - wanted)
    taken = 1
end
redis.call('HSET', KEYS[1], 'left', tostring(left), 'at', string.format('%.6f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil((burst - left) / rate * 1000) + 1000)
return {taken, tostring(left)}
"""


class _Store:
    """The script on Redis, with patience and respite. A broken connection costs nobody more than that."""

    def __init__(self) -> None:
        self._script: Any = None
        self._pid = 0
        self._away_until = 0.0

    def take(
        self, key: str, burst: float, rate: float, wanted: float = 1, *, debt: bool = False
    ) -> tuple[bool, float] | None:
        """(taken?, left), or None while Redis does not answer."""
        now = time.monotonic()
        if now < self._away_until:
            return None
        if self._script is None or self._pid != os.getpid():
            client = redis.Redis.from_url(
                settings.REDIS_URL,
                socket_timeout=_PATIENCE_S,
                socket_connect_timeout=_PATIENCE_S,
                retry=None,
                retry_on_timeout=False,
                health_check_interval=0,
            )
            self._script, self._pid = client.register_script(_TAKE), os.getpid()
        try:
            taken, left = self._script(keys=[PREFIX + key], args=[burst, rate, wanted, int(debt)])
        except (redis.RedisError, OSError) as error:
            self._away_until = now + _RESPITE_S
            log.warning("throttle.redis_away", error=str(error), meaning="limits hold per process meanwhile")
            return None
        return bool(taken), float(left)

    def drop(self, key: str) -> None:
        """Start a bucket afresh, if Redis answers."""
        if self._script is None or self._pid != os.getpid() or time.monotonic() < self._away_until:
            return
        try:
            self._script.registered_client.delete(PREFIX + key)
        except (redis.RedisError, OSError):
            self._away_until = time.monotonic() + _RESPITE_S


class SharedBuckets:
    """A bucket per key (an address): ``burst`` at once, then ``per_second``, over all processes."""

    def __init__(self, name: str, burst: float, per_second: float) -> None:
        self._name, self._burst, self._rate = name, burst, per_second
        self._store = _Store()
        self._local = Buckets(burst, per_second)

    def take(self, key: str) -> float:
        """0 when one was left and is now taken, else the seconds until the next one."""
        answer = self._store.take(self._key(key), self._burst, self._rate)
        if answer is None:
            return self._local.take(key)
        taken, left = answer
        return 0.0 if taken else (1 - left) / self._rate

    def forget(self, key: str) -> None:
        """Start afresh for a key."""
        self._local.forget(key)
        self._store.drop(self._key(key))

    def _key(self, key: str) -> str:
        # Hashed: of one length, whatever a proxy has written there.
        return f"{self._name}:{hashlib.sha256(key.encode()).hexdigest()[:32]}"


@dataclass(slots=True)
class _Account:
    """What this process believes of a tenant's bucket."""

    rate: float
    left: float
    at: float
    spent: int = 0


class TenantRates:
    """Requests a second of each tenant, with a burst of two seconds' worth.

    Between two settlements each process may spend what it believes to be there; what was spent beyond is a
    debt that all of them pay back, so that the rate holds over any longer time.
    """

    def __init__(self, store: _Store | None = None) -> None:
        self._accounts: dict[int, _Account] = {}
        self._store = store or _Store()
        self._wanted = threading.Event()
        self._start = threading.Lock()
        self._pid = 0

    def take(self, tenant_id: int, rate: float) -> tuple[float, int]:
        """(0 or the seconds until the next request may come, how many may come at once now)."""
        now = time.monotonic()
        account = self._accounts.get(tenant_id)
        if account is None or account.rate != rate:
            if len(self._accounts) >= _TENANTS_MAX:
                self._accounts.clear()
            account = self._accounts[tenant_id] = _Account(rate, 2 * rate, now)
        account.left = min(2 * rate, account.left + (now - account.at) * rate)
        account.at = now
        if account.left < 1:
            return (1 - account.left) / rate, 0
        account.left -= 1
        account.spent += 1
        if not self._wanted.is_set():
            self._wake()
        return 0.0, int(account.left)

    def _wake(self) -> None:
        if self._pid != os.getpid():
            with self._start:
                if self._pid != os.getpid():
                    threading.Thread(target=self._settle_forever, name="rates", daemon=True).start()
                    self._pid = os.getpid()
        self._wanted.set()

    def _settle_forever(self) -> None:
        while True:
            self._wanted.wait()
            time.sleep(_SETTLE_S)
            self._wanted.clear()
            self.settle()

    def settle(self) -> None:
        """Tell Redis what was spent here, and believe what it says is left."""
        for tenant_id, account in list(self._accounts.items()):
            spent = account.spent
            if not spent:
                continue
            answer = self._store.take(f"tenant:{tenant_id}", 2 * account.rate, account.rate, spent, debt=True)
            if answer is None:
                account.spent = 0  # each process by itself, until Redis is back
                continue
            account.spent -= spent
            account.left = answer[1] - account.spent
            account.at = time.monotonic()


#: Of this process.
rates: Final = TenantRates()
