"""Wakes the nodes' agents after a commit. Losing or doubling a ring is harmless: agents also look themselves.

A ring carries nothing. Rings of one process are coalesced by one background thread, which alone talks to
Redis, so that a slow or dead Redis never holds up a request. What has been committed is done: a ring that
fails (no thread to be had) fails nothing. Must not import models or services.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import redis
import structlog
from django.conf import settings
from django.db import transaction

from workers.vocabulary.crashpoints import step

log = structlog.get_logger(__name__)
CHANNEL = "gantry:ring"
#: Wakes whoever delivers callbacks.
CALLBACKS = "gantry:callbacks"
#: Wakes the periodic duties of families (workers.upkeep.duties).
DUTIES = "gantry:duties"

_wanted = threading.Event()
#: Channels to ring on; adding one and taking one out are atomic.
_channels: set[str] = set()
_thread: threading.Thread | None = None
_thread_pid = 0
_start = threading.Lock()
#: Since when rings do not get through (monotonic seconds); None while they do, or before the first one.
_silent_since: float | None = None


def connect(timeout: float) -> redis.Redis:
    """A client of the broker that never waits longer than ``timeout`` seconds and never retries."""
    client: redis.Redis = redis.Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=None,
        retry_on_timeout=False,
        health_check_interval=0,
    )
    return client


def ring_after_commit() -> None:
    """Ring once the current transaction has committed (at once outside of one)."""
    transaction.on_commit(ring, robust=True)


def ring_callbacks_after_commit() -> None:
    """Wake the deliverers of callbacks once the current transaction has committed."""
    transaction.on_commit(ring_callbacks, robust=True)


def ring_duties_after_commit() -> None:
    """Have the duties of families look at once, when the current transaction has committed."""
    transaction.on_commit(ring_duties, robust=True)


def ring_duties() -> None:
    """Ask the background thread to wake whoever does families' duties; returns at once."""
    _ring(DUTIES)


def ring_callbacks() -> None:
    """Ask the background thread to wake every deliverer; returns at once."""
    step("api.before_callback_ring")
    _ring(CALLBACKS)


def ring() -> None:
    """Ask the background thread to wake every agent; returns at once."""
    step("api.before_ring")
    _ring(CHANNEL)


def _ring(channel: str) -> None:
    global _thread, _thread_pid
    _channels.add(channel)
    if _thread_pid != os.getpid() or _thread is None or not _thread.is_alive():
        with _start:
            if _thread_pid != os.getpid() or _thread is None or not _thread.is_alive():
                _thread = threading.Thread(target=_ringer, name="doorbell", daemon=True)
                _thread_pid = os.getpid()
                _thread.start()
    _wanted.set()


def silent_s() -> float | None:
    """For how many seconds this process' rings have not got through; None when the last one did."""
    since = _silent_since
    return None if since is None else time.monotonic() - since


def _ringer() -> None:
    global _silent_since
    client = connect(settings.REDIS_TIMEOUT_S)
    while True:
        _wanted.wait()
        _wanted.clear()
        try:
            while _channels:
                channel = _channels.pop()
                try:
                    client.publish(channel, b"")
                except redis.RedisError:
                    _channels.add(channel)
                    raise
            if _silent_since is not None:
                log.info("doorbell.back")
            _silent_since = None
        except redis.RedisError as error:
            if _silent_since is None:
                _silent_since = time.monotonic()
                log.warning(
                    "doorbell.silent",
                    error=str(error),
                    meaning="nodes look for work every few seconds instead",
                )
            time.sleep(1.0)
            _wanted.set()


def listen(
    wake: Callable[[], None],
    stopping: threading.Event,
    heard: Callable[[bool], None],
    channel: str = CHANNEL,
) -> None:
    """Call ``wake`` for every ring until ``stopping``; ``heard`` is told whether the broker answers."""
    while not stopping.is_set():
        try:
            client = connect(2.0)
            with client.pubsub(ignore_subscribe_messages=True) as subscription:  # type: ignore[no-untyped-call]
                subscription.subscribe(channel)
                heard(True)
                wake()  # what was rung while nobody listened
                while not stopping.is_set():
                    if subscription.get_message(timeout=1.0) is not None:
                        wake()
                    else:
                        client.ping()
        except (redis.RedisError, OSError):
            heard(False)
            stopping.wait(1.0)
